# One page in CloudWatch: the way of a task from the API to a worker, and what the workers' engines do.
# A worker sends the figures of the namespace StableDiffusion itself (hosts/queue/worker/figures.py).

locals {
  # A line for each queue, and one for each runtime: with 100 runtimes 200 and 100 lines. CloudWatch takes 500 in
  # a widget and 2500 in a dashboard.
  of_queues = { for queue, made in aws_sqs_queue.this : queue => ["QueueName", made.name, { label = queue }] }
  of_runtimes = {
    for runtime in keys(local.runtimes) : runtime =>
    ["Deployment", var.name, "Runtime", runtime, { label = runtime }]
  }
  of_api      = ["ApiName", aws_api_gateway_rest_api.this.name]
  of_function = ["FunctionName", aws_lambda_function.front.function_name]
  topics      = { tasks = aws_sns_topic.tasks.name, results = aws_sns_topic.results.name }

  widgets = concat(
    [
      for title, metric in {
        "Tasks waiting"                           = "ApproximateNumberOfMessagesVisible"
        "Tasks in work"                           = "ApproximateNumberOfMessagesNotVisible"
        "Seconds that the oldest task has waited" = "ApproximateAgeOfOldestMessage"
      } :
      { title = title, stat = "Maximum", metrics = [for line in local.of_queues : concat(["AWS/SQS", metric], line)] }
    ],
    [
      for title, metric in {
        "Engine: requests waiting"       = "Waiting"
        "Engine: images being generated" = "Active"
        "Worker: tasks in flight"        = "InFlight"
        "Engine: images generated"       = "Images"
      } :
      # each worker sends one value a minute: their sum is that of all workers
      { title = title, stat = "Sum", metrics = [for line in local.of_runtimes : concat(["StableDiffusion", metric], line)] }
    ],
    [
      {
        title = "Dead letters", stat = "Maximum"
        metrics = [
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letters.name]
        ]
      },
      {
        title = "API: requests and errors", stat = "Sum"
        metrics = [
          for metric in ["Count", "4XXError", "5XXError"] : concat(["AWS/ApiGateway", metric], local.of_api)
        ]
      },
      {
        title   = "API: milliseconds (95%)", stat = "p95"
        metrics = [concat(["AWS/ApiGateway", "Latency"], local.of_api)]
      },
      {
        title = "Front door: calls and errors", stat = "Sum"
        metrics = [
          for metric in ["Invocations", "Errors", "Throttles"] : concat(["AWS/Lambda", metric], local.of_function)
        ]
      },
      {
        title   = "Front door: milliseconds (95%)", stat = "p95"
        metrics = [concat(["AWS/Lambda", "Duration"], local.of_function)]
      },
      {
        title = "Topics: messages", stat = "Sum"
        metrics = concat([
          for label, topic in local.topics : [
            for metric in ["NumberOfMessagesPublished", "NumberOfNotificationsDelivered", "NumberOfNotificationsFailed"] :
            ["AWS/SNS", metric, "TopicName", topic, { label = "${label}: ${metric}" }]
          ]
        ]...)
      },
    ],
  )
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = "${var.name}-queue"
  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        x      = 12 * (index % 2)
        y      = 6 * floor(index / 2)
        width  = 12
        height = 6
        properties = {
          title   = widget.title
          region  = var.region
          stat    = widget.stat
          period  = 60
          metrics = widget.metrics
        }
      }
    ]
  })
}
