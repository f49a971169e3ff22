# The rights of the AWS load balancer controller (v3.5): it reads everything of its kind, and changes
# only what carries its tag with this cluster's name, and security groups of this VPC.

locals {
  elb          = "arn:${local.partition}:elasticloadbalancing:${var.region}:${local.account}"
  its_tag      = "elbv2.k8s.aws/cluster"
  asked_its    = { StringEquals = { "aws:RequestTag/${local.its_tag}" = local.cluster_name } }
  has_its      = { StringEquals = { "aws:ResourceTag/${local.its_tag}" = local.cluster_name } }
  groups       = "${local.ec2}:${local.account}:security-group/*"
  in_this_vpc  = { ArnEquals = { "ec2:Vpc" = local.vpc_arn } }
  balancers    = ["${local.elb}:loadbalancer/app/*/*", "${local.elb}:targetgroup/*/*"]
  listeners    = ["${local.elb}:listener/app/*", "${local.elb}:listener-rule/app/*"]
  certificates = "arn:${local.partition}:acm:${var.region}:${local.account}:certificate/*"

  load_balancer_statements = [
    {
      Sid = "Look"
      Action = [
        "ec2:DescribeAccountAttributes", "ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones",
        "ec2:DescribeInternetGateways", "ec2:DescribeVpcs", "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeTags", "ec2:DescribeRouteTables", "ec2:DescribeVpcPeeringConnections",
        "ec2:GetSecurityGroupsForVpc", "elasticloadbalancing:Describe*", "acm:ListCertificates",
        # asked about on every reconciliation, also where none is used
        "cognito-idp:DescribeUserPoolClient", "wafv2:GetWebACL", "wafv2:GetWebACLForResource", "waf-regional:GetWebACLForResource",
        "shield:GetSubscriptionState",
      ]
      Resource = "*"
    },
    {
      Sid      = "ReadCertificates"
      Action   = "acm:DescribeCertificate"
      Resource = local.certificates
    },
    {
      Sid    = "Firewall"
      Action = ["wafv2:AssociateWebACL", "wafv2:DisassociateWebACL", "elasticloadbalancing:SetWebACL"]
      Resource = [
        "arn:${local.partition}:wafv2:${var.region}:${local.account}:regional/webacl/*/*",
        "${local.elb}:loadbalancer/app/*/*",
      ]
    },
    {
      Sid       = "ServiceLinkedRole"
      Action    = "iam:CreateServiceLinkedRole"
      Resource  = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"
      Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
    },
    {
      Sid      = "CreateGroupsHere"
      Action   = "ec2:CreateSecurityGroup"
      Resource = local.vpc_arn
    },
    {
      Sid       = "CreateOwnGroups"
      Action    = "ec2:CreateSecurityGroup"
      Resource  = local.groups
      Condition = local.asked_its
    },
    {
      Sid      = "TagNewGroups"
      Action   = "ec2:CreateTags"
      Resource = local.groups
      Condition = {
        StringEquals = merge(local.asked_its.StringEquals, { "ec2:CreateAction" = "CreateSecurityGroup" })
      }
    },
    {
      Sid       = "ChangeOwnGroups"
      Action    = ["ec2:CreateTags", "ec2:DeleteTags", "ec2:DeleteSecurityGroup"]
      Resource  = local.groups
      Condition = local.has_its
    },
    {
      # the nodes' group must let the balancer in, and does not carry the tag
      Sid       = "LetTheBalancerIn"
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
      Resource  = local.groups
      Condition = local.in_this_vpc
    },
    {
      Sid       = "CreateBalancers"
      Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
      Resource  = local.balancers
      Condition = local.asked_its
    },
    {
      Sid      = "TagNewBalancers"
      Action   = "elasticloadbalancing:AddTags"
      Resource = local.balancers
      Condition = {
        StringEquals = merge(local.asked_its.StringEquals, {
          "elasticloadbalancing:CreateAction" = ["CreateTargetGroup", "CreateLoadBalancer"]
        })
      }
    },
    {
      Sid = "ChangeOwnBalancers"
      Action = [
        "elasticloadbalancing:AddTags", "elasticloadbalancing:RemoveTags",
        "elasticloadbalancing:ModifyLoadBalancerAttributes", "elasticloadbalancing:SetIpAddressType",
        "elasticloadbalancing:SetSecurityGroups", "elasticloadbalancing:SetSubnets",
        "elasticloadbalancing:DeleteLoadBalancer", "elasticloadbalancing:ModifyTargetGroup",
        "elasticloadbalancing:ModifyTargetGroupAttributes", "elasticloadbalancing:DeleteTargetGroup",
        "elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:CreateListener",
      ]
      Resource  = local.balancers
      Condition = local.has_its
    },
    {
      Sid = "ChangeOwnListeners"
      Action = [
        "elasticloadbalancing:AddTags", "elasticloadbalancing:RemoveTags",
        "elasticloadbalancing:CreateRule", "elasticloadbalancing:DeleteRule",
        "elasticloadbalancing:ModifyRule", "elasticloadbalancing:SetRulePriorities",
        "elasticloadbalancing:DeleteListener", "elasticloadbalancing:ModifyListener",
        "elasticloadbalancing:ModifyListenerAttributes",
        "elasticloadbalancing:AddListenerCertificates", "elasticloadbalancing:RemoveListenerCertificates",
      ]
      # tagged in the call that creates them, before they carry a tag
      Resource = local.listeners
    },
  ]
}
