# The front door: API Gateway (keys, throttling) before a Lambda function.

resource "aws_cloudwatch_log_group" "front" {
  name              = "/aws/lambda/${var.name}-front"
  retention_in_days = var.log_days
}

resource "aws_lambda_function" "front" {
  function_name    = "${var.name}-front"
  role             = aws_iam_role.front.arn
  runtime          = "python3.13"
  architectures    = ["arm64"]
  handler          = "hosts.queue.front.handler.handler"
  filename         = var.front_package
  source_code_hash = filebase64sha256(var.front_package)
  memory_size      = 512
  timeout          = 15
  environment {
    variables = {
      FRONT_TOPIC_ARN       = aws_sns_topic.tasks.arn
      FRONT_BUCKET          = aws_s3_bucket.results.id
      FRONT_RUNTIMES        = jsonencode(var.runtimes)
      FRONT_DYNAMIC_RUNTIME = var.dynamic ? "dynamic" : ""
      FRONT_TRACING         = tostring(var.tracing)
      OTEL_SERVICE_NAME     = "${var.name}-front"
      FRONT_PRIORITY_KEYS = join(",", [
        for client, tier in var.clients : aws_api_gateway_api_key.this[client].id if tier == "priority"
      ])
    }
  }
  tracing_config {
    mode = "Active"
  }
  depends_on = [aws_cloudwatch_log_group.front, aws_iam_role_policy.front]
}

resource "aws_api_gateway_rest_api" "this" {
  name = var.name
  endpoint_configuration {
    types = ["REGIONAL"]
  }
}

resource "aws_api_gateway_resource" "any" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  parent_id   = aws_api_gateway_rest_api.this.root_resource_id
  path_part   = "{proxy+}"
}

resource "aws_api_gateway_method" "any" {
  rest_api_id      = aws_api_gateway_rest_api.this.id
  resource_id      = aws_api_gateway_resource.any.id
  http_method      = "ANY"
  authorization    = "NONE"
  api_key_required = true
}

resource "aws_api_gateway_integration" "any" {
  rest_api_id             = aws_api_gateway_rest_api.this.id
  resource_id             = aws_api_gateway_resource.any.id
  http_method             = aws_api_gateway_method.any.http_method
  type                    = "AWS_PROXY"
  integration_http_method = "POST"
  uri                     = aws_lambda_function.front.invoke_arn
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.front.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/*/*/*"
}

resource "aws_api_gateway_deployment" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  triggers = {
    routes = sha1(jsonencode([
      aws_api_gateway_resource.any.path_part,
      aws_api_gateway_method.any.api_key_required,
      aws_api_gateway_integration.any.uri,
    ]))
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_api_gateway_stage" "this" {
  rest_api_id          = aws_api_gateway_rest_api.this.id
  deployment_id        = aws_api_gateway_deployment.this.id
  stage_name           = "prod"
  xray_tracing_enabled = true
  dynamic "access_log_settings" {
    for_each = aws_cloudwatch_log_group.access
    content {
      destination_arn = access_log_settings.value.arn
      # never the key itself, nor the body
      format = jsonencode({
        time    = "$context.requestTime"
        request = "$context.requestId"
        key     = "$context.identity.apiKeyId"
        address = "$context.identity.sourceIp"
        method  = "$context.httpMethod"
        path    = "$context.path"
        status  = "$context.status"
        bytes   = "$context.responseLength"
        ms      = "$context.responseLatency"
        trace   = "$context.xrayTraceId"
      })
    }
  }
  depends_on = [aws_api_gateway_account.this]
}

# Latency, counts and errors of each method in CloudWatch.
resource "aws_api_gateway_method_settings" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
  method_path = "*/*"
  settings {
    metrics_enabled        = true
    throttling_rate_limit  = -1 # the usage plan's limits hold
    throttling_burst_limit = -1
  }
}

resource "aws_cloudwatch_log_group" "access" {
  count             = var.access_log ? 1 : 0
  name              = "/aws/apigateway/${var.name}"
  retention_in_days = var.log_days
}

# The role by which API Gateway writes logs is one for the account's region, not for an API. Making it
# replaces another's, and destroying it (from version 6 of the provider) takes it from every API: so it is
# a choice of its own, and install.sh looks first.
data "aws_iam_policy_document" "gateway" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["apigateway.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "gateway" {
  count              = local.own_account ? 1 : 0
  name               = "${local.role_prefix}-gateway-logs"
  assume_role_policy = data.aws_iam_policy_document.gateway.json
}

resource "aws_iam_role_policy_attachment" "gateway" {
  count      = local.own_account ? 1 : 0
  role       = aws_iam_role.gateway[0].name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
}

resource "aws_api_gateway_account" "this" {
  count               = local.own_account ? 1 : 0
  cloudwatch_role_arn = aws_iam_role.gateway[0].arn
  depends_on          = [aws_iam_role_policy_attachment.gateway]
}

locals {
  own_account = var.access_log && var.api_gateway_account
}

resource "aws_wafv2_web_acl_association" "this" {
  count        = var.web_acl_arn == null ? 0 : 1
  resource_arn = aws_api_gateway_stage.this.arn
  web_acl_arn  = var.web_acl_arn
}

resource "aws_api_gateway_api_key" "this" {
  for_each = var.clients
  name     = "${var.name}-${each.key}"
}

resource "aws_api_gateway_usage_plan" "this" {
  name = var.name
  api_stages {
    api_id = aws_api_gateway_rest_api.this.id
    stage  = aws_api_gateway_stage.this.stage_name
  }
  throttle_settings {
    rate_limit  = var.rate_limit
    burst_limit = var.burst_limit
  }
}

resource "aws_api_gateway_usage_plan_key" "this" {
  for_each      = var.clients
  key_id        = aws_api_gateway_api_key.this[each.key].id
  key_type      = "API_KEY"
  usage_plan_id = aws_api_gateway_usage_plan.this.id
}
