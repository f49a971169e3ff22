# `async: true`: tasks come through API Gateway and a queue, and the pods are workers of it.

variable "runtime" {
  description = "What tasks call this deployment's workers."
  type        = string
  default     = "sd"
}

variable "checkpoint" {
  description = "The model file that tasks of the older form name."
  type        = string
  default     = "sd"
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
  source        = "./queue"
  name          = var.deployment_name
  region        = var.region
  runtimes      = { (var.runtime) = var.checkpoint }
  clients       = var.clients
  cluster_name  = aws_eks_cluster.this.name
  log_days      = var.log_retention_days
  front_package = var.front_package
}

output "tasks_url" {
  description = "Where tasks are posted, with the header x-api-key: POST .../v1alpha2"
  value       = module.queue.url
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
  description = "The workers' environment, one variable a line, which install.sh hands to the manifests."
  value = join("\n", [
    for name, value in merge(module.queue.workers[var.runtime], {
      QUEUE_URL          = module.queue.queues[var.runtime]
      QUEUE_URL_PRIORITY = module.queue.queues["${var.runtime}-priority"]
    }) : "${name}=${value}"
  ])
}
