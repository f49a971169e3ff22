# What Karpenter (v1.14) needs in AWS: the role of its nodes, its own rights, and a queue that tells
# it of spot interruptions two minutes ahead. Its rights follow the controller's reference policy:
# it touches only what carries this cluster's tags.

# Two roles for nodes: EKS makes the access entry of the node group's, and takes it away with the group.
resource "aws_iam_role" "node" {
  for_each           = toset(local.node_roles)
  name               = "${local.name}-${var.region}-${each.value}-node"
  assume_role_policy = data.aws_iam_policy_document.trust["ec2"].json
}

locals {
  node_roles    = concat(local.new_cluster ? ["system"] : [], local.ours["karpenter"] ? ["karpenter"] : [])
  node_policies = ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore"]
  node_grants   = { for pair in setproduct(local.node_roles, local.node_policies) : join("/", pair) => pair }
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = local.node_grants
  role       = aws_iam_role.node[each.value[0]].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value[1]}"
}

resource "aws_eks_access_entry" "node" {
  count         = local.ours["karpenter"] ? 1 : 0
  cluster_name  = local.cluster
  principal_arn = aws_iam_role.node["karpenter"].arn
  type          = "EC2_LINUX"
}

locals {
  ec2           = "arn:${local.partition}:ec2:${var.region}"
  owned         = "kubernetes.io/cluster/${local.cluster_name}"
  any_pool      = { "karpenter.sh/nodepool" = "*" }
  any_class     = { "karpenter.k8s.aws/ec2nodeclass" = "*" }
  new_kinds     = ["fleet", "instance", "volume", "network-interface", "launch-template", "spot-instances-request"]
  launched      = [for kind in local.new_kinds : "${local.ec2}:*:${kind}/*"]
  profiles      = "arn:${local.partition}:iam::${local.account}:instance-profile/*"
  asked_owned   = { "aws:RequestTag/${local.owned}" = "owned", "aws:RequestTag/eks:eks-cluster-name" = local.cluster_name }
  profile_owned = { "aws:ResourceTag/${local.owned}" = "owned", "aws:ResourceTag/topology.kubernetes.io/region" = var.region }

  karpenter_statements = [
    {
      Sid    = "LaunchFrom"
      Action = ["ec2:RunInstances", "ec2:CreateFleet"]
      Resource = concat(
        [for kind in ["image", "snapshot"] : "${local.ec2}::${kind}/*"],
        [for kind in ["security-group", "subnet", "capacity-reservation"] : "${local.ec2}:*:${kind}/*"],
      )
    },
    {
      Sid      = "LaunchFromOwnTemplates"
      Action   = ["ec2:RunInstances", "ec2:CreateFleet"]
      Resource = "${local.ec2}:*:launch-template/*"
      Condition = {
        StringEquals = { "aws:ResourceTag/${local.owned}" = "owned" }
        StringLike   = { for key, value in local.any_pool : "aws:ResourceTag/${key}" => value }
      }
    },
    {
      Sid      = "LaunchTagged"
      Action   = ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateLaunchTemplate"]
      Resource = local.launched
      Condition = {
        StringEquals = local.asked_owned
        StringLike   = { for key, value in local.any_pool : "aws:RequestTag/${key}" => value }
      }
    },
    {
      Sid      = "TagWhileLaunching"
      Action   = "ec2:CreateTags"
      Resource = local.launched
      Condition = {
        StringEquals = merge(local.asked_owned, {
          "ec2:CreateAction" = ["RunInstances", "CreateFleet", "CreateLaunchTemplate"]
        })
        StringLike = { for key, value in local.any_pool : "aws:RequestTag/${key}" => value }
      }
    },
    {
      Sid      = "TagOwnInstances"
      Action   = "ec2:CreateTags"
      Resource = "${local.ec2}:*:instance/*"
      Condition = {
        StringEquals                = { "aws:ResourceTag/${local.owned}" = "owned" }
        StringLike                  = { for key, value in local.any_pool : "aws:ResourceTag/${key}" => value }
        StringEqualsIfExists        = { "aws:RequestTag/eks:eks-cluster-name" = local.cluster_name }
        "ForAllValues:StringEquals" = { "aws:TagKeys" = ["eks:eks-cluster-name", "karpenter.sh/nodeclaim", "Name"] }
      }
    },
    {
      Sid      = "EndOwn"
      Action   = ["ec2:TerminateInstances", "ec2:DeleteLaunchTemplate"]
      Resource = [for kind in ["instance", "launch-template"] : "${local.ec2}:*:${kind}/*"]
      Condition = {
        StringEquals = { "aws:ResourceTag/${local.owned}" = "owned" }
        StringLike   = { for key, value in local.any_pool : "aws:ResourceTag/${key}" => value }
      }
    },
    {
      Sid       = "GiveNodesTheirRole"
      Action    = "iam:PassRole"
      Resource  = one([for name, role in aws_iam_role.node : role.arn if name == "karpenter"])
      Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } }
    },
    {
      Sid      = "CreateProfiles"
      Action   = "iam:CreateInstanceProfile"
      Resource = local.profiles
      Condition = {
        StringEquals = merge(local.asked_owned, { "aws:RequestTag/topology.kubernetes.io/region" = var.region })
        StringLike   = { for key, value in local.any_class : "aws:RequestTag/${key}" => value }
      }
    },
    {
      Sid      = "TagProfiles"
      Action   = "iam:TagInstanceProfile"
      Resource = local.profiles
      Condition = {
        StringEquals = merge(local.profile_owned, local.asked_owned, {
          "aws:RequestTag/topology.kubernetes.io/region" = var.region
        })
        StringLike = merge(
          { for key, value in local.any_class : "aws:ResourceTag/${key}" => value },
          { for key, value in local.any_class : "aws:RequestTag/${key}" => value },
        )
      }
    },
    {
      Sid      = "UseOwnProfiles"
      Action   = ["iam:AddRoleToInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile"]
      Resource = local.profiles
      Condition = {
        StringEquals = local.profile_owned
        StringLike   = { for key, value in local.any_class : "aws:ResourceTag/${key}" => value }
      }
    },
    {
      Sid      = "ReadProfiles"
      Action   = "iam:GetInstanceProfile"
      Resource = local.profiles
    },
    {
      Sid      = "Look"
      Action   = ["iam:ListInstanceProfiles", "pricing:GetProducts"]
      Resource = "*"
    },
    {
      Sid = "LookInRegion"
      Action = [
        "ec2:DescribeCapacityReservations", "ec2:DescribeImages", "ec2:DescribeInstances",
        "ec2:DescribeInstanceStatus", "ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplates", "ec2:DescribePlacementGroups", "ec2:DescribeSecurityGroups",
        "ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets",
      ]
      Resource  = "*"
      Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
    },
    {
      Sid      = "FindImages"
      Action   = "ssm:GetParameter"
      Resource = "arn:${local.partition}:ssm:${var.region}::parameter/aws/service/*"
    },
    {
      Sid      = "FindTheCluster"
      Action   = "eks:DescribeCluster"
      Resource = local.cluster_arn
    },
    {
      Sid      = "HearOfInterruptions"
      Action   = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"]
      Resource = one(aws_sqs_queue.interruptions[*].arn)
    },
  ]
}

