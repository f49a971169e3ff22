# Values come from bentoctl.tfvars, which `bentoctl generate` has checked; these checks are for
# whoever runs Terraform without it.

variable "deployment_name" {
  description = "Name that every resource's name begins with."
  type        = string

  validation {
    condition     = length(var.deployment_name) <= 22 && can(regex("^[a-z](-?[a-z0-9])+$", var.deployment_name))
    error_message = "deployment_name must be 2 to 22 of a-z, 0-9 and single -, beginning with a letter."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "image_uri" {
  description = "Image of the Bento, with its tag or digest."
  type        = string
  default     = null

  validation {
    condition     = var.image_uri != null
    error_message = "There is no image yet: run bentoctl build, or set spec.image_uri and generate again."
  }
}

variable "instance_type" {
  description = "EC2 instance type."
  type        = string
}

variable "accelerator" {
  description = "What computes: nvidia or neuron."
  type        = string

  validation {
    condition     = contains(["nvidia", "neuron"], var.accelerator)
    error_message = "accelerator must be nvidia or neuron."
  }
}

variable "accelerator_devices" {
  description = "GPUs, or /dev/neuron* devices, of an instance."
  type        = number
}

variable "ami_ssm_parameter" {
  description = "SSM parameter that names the AMI where ami_id is null."
  type        = string
}

variable "ami_id" {
  description = "Fixed AMI; null follows ami_ssm_parameter at every apply."
  type        = string
  default     = null
}

variable "environment" {
  description = "Environment variables of the container. No secrets: they are stored in clear text."
  type        = map(string)
  default     = {}
}

variable "api_keys_parameter" {
  description = "SSM SecureString whose value becomes SD_API_KEYS; null leaves the service open."
  type        = string
  default     = null
}

variable "model" {
  description = "s3://bucket/folder to copy and mount at boot; other values are the service's matter."
  type        = string
  default     = null
}

variable "model_gib" {
  description = "Size of the model on disk, GiB."
  type        = number
  default     = 1
}

variable "volume_gib" {
  description = "Root volume, GiB; null: the AMI's own size, 30 for the image, twice model_gib."
  type        = number
  default     = null
}

variable "min_instances" {
  description = "Instances at least."
  type        = number
  default     = 1
}

variable "max_instances" {
  description = "Instances at most."
  type        = number
  default     = 1
}

variable "requests_per_replica" {
  description = "Requests of one accelerator, waiting or being generated, that scaling aims at."
  type        = number
  default     = 4
}

variable "serve_config" {
  description = "Ray Serve's config file, where several accelerators run a replica each; else null."
  type        = string
  default     = null
}

variable "spot" {
  description = "Spot instances instead of on-demand ones."
  type        = bool
  default     = false
}

variable "on_demand_base" {
  description = "With spot: so many instances are on demand all the same."
  type        = number
  default     = 0
}

variable "other_instance_types" {
  description = "With spot: further instance types, with accelerators of the same kind and number."
  type        = list(string)
  default     = []
}

variable "boot_grace_s" {
  description = "Seconds until health checks count: boot, image pull, model loading."
  type        = number
  default     = 900
}

variable "drain_s" {
  description = "Seconds that requests in flight get when an instance stops."
  type        = number
  default     = 75
}

variable "vpc_id" {
  description = "Existing VPC; null makes one."
  type        = string
  default     = null
}

variable "balancer_subnet_ids" {
  description = "Subnets of vpc_id for the load balancer, two zones or more."
  type        = list(string)
  default     = []
}

variable "instance_subnet_ids" {
  description = "Private subnets of vpc_id, with a way out, for the instances."
  type        = list(string)
  default     = []
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that is made."
  type        = string
  default     = "10.42.0.0/16"
}

variable "internal" {
  description = "Load balancer with private addresses only."
  type        = bool
  default     = false
}

variable "allowed_cidrs" {
  description = "Networks that may reach the load balancer; none: nobody from outside."
  type        = list(string)
  default     = []
}

variable "certificate_arn" {
  description = "ACM certificate for https; null serves plain http."
  type        = string
  default     = null
}

variable "allow_plain_http" {
  description = "Plain http although the whole world may reach it."
  type        = bool
  default     = false

  validation {
    condition = (
      var.allow_plain_http || var.certificate_arn != null || !contains(var.allowed_cidrs, "0.0.0.0/0")
    )
    error_message = "Plain http for the whole world: give certificate_arn, or set allow_plain_http."
  }
}

variable "kms_key_arn" {
  description = "Key for volumes and logs; null uses AWS's own."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}

variable "idle_timeout_s" {
  description = "Seconds the load balancer waits for an answer: longer than the service's own limit."
  type        = number
  default     = 310
}

variable "deletion_protection" {
  description = "The load balancer refuses deletion."
  type        = bool
  default     = false
}
