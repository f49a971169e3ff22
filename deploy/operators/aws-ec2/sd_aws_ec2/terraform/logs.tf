resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158:encrypted by CloudWatch's own key, or by kms_key_arn where one is given
  # checkov:skip=CKV_AWS_338:log_retention_days goes up to a year; prompts are personal, so shorter is the default
  name              = "/stable-diffusion/${local.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}