resource "aws_sqs_queue" "interruptions" {
  count                     = local.ours["karpenter"] ? 1 : 0
  name                      = "${local.name}-interruptions"
  message_retention_seconds = 300
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_policy" "interruptions" {
  count     = local.ours["karpenter"] ? 1 : 0
  queue_url = aws_sqs_queue.interruptions[0].id
  policy    = data.aws_iam_policy_document.interruptions[0].json
}

data "aws_iam_policy_document" "interruptions" {
  count = local.ours["karpenter"] ? 1 : 0

  statement {
    sid       = "Events"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.interruptions[0].arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
  }

  statement {
    sid       = "EncryptedTransport"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.interruptions[0].arn]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

locals {
  events = local.ours["karpenter"] ? {
    health    = { source = "aws.health", type = "AWS Health Event" }
    spot      = { source = "aws.ec2", type = "EC2 Spot Instance Interruption Warning" }
    rebalance = { source = "aws.ec2", type = "EC2 Instance Rebalance Recommendation" }
    state     = { source = "aws.ec2", type = "EC2 Instance State-change Notification" }
  } : {}
}

resource "aws_cloudwatch_event_rule" "interruptions" {
  for_each      = local.events
  name          = "${local.name}-${each.key}"
  description   = each.value.type
  event_pattern = jsonencode({ source = [each.value.source], "detail-type" = [each.value.type] })
}

resource "aws_cloudwatch_event_target" "interruptions" {
  for_each = local.events
  rule     = aws_cloudwatch_event_rule.interruptions[each.key].name
  arn      = aws_sqs_queue.interruptions[0].arn
}
