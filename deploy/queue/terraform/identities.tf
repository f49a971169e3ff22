# Who may do what, and no more: the front door, the workers, KEDA.
# ListBucket is for telling "not there yet" (404) from "forbidden" (403).

locals {
  role_prefix = "${var.name}-${var.region}" # an account's roles are one set for all regions

  objects = "${aws_s3_bucket.results.arn}/*"
  roles = {
    front  = "lambda.amazonaws.com"
    worker = "pods.eks.amazonaws.com"
    keda   = "pods.eks.amazonaws.com"
  }
  input_arns = [for bucket in var.input_buckets : "arn:${data.aws_partition.this.partition}:s3:::${bucket}/*"]
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles
  statement {
    actions = each.key == "front" ? ["sts:AssumeRole"] : ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
    dynamic "condition" {
      for_each = each.key == "front" ? [] : [data.aws_caller_identity.this.account_id]
      content {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "front" {
  name               = "${local.role_prefix}-front"
  assume_role_policy = data.aws_iam_policy_document.trust["front"].json
}

resource "aws_iam_role" "pod" {
  for_each           = toset(["worker", "keda"])
  name               = "${local.role_prefix}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

data "aws_iam_policy_document" "front" {
  statement {
    sid       = "Publish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.tasks.arn]
  }
  statement {
    sid       = "Write"
    actions   = ["s3:PutObject"]
    resources = ["${local.objects}.task", "${local.objects}.cancel"]
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${local.objects}.task", "${local.objects}.out", "${local.objects}.png"]
  }
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.results.arn]
  }
  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.front.arn}:*"]
  }
  statement {
    sid       = "Trace" # X-Ray knows no resources
    actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "worker" {
  statement {
    sid = "Take"
    actions = [
      "sqs:ReceiveMessage",
      "sqs:DeleteMessage",
      "sqs:ChangeMessageVisibility",
    ]
    resources = [for queue in aws_sqs_queue.this : queue.arn]
  }
  statement {
    sid       = "Bury"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
  statement {
    sid       = "Announce"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.results.arn]
  }
  statement {
    sid       = "Store"
    actions   = ["s3:PutObject"]
    resources = ["${local.objects}.png", "${local.objects}.out"]
  }
  statement {
    sid       = "HandBack" # a delivery that is handed back is none of the task's attempts
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.results.arn}/.handed-back/*"]
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = concat([local.objects], local.input_arns)
  }
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = concat([aws_s3_bucket.results.arn], [for arn in local.input_arns : trimsuffix(arn, "/*")])
  }
  statement {
    sid       = "Figures" # CloudWatch knows no resources
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["StableDiffusion"]
    }
  }
}

data "aws_iam_policy_document" "keda" {
  statement {
    sid       = "Count"
    actions   = ["sqs:GetQueueAttributes"]
    resources = [for queue in aws_sqs_queue.this : queue.arn]
  }
}

resource "aws_iam_role_policy" "front" {
  name   = "front"
  role   = aws_iam_role.front.id
  policy = data.aws_iam_policy_document.front.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.pod["worker"].id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_iam_role_policy" "keda" {
  name   = "keda"
  role   = aws_iam_role.pod["keda"].id
  policy = data.aws_iam_policy_document.keda.json
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = var.cluster_name == null ? {} : merge(
    { for account in var.worker_accounts : account => "worker" }, { "keda/keda-operator" = "keda" }
  )
  cluster_name    = var.cluster_name
  namespace       = split("/", each.key)[0]
  service_account = split("/", each.key)[1]
  role_arn        = aws_iam_role.pod[each.value].arn
}
