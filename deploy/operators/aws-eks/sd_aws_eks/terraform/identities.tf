# Who may do what: one role a service account, by EKS Pod Identity. No pod gets its node's rights.

data "aws_iam_policy_document" "trust" {
  for_each = toset(["eks", "ec2", "vpc-flow-logs", "pods.eks"])
  statement {
    actions = each.value == "pods.eks" ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["${each.value}.amazonaws.com"]
    }
  }
}

locals {
  model_arns = [for model in var.models : "arn:${local.partition}:s3:::${model.bucket}"]

  # service account -> what it may do: `policy`, an AWS-managed one, or `statements`
  identities = merge(
    local.ours["karpenter"] ? {
      karpenter = {
        account    = "kube-system/karpenter"
        policy     = null
        statements = local.karpenter_statements
      }
    } : {},
    local.ours["aws-load-balancer-controller"] ? {
      load-balancer = {
        account    = "kube-system/aws-load-balancer-controller"
        policy     = null
        statements = local.load_balancer_statements
      }
    } : {},
    local.new_cluster ? {
      network = {
        account    = "kube-system/aws-node"
        policy     = "AmazonEKS_CNI_Policy"
        statements = []
      }
    } : {},
    var.container_insights ? {
      logs = {
        account    = "amazon-cloudwatch/cloudwatch-agent"
        policy     = "CloudWatchAgentServerPolicy"
        statements = []
      }
    } : {},
    length(var.models) == 0 ? {} : {
      models = {
        account    = "kube-system/s3-csi-driver-sa"
        policy     = null
        statements = local.model_statements
      }
    },
  )

  # The mounts are read-only, and each sees its model's folder only.
  model_statements = concat(
    [
      for index, model in var.models : {
        Sid       = "List${index}"
        Action    = "s3:ListBucket"
        Resource  = local.model_arns[index]
        Condition = { StringLike = { "s3:prefix" = ["${model.prefix}*"] } }
      }
    ],
    [
      for index, model in var.models : {
        Sid       = "Read${index}"
        Action    = "s3:GetObject"
        Resource  = "${local.model_arns[index]}/${model.prefix}*"
        Condition = null
      }
    ],
    [
      for key in compact([var.model_kms_key_arn]) : {
        Sid       = "Decrypt"
        Action    = "kms:Decrypt"
        Resource  = key
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
      }
    ],
  )
}

resource "aws_iam_role" "pod" {
  for_each           = local.identities
  name               = "${local.name}-${var.region}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust["pods.eks"].json
}

resource "aws_iam_role_policy" "pod" {
  for_each = { for name, identity in local.identities : name => identity if identity.policy == null }
  name     = each.key
  role     = aws_iam_role.pod[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      for statement in each.value.statements :
      { for key, value in merge({ Effect = "Allow" }, statement) : key => value if value != null }
    ]
  })
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each   = { for name, identity in local.identities : name => identity if identity.policy != null }
  role       = aws_iam_role.pod[each.key].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value.policy}"
}

resource "aws_eks_pod_identity_association" "this" {
  for_each        = local.identities
  cluster_name    = local.cluster
  namespace       = split("/", each.value.account)[0]
  service_account = split("/", each.value.account)[1]
  role_arn        = aws_iam_role.pod[each.key].arn
  depends_on      = [aws_iam_role_policy.pod, aws_iam_role_policy_attachment.pod]
}

# The agent that the observability add-on runs takes traces, and hands them to X-Ray.
resource "aws_iam_role_policy_attachment" "traces" {
  count      = var.tracing ? 1 : 0
  role       = aws_iam_role.pod["logs"].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AWSXrayWriteOnlyAccess"
}
