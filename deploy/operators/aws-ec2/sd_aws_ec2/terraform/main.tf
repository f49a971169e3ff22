# Stable Diffusion on EC2: an autoscaling group behind a load balancer.
#
#   network.tf    a VPC (or the one given) and who may talk to whom
#   balancer.tf   load balancer, TLS, health check
#   fleet.tf      AMI, launch template, autoscaling group
#   identity.tf   what an instance may do
#   logs.tf       where its output goes

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name       = var.deployment_name
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  port       = 3000

  tags = {
    Deployment = var.deployment_name
    ManagedBy  = "terraform"
  }
}
