variable "name" {
  description = "Begins the name of everything; also of the bucket, with the account's number and the region after it."
  type        = string
  default     = "stable-diffusion"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,29}$", var.name))
    error_message = "name is 2 to 30 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-1"
}

variable "runtimes" {
  description = "Runtime -> the model file its workers serve. A queue for each, and one for paying users."
  type        = map(string)
  validation {
    condition     = (length(var.runtimes) > 0 || var.dynamic) && alltrue([for name in keys(var.runtimes) : can(regex("^[a-z0-9][a-z0-9-]{0,29}$", name))])
    error_message = "runtimes needs at least one; names are lower-case letters, digits and hyphens."
  }
  validation {
    condition     = length(var.runtimes) < 100
    error_message = "At most 99 runtimes and the dynamic one: SNS takes 200 filter policies a topic, and each runtime has two."
  }
  validation {
    condition     = length(jsonencode(var.runtimes)) + 11 * length([for tier in values(var.clients) : tier if tier == "priority"]) <= 3500
    error_message = "Names of runtimes and their model files, as JSON, and 11 for each client of the tier priority are 3500 characters at most: Lambda takes 4 KB of environment."
  }
  validation {
    condition     = !contains(keys(var.runtimes), "legacy") && !contains(keys(var.runtimes), "dynamic")
    error_message = "The runtimes legacy and dynamic have a meaning of their own."
  }
}

variable "dynamic" {
  description = "Also a runtime 'dynamic' for every model that no other runtime serves."
  type        = bool
  default     = false
}

variable "clients" {
  description = "API keys: client -> tier. Values of the keys are the sensitive output api_keys."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for tier in values(var.clients) : contains(["standard", "priority"], tier)])
    error_message = "A client's tier is standard or priority."
  }
}

variable "rate_limit" {
  description = "Requests a second of one API key."
  type        = number
  default     = 30
}

variable "burst_limit" {
  description = "Requests at once of one API key."
  type        = number
  default     = 50
}

variable "access_log" {
  description = "A line in CloudWatch for each request to the API, with the id of its key."
  type        = bool
  default     = false
}

variable "tracing" {
  description = "The front door sends its spans to X-Ray, and SNS its part, by one of the five resource policies that an account's region may have."
  type        = bool
  default     = false
}

variable "api_gateway_account" {
  description = "With access_log: also make the role for logs that API Gateway has once for an account's region, in the place of what is there."
  type        = bool
  default     = false
}

variable "web_acl_arn" {
  description = "An AWS WAF web ACL (REGIONAL) before the API; null: none."
  type        = string
  default     = null
}

variable "cloudfront" {
  description = "CloudFront before the API: the name that it answers to, and that name's ACM certificate in us-east-1; null: none."
  type        = object({ hostname = string, certificate_arn = string })
  default     = null
}

variable "front_package" {
  description = "The front door's zip, made by `python -m hosts.queue.front.package`."
  type        = string
  default     = "../../../build/front.zip"
}

variable "visibility_s" {
  description = "A task of a dead worker comes back after so long. Workers extend it (WORKER_VISIBILITY_S)."
  type        = number
  default     = 60
}

variable "max_receives" {
  description = "Deliveries before SQS itself gives a task up: some more than WORKER_DELIVERIES, in which a worker announces it as failed."
  type        = number
  default     = 60
}

variable "results_days" {
  description = "Results are deleted after so many days."
  type        = number
  default     = 30
}

variable "input_buckets" {
  description = "Further buckets that workers may read input images from."
  type        = list(string)
  default     = []
}

variable "log_days" {
  description = "The front door's logs are kept for so many days."
  type        = number
  default     = 30
}

variable "cluster_name" {
  description = "EKS cluster whose service accounts get the roles of worker and KEDA (EKS Pod Identity); null: none."
  type        = string
  default     = null
}

variable "worker_accounts" {
  description = "namespace/name of the workers' service accounts, one for each namespace with workers."
  type        = list(string)
  default     = ["stable-diffusion/stable-diffusion"]
}

variable "alarm_topic" {
  description = "ARN of an SNS topic told of dead letters and of tasks that wait too long; null: alarms without action."
  type        = string
  default     = null
}

variable "max_wait_s" {
  description = "Alarm when the oldest task has waited longer."
  type        = number
  default     = 900
}
