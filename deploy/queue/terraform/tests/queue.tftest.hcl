mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:group" }
  }
  mock_resource "aws_api_gateway_stage" {
    defaults = { arn = "arn:aws:apigateway:us-east-1::/restapis/api/stages/prod" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:topic" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:us-east-1:123456789012:queue"
      id  = "https://sqs.us-east-1.amazonaws.com/123456789012/queue"
    }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::bucket" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/role" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { invoke_arn = "arn:aws:apigateway:us-east-1:lambda:path/functions/front/invocations" }
  }
  mock_resource "aws_api_gateway_rest_api" {
    defaults = { execution_arn = "arn:aws:execute-api:us-east-1:123456789012:api" }
  }
}

variables {
  runtimes      = { sd15 = "v1-5.safetensors", sdxl = "sdxl.safetensors" }
  front_package = "tests/queue.tftest.hcl" # any file
}

# IAM's roles are one set for all regions, and a bucket's name is one for all accounts and regions.
# First, because a bucket that is there keeps its name.
run "the_same_name_in_another_region" {
  command = plan
  variables {
    region              = "eu-west-1"
    access_log          = true
    api_gateway_account = true
  }
  assert {
    condition     = alltrue([for role in concat([aws_iam_role.front], values(aws_iam_role.pod), aws_iam_role.gateway) : strcontains(role.name, "-eu-west-1-")])
    error_message = "roles of two regions have two names"
  }
  assert {
    condition     = aws_s3_bucket.results.bucket == "stable-diffusion-123456789012-eu-west-1"
    error_message = "buckets of two regions have two names"
  }
}

run "one_queue_a_runtime_and_tier" {
  assert {
    condition     = keys(output.filters) == ["sd15", "sd15-priority", "sdxl", "sdxl-priority"]
    error_message = "every runtime has two queues"
  }
  assert {
    condition = jsonencode(output.filters["sd15"]) == jsonencode({
      "$or" = [{ sd_model_checkpoint = ["v1-5.safetensors"] }, { runtime = ["sd15"] }]
    })
    error_message = "the standard filter is the reference system's"
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : queue.sqs_managed_sse_enabled])
    error_message = "queues are encrypted"
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.this : jsondecode(queue.redrive_policy).maxReceiveCount == 60])
    error_message = "every queue has the dead-letter queue behind it"
  }
  assert {
    condition     = aws_api_gateway_method.any.api_key_required
    error_message = "no call without a key"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 0
    error_message = "no cluster, no association"
  }
  assert {
    condition     = output.workers["sd15"].WORKER_DYNAMIC == "false"
    error_message = "workers of a runtime keep its model"
  }
}

run "the_dashboard_shows_every_queue_runtime_and_service" {
  command = plan
  variables {
    dynamic = true
  }
  assert {
    condition = toset(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
      [for metric in widget.properties.metrics : join(" ", slice(metric, 0, 4))]
      ])) == toset(concat(
      flatten([
        for queue in keys(output.filters) : [
          "AWS/SQS ApproximateNumberOfMessagesVisible QueueName stable-diffusion-${queue}",
          "AWS/SQS ApproximateNumberOfMessagesNotVisible QueueName stable-diffusion-${queue}",
          "AWS/SQS ApproximateAgeOfOldestMessage QueueName stable-diffusion-${queue}",
        ]
      ]),
      flatten([
        for topic in ["tasks", "results"] : [
          "AWS/SNS NumberOfMessagesPublished TopicName stable-diffusion-${topic}",
          "AWS/SNS NumberOfNotificationsDelivered TopicName stable-diffusion-${topic}",
          "AWS/SNS NumberOfNotificationsFailed TopicName stable-diffusion-${topic}",
        ]
      ]),
      [
        "AWS/SQS ApproximateNumberOfMessagesVisible QueueName stable-diffusion-dead-letters",
        "AWS/ApiGateway Count ApiName stable-diffusion",
        "AWS/ApiGateway 4XXError ApiName stable-diffusion",
        "AWS/ApiGateway 5XXError ApiName stable-diffusion",
        "AWS/ApiGateway Latency ApiName stable-diffusion",
        "AWS/Lambda Invocations FunctionName stable-diffusion-front",
        "AWS/Lambda Errors FunctionName stable-diffusion-front",
        "AWS/Lambda Throttles FunctionName stable-diffusion-front",
        "AWS/Lambda Duration FunctionName stable-diffusion-front",
        "StableDiffusion Waiting Deployment stable-diffusion",
        "StableDiffusion Active Deployment stable-diffusion",
        "StableDiffusion InFlight Deployment stable-diffusion",
        "StableDiffusion Images Deployment stable-diffusion",
      ],
    ))
    error_message = "every queue, topic and service is there, by the names that AWS documents"
  }
  assert {
    condition = toset(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
      [for metric in widget.properties.metrics : metric[5] if metric[0] == "StableDiffusion"]
    ])) == toset(keys(output.workers))
    error_message = "the engines of every runtime are there"
  }
  assert {
    condition     = output.workers["sd15"].WORKER_CLOUDWATCH == "stable-diffusion/sd15"
    error_message = "a worker sends its figures under the names that the dashboard asks for"
  }
}

