# A bucket for models. Terraform deletes no bucket that holds something; cleanup.sh leaves such a one as it is.
# Who reads it: identities.tf, as for every bucket that a model is in.

locals {
  models_buckets = compact([var.models_bucket])
}

resource "aws_s3_bucket" "models" {
  for_each = toset(local.models_buckets)
  bucket   = each.key
}

resource "aws_s3_bucket_public_access_block" "models" {
  for_each                = aws_s3_bucket.models
  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "models" {
  for_each = aws_s3_bucket.models
  bucket   = each.value.id
  rule {
    bucket_key_enabled = var.model_kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.model_kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.model_kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "models" {
  for_each = aws_s3_bucket.models
  bucket   = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

# An upload that was cut off can be gone on with for a week, a deleted model can be had back for a month.
resource "aws_s3_bucket_lifecycle_configuration" "models" {
  for_each   = aws_s3_bucket.models
  bucket     = each.value.id
  depends_on = [aws_s3_bucket_versioning.models]
  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }
}

resource "aws_s3_bucket_policy" "models" {
  for_each = aws_s3_bucket.models
  bucket   = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Action    = "s3:*"
      Principal = "*"
      Resource  = [each.value.arn, "${each.value.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.models]
}

output "models_bucket" {
  description = "The bucket for models that was made here: python -m models push NAME s3://BUCKET/"
  value       = var.models_bucket
  depends_on  = [aws_s3_bucket.models]
}
