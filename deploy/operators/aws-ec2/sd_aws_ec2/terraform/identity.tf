# What an instance may do: pull its image, read its model and its keys, write its logs, be reached by
# Session Manager. Written out instead of AmazonSSMManagedInstanceCore, which reads every parameter.

locals {
  image_parts      = try(regex("^(\\d{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[^/]+/([^:@]+)", var.image_uri), null)
  image_repository = local.image_parts == null ? [] : ["arn:${local.partition}:ecr:${local.image_parts[1]}:${local.image_parts[0]}:repository/${local.image_parts[2]}"]

  model_location = try(regex("^s3://([^/]+)/(.+?)/?$", var.model), null)
  parameter_arns = var.api_keys_parameter == null ? [] : ["arn:${local.partition}:ssm:${var.region}:${local.account_id}:parameter${var.api_keys_parameter}"]
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "instance" {
  # checkov:skip=CKV_AWS_356:the actions of Session Manager, the ECR token and metrics know no resources
  # checkov:skip=CKV_AWS_111:the same
  statement {
    sid       = "SessionManager"
    resources = ["*"]
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
  }

  statement {
    sid       = "RegistryToken"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"]
  }

  dynamic "statement" {
    for_each = local.image_repository

    content {
      sid       = "Image"
      resources = [statement.value]
      actions = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
      ]
    }
  }

  dynamic "statement" {
    for_each = local.model_location == null ? [] : [local.model_location]

    content {
      sid       = "ModelObjects"
      actions   = ["s3:GetObject"]
      resources = ["arn:${local.partition}:s3:::${statement.value[0]}/${statement.value[1]}/*"]
    }
  }

  dynamic "statement" {
    for_each = local.model_location == null ? [] : [local.model_location]

    content {
      sid       = "ModelList"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${local.partition}:s3:::${statement.value[0]}"]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${statement.value[1]}/*"]
      }
    }
  }

  # how much it has to do, which the group scales on
  dynamic "statement" {
    for_each = local.scales ? [1] : []

    content {
      sid       = "Load"
      actions   = ["cloudwatch:PutMetricData"]
      resources = ["*"]

      condition {
        test     = "StringEquals"
        variable = "cloudwatch:namespace"
        values   = [local.metric_namespace]
      }
    }
  }

  # a spot instance that has its notice asks its group to be replaced
  dynamic "statement" {
    for_each = var.spot ? [1] : []

    content {
      sid       = "Leave"
      actions   = ["autoscaling:SetInstanceHealth"]
      resources = ["arn:${local.partition}:autoscaling:${var.region}:${local.account_id}:autoScalingGroup:*:autoScalingGroupName/${local.name}-*"]
    }
  }

  dynamic "statement" {
    for_each = local.parameter_arns

    content {
      sid       = "ApiKeys"
      actions   = ["ssm:GetParameter"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "Decrypt"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "instance" {
  name_prefix        = "${local.name}-"
  description        = "Instances of ${local.name}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "instance" {
  name_prefix = "${local.name}-"
  role        = aws_iam_role.instance.id
  policy      = data.aws_iam_policy_document.instance.json
}

resource "aws_iam_instance_profile" "this" {
  name_prefix = "${local.name}-"
  role        = aws_iam_role.instance.name
}

# The role is there once the account has had a group. The first one cannot make it here: it waits for the
# grant, and the grant for the role.
data "aws_iam_roles" "autoscaling" {
  count       = var.kms_key_arn == null ? 0 : 1
  path_prefix = "/aws-service-role/autoscaling.amazonaws.com/"
  name_regex  = "^AWSServiceRoleForAutoScaling$"

  lifecycle {
    postcondition {
      condition     = length(self.arns) == 1
      error_message = "The grant of kms_key_arn needs Auto Scaling's role, which the account gets with its first group. Once: aws iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com"
    }
  }
}

# Auto Scaling makes the volumes: without a grant a key of the account's own keeps every instance from
# starting ("InvalidKMSKey.InvalidState").
resource "aws_kms_grant" "autoscaling" {
  count             = var.kms_key_arn == null ? 0 : 1
  name              = "${local.name}-autoscaling"
  key_id            = var.kms_key_arn
  grantee_principal = one(data.aws_iam_roles.autoscaling[0].arns)
  operations = [
    "CreateGrant",
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
  ]
}
