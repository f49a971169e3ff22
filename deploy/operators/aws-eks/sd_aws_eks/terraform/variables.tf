# The operator validates every value before Terraform sees it; the rules repeated here are those
# whose breach would open something to the world.

variable "deployment_name" {
  description = "The cluster's name, and the beginning of every resource's name."
  type        = string
}

variable "region" {
  description = "The AWS region."
  type        = string
}

variable "kubernetes_version" {
  description = "The cluster's Kubernetes version, like 1.35."
  type        = string
}

variable "vpc_cidr" {
  description = "The VPC's addresses; /16 to /20, as every pod has one."
  type        = string
}

variable "nat_per_zone" {
  description = "A NAT gateway in every zone, so that losing one zone leaves the others connected."
  type        = bool
}

variable "api_allowed_cidrs" {
  description = "Networks that may reach the Kubernetes API; none: its endpoint is private."
  type        = list(string)

  validation {
    condition     = !anytrue([for c in var.api_allowed_cidrs : endswith(c, "/0")])
    error_message = "The Kubernetes API is not opened to the whole world; name your networks."
  }
}

variable "admin_role_arns" {
  description = "IAM roles that administer the cluster, beside the one that creates it."
  type        = list(string)
}

variable "system_instance_type" {
  description = "The instance type of the nodes that hold controllers."
  type        = string
}

variable "kms_key_arn" {
  description = "A key for Kubernetes secrets and logs; null: one is made."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
}

variable "model_bucket" {
  description = "The bucket the model is mounted from; null: the model is in the image, or a Hub id."
  type        = string
  default     = null
}

variable "model_prefix" {
  description = "The model's folder in the bucket, with a slash at its end."
  type        = string
  default     = ""
}

variable "api_keys_parameter" {
  description = "An SSM SecureString whose value becomes the API keys; null: open. install.sh reads it."
  type        = string
  default     = null
}

variable "image_uri" {
  description = "The service's image, which the Kubernetes manifests name; null: not built yet."
  type        = string
  default     = null
}
