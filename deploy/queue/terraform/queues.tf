# client -> tasks topic -> a queue a runtime and tier, by filter policy; what cannot be drawn ends in
# dead-letters.

locals {
  runtimes = merge(var.runtimes, var.dynamic ? { dynamic = "" } : {})

  # queue -> its filter policy; the same as hosts/queue/local/topology.py makes
  queues = merge([
    for runtime, model in local.runtimes : {
      for tier in ["standard", "priority"] : "${runtime}${tier == "priority" ? "-priority" : ""}" => {
        filter = {
          "$or" = [
            { (tier == "priority" ? "priority_sd_model_checkpoint" : "sd_model_checkpoint") = local.models[runtime] },
            { (tier == "priority" ? "priority_runtime" : "runtime") = [runtime] },
          ]
        }
      }
    }
  ]...)

  models = {
    for runtime, model in local.runtimes : runtime => jsondecode(
      runtime != "dynamic" ? jsonencode([model])
      : length(var.runtimes) == 0 ? jsonencode([{ exists = true }])
      : jsonencode([{ "anything-but" = sort(distinct(values(var.runtimes))) }])
    )
  }
}

resource "aws_sns_topic" "tasks" {
  name              = "${var.name}-tasks"
  kms_master_key_id = "alias/aws/sns"
  tracing_config    = var.tracing ? "Active" : "PassThrough"
}

# Without it the topic drops its part of every trace. An account may have five such policies.
resource "aws_xray_resource_policy" "sns" {
  count       = var.tracing ? 1 : 0
  policy_name = "${var.name}-sns"
  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Topic"
      Effect    = "Allow"
      Principal = { Service = "sns.amazonaws.com" }
      Action    = ["xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTraceSegments"]
      Resource  = "*"
      Condition = {
        StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id }
        StringLike   = { "aws:SourceArn" = aws_sns_topic.tasks.arn }
      }
    }]
  })
}

resource "aws_sns_topic" "results" {
  name              = "${var.name}-results"
  kms_master_key_id = "alias/aws/sns"
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "this" {
  for_each                   = local.queues
  name                       = "${var.name}-${each.key}"
  visibility_timeout_seconds = var.visibility_s
  receive_wait_time_seconds  = 20
  message_retention_seconds  = 345600
  sqs_managed_sse_enabled    = true
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = var.max_receives
  })
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id
  # SQS takes a list of at most ten
  redrive_allow_policy = (
    length(local.queues) > 10
    ? jsonencode({ redrivePermission = "allowAll" })
    : jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [for queue in aws_sqs_queue.this : queue.arn] })
  )
}

data "aws_iam_policy_document" "queue" {
  for_each = local.queues
  statement {
    sid       = "Topic"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.this[each.key].arn]
    principals {
      type        = "Service"
      identifiers = ["sns.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_sns_topic.tasks.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "this" {
  for_each  = local.queues
  queue_url = aws_sqs_queue.this[each.key].id
  policy    = data.aws_iam_policy_document.queue[each.key].json
}

resource "aws_sns_topic_subscription" "this" {
  for_each             = local.queues
  topic_arn            = aws_sns_topic.tasks.arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.this[each.key].arn
  filter_policy        = jsonencode(each.value.filter)
  raw_message_delivery = true
  depends_on           = [aws_sqs_queue_policy.this]
}
