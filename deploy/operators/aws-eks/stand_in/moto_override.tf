# moto has no EKS add-ons, pod identities or access entries, and its clusters lack what a second
# reading of them needs. What is left out here is covered by `terraform test`.

provider "aws" {
  s3_use_path_style = true
}

resource "aws_eks_addon" "node" {
  for_each = toset([])
}

resource "aws_eks_addon" "workload" {
  for_each = toset([])
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = {}
}

resource "aws_eks_access_entry" "node" {
  count = 0
}

resource "aws_eks_cluster" "this" {
  lifecycle {
    ignore_changes = [access_config, bootstrap_self_managed_addons, upgrade_policy, vpc_config]
  }
}

# moto's clusters have no security group.
resource "aws_ec2_tag" "discovery" {
  resource_id = local.vpc_id
}

# moto takes no account of conditions: a policy that asks for TLS would deny everything
resource "aws_s3_bucket_policy" "models" {
  for_each = {}
}