run "without_tracing_the_accounts_policies_are_spared" {
  command = plan
  assert {
    condition     = length(aws_xray_resource_policy.sns) == 0 && aws_sns_topic.tasks.tracing_config != "Active"
    error_message = "an account may have five such policies"
  }
}

run "the_topic_may_trace" {
  variables {
    tracing = true
  }
  assert {
    condition     = contains(jsondecode(aws_xray_resource_policy.sns[0].policy_document).Statement[0].Action, "xray:PutTraceSegments")
    error_message = "SNS needs a policy of X-Ray's to send its part of a trace"
  }
  assert {
    condition     = aws_lambda_function.front.environment[0].variables.FRONT_TRACING == "true"
    error_message = "the front door exports its spans"
  }
}

run "dynamic_models" {
  variables {
    dynamic = true
  }
  assert {
    condition = jsonencode(output.filters["dynamic"]) == jsonencode({
      "$or" = [
        { sd_model_checkpoint = [{ "anything-but" = ["sdxl.safetensors", "v1-5.safetensors"] }] },
        { runtime = ["dynamic"] },
      ]
    })
    error_message = "the catch-all takes what no runtime serves"
  }
}

run "an_access_log_and_a_web_acl_are_choices" {
  assert {
    condition     = length(aws_api_gateway_account.this) + length(aws_cloudwatch_log_group.access) + length(aws_wafv2_web_acl_association.this) == 0
    error_message = "nothing of the account's is touched unasked"
  }
}

run "no_cloudfront_unasked" {
  assert {
    condition     = length(aws_cloudfront_distribution.this) == 0 && output.cloudfront_domain == null
    error_message = "the API answers by itself"
  }
}

run "cloudfront_before_the_api" {
  variables {
    cloudfront = {
      hostname        = "tasks.example.com"
      certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/0"
    }
  }
  assert {
    condition     = output.url == "https://tasks.example.com" && aws_cloudfront_distribution.this[0].aliases == toset(["tasks.example.com"])
    error_message = "callers use the name"
  }
  assert {
    condition = alltrue([
      for origin in aws_cloudfront_distribution.this[0].origin :
      origin.origin_path == "/prod" && startswith(origin.domain_name, "${aws_api_gateway_rest_api.this.id}.execute-api.us-east-1.") &&
      one(origin.custom_origin_config).origin_protocol_policy == "https-only" && one(origin.custom_origin_config).origin_ssl_protocols == toset(["TLSv1.2"])
    ])
    error_message = "it asks the API's stage, by TLS 1.2"
  }
  assert {
    condition     = one(aws_cloudfront_distribution.this[0].default_cache_behavior).cache_policy_id == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
    error_message = "a status that was kept would be an old one"
  }
  assert {
    condition     = one(aws_cloudfront_distribution.this[0].default_cache_behavior).origin_request_policy_id == "b689b0a8-53d0-40ab-baf2-68738e2966ac"
    error_message = "x-api-key, authorization and the trace go on; API Gateway refuses another Host"
  }
  assert {
    condition     = contains(one(aws_cloudfront_distribution.this[0].default_cache_behavior).allowed_methods, "DELETE") && one(aws_cloudfront_distribution.this[0].default_cache_behavior).viewer_protocol_policy == "https-only"
    error_message = "tasks are sent and cancelled through it, and keys never go in the clear"
  }
  assert {
    condition     = one(aws_cloudfront_distribution.this[0].viewer_certificate).minimum_protocol_version == "TLSv1.2_2021"
    error_message = "TLS 1.2 at least"
  }
}

