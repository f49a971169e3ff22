# What moto's server cannot do or gets wrong, and ministack now and then. Copied beside the module by tests only.

# moto takes no account of conditions: a policy that asks for TLS would deny everything
resource "aws_s3_bucket_policy" "results" {
  count = 0
}

# the provider waits for ever for it
resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  count = 0
}

# moto's X-Ray has no resource policies
resource "aws_xray_resource_policy" "sns" {
  count = 0
}

# moto's EKS has no pod identities
resource "aws_eks_pod_identity_association" "this" {
  for_each = {}
}
