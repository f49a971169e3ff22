# What moto's server cannot do or gets wrong, and ministack now and then. Copied beside the module by tests only.

provider "aws" {
  s3_use_path_style           = true
  skip_requesting_account_id  = false
  skip_metadata_api_check     = true
  skip_credentials_validation = true
  max_retries                 = 5 # ministack's server may close a connection under an answer
}

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