run "with_an_access_log_and_a_web_acl" {
  variables {
    access_log  = true
    web_acl_arn = "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/name/0123"
  }
  assert {
    condition     = length(aws_api_gateway_stage.this.access_log_settings) == 1 && length(aws_api_gateway_account.this) == 0
    error_message = "the log uses the role that the account's region has"
  }
  assert {
    condition     = !strcontains(one(aws_api_gateway_stage.this.access_log_settings[*].format), "apiKey\"")
    error_message = "keys are not logged"
  }
  assert {
    condition     = length(aws_wafv2_web_acl_association.this) == 1
    error_message = "the web ACL is before the API"
  }
}

run "with_the_first_access_log_of_the_region" {
  variables {
    access_log          = true
    api_gateway_account = true
  }
  assert {
    condition     = length(aws_api_gateway_account.this) == 1 && length(aws_iam_role.gateway) == 1
    error_message = "API Gateway gets a role for logs"
  }
}

run "the_dynamic_runtime_alone" {
  variables {
    runtimes = {}
    dynamic  = true
  }
  assert {
    condition     = jsonencode(output.filters["dynamic"]["$or"][0]) == jsonencode({ sd_model_checkpoint = [{ exists = true }] })
    error_message = "alone it takes every model; SNS refuses an empty anything-but"
  }
}

run "no_runtime" {
  command = plan
  variables {
    runtimes = {}
  }
  expect_failures = [var.runtimes]
}

run "clients_and_cluster" {
  variables {
    clients         = { shop = "priority", blog = "standard" }
    cluster_name    = "sd"
    worker_accounts = ["stable-diffusion/stable-diffusion", "stable-diffusion-sdxl/stable-diffusion"]
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 3
    error_message = "each namespace's workers, and KEDA, get their role"
  }
  assert {
    condition     = length(aws_api_gateway_usage_plan_key.this) == 2
    error_message = "every client's key is in the usage plan"
  }
  assert {
    condition     = aws_eks_pod_identity_association.this["stable-diffusion/stable-diffusion"].service_account == "stable-diffusion"
    error_message = "the worker's service account gets its role"
  }
}

run "more_queues_than_a_redrive_policy_can_list" {
  variables {
    runtimes = { for number in range(6) : "sd${number}" => "${number}.safetensors" }
  }
  assert {
    condition     = length(aws_sqs_queue.this) == 12
    error_message = "six runtimes have twelve queues"
  }
  assert {
    condition     = length(try(jsondecode(aws_sqs_queue_redrive_allow_policy.dead_letters.redrive_allow_policy).sourceQueueArns, [])) <= 10
    error_message = "SQS refuses more than ten source queues"
  }
}

run "more_runtimes_than_a_topic_has_filter_policies_for" {
  command = plan
  variables {
    runtimes = { for number in range(100) : "sd${number}" => "${number}.safetensors" }
  }
  expect_failures = [var.runtimes]
}

run "more_runtimes_than_a_function_has_environment_for" {
  command = plan
  variables {
    runtimes = { for number in range(50) : "a-runtime-with-a-name-${number}" => "a-checkpoint-with-a-long-name-${number}.safetensors" }
  }
  expect_failures = [var.runtimes]
}

run "a_tier_that_is_none" {
  command = plan
  variables {
    clients = { shop = "gold" }
  }
  expect_failures = [var.clients]
}

run "a_runtime_with_a_meaning_of_its_own" {
  command = plan
  variables {
    runtimes = { legacy = "x.safetensors" }
  }
  expect_failures = [var.runtimes]
}
