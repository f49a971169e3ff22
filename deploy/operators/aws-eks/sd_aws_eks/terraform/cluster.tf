# The cluster, its add-ons, and the few small nodes that hold controllers.

# One that was there: its nodes, add-ons and administrators are its owner's.
data "aws_eks_cluster" "existing" {
  count = local.new_cluster ? 0 : 1
  name  = var.cluster

  lifecycle {
    postcondition {
      condition     = coalesce(self.vpc_config[0].vpc_id, var.vpc_id) == var.vpc_id
      error_message = "Cluster ${self.name} is in ${self.vpc_config[0].vpc_id}, and vpc_id names ${coalesce(var.vpc_id, "none")}."
    }
    postcondition {
      condition     = one(self.access_config[*].authentication_mode) != "CONFIG_MAP"
      error_message = "Cluster ${self.name} knows no access entries, by which Karpenter's nodes join: set its authentication mode to API_AND_CONFIG_MAP."
    }
  }
}

resource "aws_cloudwatch_log_group" "cluster" {
  count             = local.new_cluster ? 1 : 0
  name              = "/aws/eks/${local.name}/cluster"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
}

resource "aws_iam_role" "cluster" {
  count              = local.new_cluster ? 1 : 0
  name               = "${local.name}-${var.region}-cluster"
  assume_role_policy = data.aws_iam_policy_document.trust["eks"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  count      = local.new_cluster ? 1 : 0
  role       = aws_iam_role.cluster[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_eks_cluster" "this" {
  # checkov:skip=CKV_AWS_39:the public endpoint exists only for the networks in api_allowed_cidrs
  count    = local.new_cluster ? 1 : 0
  name     = local.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster[0].arn

  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  bootstrap_self_managed_addons = false

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = local.key_arn
    }
  }

  vpc_config {
    subnet_ids              = local.private_subnets
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_allowed_cidrs) > 0
    public_access_cidrs     = length(var.api_allowed_cidrs) > 0 ? var.api_allowed_cidrs : null
  }

  upgrade_policy {
    support_type = "STANDARD"
  }

  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

# Karpenter finds the security group of its nodes by this tag.
resource "aws_ec2_tag" "discovery" {
  count       = local.new_cluster ? 1 : 0
  resource_id = aws_eks_cluster.this[0].vpc_config[0].cluster_security_group_id
  key         = "karpenter.sh/discovery"
  value       = local.name
}

resource "aws_eks_access_entry" "admin" {
  for_each      = toset(var.admin_role_arns)
  cluster_name  = local.cluster
  principal_arn = each.value
}

resource "aws_eks_access_policy_association" "admin" {
  for_each      = toset(var.admin_role_arns)
  cluster_name  = local.cluster
  principal_arn = aws_eks_access_entry.admin[each.value].principal_arn
  policy_arn    = "arn:${local.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
  access_scope {
    type = "cluster"
  }
}

# Before the nodes: what makes a node ready. Their versions are the defaults EKS tests with the
# cluster's version.
resource "aws_eks_addon" "node" {
  for_each     = toset(local.new_cluster ? ["vpc-cni", "kube-proxy", "eks-pod-identity-agent"] : [])
  cluster_name = local.cluster
  addon_name   = each.value
  # the network policies of the manifests are enforced by the CNI
  configuration_values = each.value == "vpc-cni" ? jsonencode({ enableNetworkPolicy = "true" }) : null

  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
  depends_on                  = [aws_eks_pod_identity_association.this]
}

# The agent would make these itself: for ever, and unencrypted.
resource "aws_cloudwatch_log_group" "workload" {
  for_each          = toset(var.container_insights ? ["application", "dataplane", "host", "performance"] : [])
  name              = "/aws/containerinsights/${local.name}/${each.value}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
}

locals {
  addon_values = {
    # the mount helpers must run on the tainted nodes, too
    aws-mountpoint-s3-csi-driver = jsonencode({ node = { tolerateAllTaints = true } })
    # Its operator would add init containers to every Deployment behind a Service, which namespaces with
    # restricted pods refuse. Application Signals stays on: its port takes the traces.
    amazon-cloudwatch-observability = jsonencode({
      manager = { applicationSignals = { autoMonitor = { monitorAllServices = false } } }
    })
  }
}

# After them: what runs on a node.
resource "aws_eks_addon" "workload" {
  for_each = setunion(
    local.new_cluster ? ["coredns", "metrics-server"] : [],
    var.container_insights ? ["amazon-cloudwatch-observability"] : [],
    length(var.models) == 0 ? [] : ["aws-mountpoint-s3-csi-driver"],
  )
  cluster_name         = local.cluster
  addon_name           = each.value
  configuration_values = lookup(local.addon_values, each.value, null)

  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
  # a pod gets its service account's rights when it is made, and never later
  depends_on = [
    aws_eks_node_group.system, aws_cloudwatch_log_group.workload, aws_eks_pod_identity_association.this,
  ]
}

resource "aws_launch_template" "system" {
  count                  = local.new_cluster ? 1 : 0
  name                   = "${local.name}-system"
  update_default_version = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods have Pod Identity; the node's own role is not theirs
  }

  dynamic "block_device_mappings" {
    # Bottlerocket: the system, and the data of containers
    for_each = { "/dev/xvda" = 4, "/dev/xvdb" = 40 }
    content {
      device_name = block_device_mappings.key
      ebs {
        volume_size           = block_device_mappings.value
        volume_type           = "gp3"
        encrypted             = true
        delete_on_termination = true
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])
    content {
      resource_type = tag_specifications.value
      tags          = { Name = "${local.name}-system", deployment = local.name }
    }
  }
}

resource "aws_eks_node_group" "system" {
  count           = local.new_cluster ? 1 : 0
  cluster_name    = local.cluster
  node_group_name = "system"
  node_role_arn   = aws_iam_role.node["system"].arn
  subnet_ids      = local.private_subnets
  instance_types  = [var.system_instance_type]
  ami_type        = "BOTTLEROCKET_x86_64"
  labels          = { "stable-diffusion/nodes" = "system" }

  launch_template {
    id      = aws_launch_template.system[0].id
    version = aws_launch_template.system[0].latest_version
  }

  scaling_config {
    desired_size = 2
    min_size     = 2
    max_size     = 3
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.node, aws_route.nat]
}
