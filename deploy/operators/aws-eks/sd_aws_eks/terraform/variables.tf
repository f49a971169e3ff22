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

variable "model_kms_key_arn" {
  description = "The key that models in S3 are encrypted with; null: one of S3's own."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
}

variable "models" {
  description = "Buckets and folders that models are mounted from; a folder ends in a slash."
  type        = list(object({ bucket = string, prefix = string }))
  default     = []
}

variable "models_bucket" {
  description = "A bucket to make for models; null: none."
  type        = string
  default     = null
}

variable "instance_types" {
  description = "Every instance type that Karpenter may start, of which the zones follow."
  type        = list(string)
}

variable "cluster" {
  description = "Existing EKS cluster in vpc_id; null makes one."
  type        = string
  default     = null
}

variable "existing_controllers" {
  description = "Controllers that the existing cluster has already: karpenter, aws-load-balancer-controller."
  type        = list(string)
  default     = []
}

variable "vpc_id" {
  description = "An existing VPC, whose addresses vpc_cidr names; null: a new one."
  type        = string
  default     = null
}

variable "private_subnet_ids" {
  description = "With vpc_id: the subnets of nodes and pods."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags for everything, beside our own."
  type        = map(string)
  default     = {}
}

variable "container_insights" {
  description = "Whether CloudWatch's agents run on every node."
  type        = bool
  default     = true
}

variable "tracing" {
  description = "Whether the CloudWatch agent may hand traces to X-Ray."
  type        = bool
  default     = false
}

variable "alarm_email" {
  description = "Who hears of alarms; null: nobody."
  type        = string
  default     = null
}

variable "monthly_budget_usd" {
  description = "With alarm_email: the month's bill of which 80% is told; null: no budget."
  type        = number
  default     = null
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
