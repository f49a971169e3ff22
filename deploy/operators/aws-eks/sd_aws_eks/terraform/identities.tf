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
  model_arns = var.model_bucket == null ? [] : ["arn:${local.partition}:s3:::${var.model_bucket}"]

  # service account -> what it may do: `policy`, an AWS-managed one, or `statements`
  identities = merge(
    {
      karpenter = {
        account    = "kube-system/karpenter"
        policy     = null
        statements = local.karpenter_statements
      }
      load-balancer = {
        account    = "kube-system/aws-load-balancer-controller"
        policy     = null
        statements = local.load_balancer_statements
      }
      network = {
        account    = "kube-system/aws-node"
        policy     = "AmazonEKS_CNI_Policy"
        statements = []
      }
      logs = {
        account    = "amazon-cloudwatch/cloudwatch-agent"
        policy     = "CloudWatchAgentServerPolicy"
        statements = []
      }
    },
    var.model_bucket == null ? {} : {
      models = {
        account    = "kube-system/s3-csi-driver-sa"
        policy     = null
        statements = local.model_statements
      }
    },
  )

  # The mount is read-only, and sees the model's folder only.
  model_statements = [
    {
      Sid       = "List"
      Action    = "s3:ListBucket"
      Resource  = local.model_arns
      Condition = { StringLike = { "s3:prefix" = ["${var.model_prefix}*"] } }
    },
    {
      Sid      = "Read"
      Action   = "s3:GetObject"
      Resource = [for arn in local.model_arns : "${arn}/${var.model_prefix}*"]
    },
  ]
}

resource "aws_iam_role" "pod" {
  for_each           = local.identities
  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust["pods.eks"].json
}

resource "aws_iam_role_policy" "pod" {
  for_each = { for name, identity in local.identities : name => identity if identity.policy == null }
  name     = each.key
  role     = aws_iam_role.pod[each.key].id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in each.value.statements : merge({ Effect = "Allow" }, statement)]
  })
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each   = { for name, identity in local.identities : name => identity if identity.policy != null }
  role       = aws_iam_role.pod[each.key].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value.policy}"
}

resource "aws_eks_pod_identity_association" "this" {
  for_each        = local.identities
  cluster_name    = aws_eks_cluster.this.name
  namespace       = split("/", each.value.account)[0]
  service_account = split("/", each.value.account)[1]
  role_arn        = aws_iam_role.pod[each.key].arn
  depends_on      = [aws_iam_role_policy.pod, aws_iam_role_policy_attachment.pod]
}
