output "url" {
  description = "Where tasks are posted: POST {url}/v1alpha2 with the header x-api-key."
  value       = var.cloudfront == null ? aws_api_gateway_stage.this.invoke_url : "https://${var.cloudfront.hostname}"
}

output "cloudfront_domain" {
  description = "What the name of cloudfront has to be an alias of, in DNS; null: there is none."
  value       = one(aws_cloudfront_distribution.this[*].domain_name)
}

output "api_keys" {
  description = "client -> API key"
  value       = { for client, key in aws_api_gateway_api_key.this : client => key.value }
  sensitive   = true
}

output "bucket" {
  value = aws_s3_bucket.results.id
}

output "results_topic" {
  description = "Subscribe to it for completion messages."
  value       = aws_sns_topic.results.arn
}

output "queues" {
  description = "queue -> URL"
  value       = { for name, queue in aws_sqs_queue.this : name => queue.url }
}

output "filters" {
  description = "queue -> filter policy"
  value       = { for name, queue in local.queues : name => queue.filter }
}

output "workers" {
  description = "runtime -> the environment of its workers"
  value = {
    for runtime in keys(local.runtimes) : runtime => {
      WORKER_QUEUE_URLS      = "${aws_sqs_queue.this["${runtime}-priority"].url},${aws_sqs_queue.this[runtime].url}"
      WORKER_DEAD_LETTER_URL = aws_sqs_queue.dead_letters.url
      WORKER_TOPIC_ARN       = aws_sns_topic.results.arn
      WORKER_BUCKET          = aws_s3_bucket.results.id
      WORKER_INPUT_BUCKETS   = join(",", var.input_buckets)
      WORKER_VISIBILITY_S    = tostring(var.visibility_s)
      WORKER_DYNAMIC         = tostring(runtime == "dynamic")
      WORKER_CLOUDWATCH      = "${var.name}/${runtime}"
      AWS_REGION             = var.region
    }
  }
}

output "roles" {
  description = "ARNs of the pods' roles"
  value       = { for name, role in aws_iam_role.pod : name => role.arn }
}
