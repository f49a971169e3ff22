# What somebody should hear of, where an address is given: who hears of nothing has no topic.

locals {
  told = var.alarm_email == null ? 0 : 1
  # namespace -> whether there is anything in it
  measured = { "AWS/SQS" = local.ours["karpenter"], ContainerInsights = var.container_insights }
  # alarm -> the metric, and from which value on it is one
  alarms = {
    interruptions = {
      describe   = "Karpenter does not read its queue: spot nodes end without being drained"
      namespace  = "AWS/SQS"
      metric     = "ApproximateAgeOfOldestMessage"
      dimensions = { QueueName = one(aws_sqs_queue.interruptions[*].name) }
      above      = 120
    }
    failed-nodes = {
      describe   = "Nodes are not ready"
      namespace  = "ContainerInsights"
      metric     = "cluster_failed_node_count"
      dimensions = { ClusterName = local.cluster_name }
      above      = 0
    }
  }
  charted = [
    ["ContainerInsights", "cluster_node_count", "ClusterName", local.cluster_name],
    ["ContainerInsights", "node_gpu_utilization", "ClusterName", local.cluster_name],
    ["ContainerInsights", "cluster_number_of_running_pods", "ClusterName", local.cluster_name],
    ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", one(aws_sqs_queue.interruptions[*].name)],
  ]
}

resource "aws_sns_topic" "alarms" {
  count             = local.told
  name              = "${local.name}-alarms"
  kms_master_key_id = local.key_arn
}

resource "aws_sns_topic_subscription" "alarms" {
  count     = local.told
  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = { for name, alarm in local.alarms : name => alarm if local.measured[alarm.namespace] }
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.describe
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 5
  threshold           = each.value.above
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = aws_sns_topic.alarms[*].arn
  ok_actions          = aws_sns_topic.alarms[*].arn
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = local.name
  dashboard_body = jsonencode({
    widgets = [
      for index, metric in [
        for metric in local.charted : metric if metric[0] != "AWS/SQS" || local.ours["karpenter"]
      ] :
      {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = metric[1]
          region  = var.region
          metrics = [metric]
          stat    = "Average"
          period  = 60
        }
      }
    ]
  })
}

resource "aws_budgets_budget" "this" {
  count        = var.monthly_budget_usd == null ? 0 : local.told
  name         = local.name
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  # of this deployment alone, once its tag is activated for billing
  cost_filter {
    name   = "TagKeyValue"
    values = ["user:deployment$${local.name}"]
  }

  notification {
    comparison_operator        = "GREATER_THAN"
    threshold                  = 80
    threshold_type             = "PERCENTAGE"
    notification_type          = "ACTUAL"
    subscriber_email_addresses = [var.alarm_email]
  }
}
