# A cluster for the service, or one that was there: network.tf, encryption.tf, cluster.tf, then what runs
# in it gets its rights in identities.tf. GPU and Inferentia2 nodes are not here: Karpenter makes them, on request.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  name      = var.deployment_name
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  key_arn   = var.kms_key_arn != null ? var.kms_key_arn : one(aws_kms_key.this[*].arn)
  discovery = { "karpenter.sh/discovery" = local.name }

  new_cluster  = var.cluster == null
  cluster_name = local.new_cluster ? local.name : var.cluster # known before it is made
  cluster      = local.new_cluster ? one(aws_eks_cluster.this[*].name) : one(data.aws_eks_cluster.existing[*].name)
  cluster_arn  = local.new_cluster ? one(aws_eks_cluster.this[*].arn) : one(data.aws_eks_cluster.existing[*].arn)
  # controllers whose rights are made here
  ours = { for name in ["karpenter", "aws-load-balancer-controller"] : name => !contains(var.existing_controllers, name) }
}
