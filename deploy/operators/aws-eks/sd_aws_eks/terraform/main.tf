# A cluster for the service: network.tf, encryption.tf, cluster.tf, then what runs in it gets its
# rights in identities.tf. GPU and Inferentia2 nodes are not here: Karpenter makes them, on request.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  name      = var.deployment_name
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  key_arn   = var.kms_key_arn != null ? var.kms_key_arn : one(aws_kms_key.this[*].arn)
  discovery = { "karpenter.sh/discovery" = local.name }
}
