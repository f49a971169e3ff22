# `async: true`: tasks come through API Gateway and a queue, and the pods are workers of it.

variable "runtimes" {
  description = "What tasks call the workers of a model -> the model file that tasks of the older form name."
  type        = map(string)
  default     = { sd = "sd" }
}

variable "dynamic" {
  description = "Also a runtime whose workers load the model that a task names."
  type        = bool
  default     = false
}

variable "worker_namespaces" {
  description = "Namespaces of the runtimes' workers; their service account is stable-diffusion in each."
  type        = list(string)
  default     = ["stable-diffusion"]
}

variable "input_buckets" {
  description = "Further buckets that tasks may name input images of."
  type        = list(string)
  default     = []
}

variable "results_days" {
  description = "Days that results are kept."
  type        = number
  default     = 30
}

variable "rate_limit" {
  description = "Requests per second of one API key."
  type        = number
  default     = 30
}

variable "burst_limit" {
  description = "Requests at once of one API key."
  type        = number
  default     = 50
}

variable "max_wait_s" {
  description = "An alarm when the oldest task has waited longer."
  type        = number
  default     = 900
}

variable "access_log" {
  description = "A line in CloudWatch for each request to the API."
  type        = bool
  default     = false
}

variable "api_gateway_account" {
  description = "Also the role for it, which API Gateway has once for an account's region."
  type        = bool
  default     = false
}

variable "queue_tracing" {
  description = "The front door and SNS send their parts of traces to X-Ray."
  type        = bool
  default     = false
}

variable "web_acl_arn" {
  description = "An AWS WAF web ACL before the API."
  type        = string
  default     = null
}

variable "cloudfront" {
  description = "CloudFront before the API: a name, and its certificate in us-east-1."
  type        = object({ hostname = string, certificate_arn = string })
  default     = null
}

variable "clients" {
  description = "API keys: client -> tier, standard or priority."
  type        = map(string)
  default     = {}
}

variable "front_package" {
  description = "The front door's zip, which install.sh makes."
  type        = string
  default     = "front.zip"
}

module "queue" {
  source          = "./queue"
  name            = var.deployment_name
  region          = var.region
  runtimes        = var.runtimes
  dynamic         = var.dynamic
  clients         = var.clients
  cluster_name    = local.cluster
  worker_accounts = [for namespace in var.worker_namespaces : "${namespace}/stable-diffusion"]
  input_buckets   = var.input_buckets
  results_days    = var.results_days
  rate_limit      = var.rate_limit
  burst_limit     = var.burst_limit
  max_wait_s      = var.max_wait_s
  access_log      = var.access_log
  web_acl_arn     = var.web_acl_arn
  alarm_topic     = one(aws_sns_topic.alarms[*].arn)
  log_days        = var.log_retention_days
  front_package   = var.front_package

  api_gateway_account = var.api_gateway_account
  tracing             = var.queue_tracing
  cloudfront          = var.cloudfront
}

output "tasks_url" {
  description = "Where tasks are posted, with the header x-api-key: POST .../v1alpha2"
  value       = module.queue.url
}

output "cloudfront_domain" {
  description = "What cloudfront_hostname has to be an alias of, in DNS."
  value       = module.queue.cloudfront_domain
}

output "api_keys" {
  description = "client -> API key"
  value       = module.queue.api_keys
  sensitive   = true
}

output "results_topic" {
  description = "Subscribe to it for completion messages."
  value       = module.queue.results_topic
}

output "results_bucket" {
  description = "Where pictures and manifests are stored."
  value       = module.queue.bucket
}

output "workers" {
  description = "runtime -> its workers' environment, one variable per line, which install.sh hands to the manifests."
  value = {
    for runtime, settings in module.queue.workers : runtime => join("\n", [
      for name, value in merge(settings, {
        QUEUE_URL          = module.queue.queues[runtime]
        QUEUE_URL_PRIORITY = module.queue.queues["${runtime}-priority"]
      }) : "${name}=${value}"
    ])
  }
}
