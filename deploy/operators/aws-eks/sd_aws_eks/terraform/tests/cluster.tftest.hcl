# Offline: the provider is a mock. What a platform engineer would look at first.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"] }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["us-east-1b", "us-east-1c", "us-east-1d"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
  }
  mock_resource "aws_vpc" {
    defaults = { arn = "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-0", id = "vpc-0" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/0", key_id = "0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mock" }
  }
  mock_data "aws_eks_cluster" {
    defaults = {
      name          = "shared"
      arn           = "arn:aws:eks:us-east-1:123456789012:cluster/shared"
      vpc_config    = [{ vpc_id = "vpc-1" }]
      access_config = [{ authentication_mode = "API_AND_CONFIG_MAP" }]
    }
  }
  mock_resource "aws_eks_cluster" {
    defaults = { arn = "arn:aws:eks:us-east-1:123456789012:cluster/mock" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:us-east-1:123456789012:mock", id = "https://sqs/mock" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:mock" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::my-models" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
}

# With `async: true` there is this module beside; it has tests of its own.
override_module {
  target = module.queue
  outputs = {
    url           = "https://mock"
    api_keys      = {}
    bucket        = "mock"
    results_topic = "mock"
    queues        = { sd = "https://sqs/sd", "sd-priority" = "https://sqs/sd-priority" }
    workers       = { sd = { WORKER_BUCKET = "mock" } }

    cloudfront_domain = null
  }
}

variables {
  deployment_name      = "images"
  region               = "us-east-1"
  kubernetes_version   = "1.35"
  vpc_cidr             = "10.42.0.0/16"
  nat_per_zone         = false
  api_allowed_cidrs    = ["203.0.113.0/24"]
  admin_role_arns      = []
  system_instance_type = "m6i.large"
  log_retention_days   = 30
  instance_types       = ["g6.xlarge"]
}

run "network" {
  assert {
    condition     = length(aws_subnet.private) == 3 && length(aws_subnet.public) == 3
    error_message = "Three zones, a private and a public subnet each."
  }
  assert {
    condition = length(distinct(concat(
      [for s in aws_subnet.private : s.cidr_block], [for s in aws_subnet.public : s.cidr_block]
    ))) == 6
    error_message = "Subnets must not overlap."
  }
  assert {
    condition     = alltrue([for s in aws_subnet.private : s.tags["karpenter.sh/discovery"] == "images"])
    error_message = "Karpenter finds subnets by this tag."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 1
    error_message = "One NAT gateway, unless one a zone is asked for."
  }
}

run "nat_per_zone" {
  variables {
    nat_per_zone = true
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "One NAT gateway a zone."
  }
}

run "encrypted_and_logged" {
  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation
    error_message = "The key rotates."
  }
  assert {
    condition     = one(aws_eks_cluster.this[0].encryption_config).provider[0].key_arn == aws_kms_key.this[0].arn
    error_message = "Kubernetes secrets are encrypted with it."
  }
  assert {
    condition     = length(aws_eks_cluster.this[0].enabled_cluster_log_types) == 5
    error_message = "All five kinds of control plane logs."
  }
  assert {
    condition     = alltrue([for d in aws_launch_template.system[0].block_device_mappings : d.ebs[0].encrypted == "true"])
    error_message = "Volumes are encrypted."
  }
  assert {
    condition = alltrue([
      aws_launch_template.system[0].metadata_options[0].http_tokens == "required",
      aws_launch_template.system[0].metadata_options[0].http_put_response_hop_limit == 1,
    ])
    error_message = "IMDSv2, out of the reach of pods."
  }
}

run "key_of_ones_own" {
  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1"
  }
  assert {
    condition     = length(aws_kms_key.this) == 0 && aws_cloudwatch_log_group.cluster[0].kms_key_id == var.kms_key_arn
    error_message = "A key that is given is used, and none is made."
  }
}

run "api_for_named_networks" {
  assert {
    condition = alltrue([
      aws_eks_cluster.this[0].vpc_config[0].endpoint_private_access,
      aws_eks_cluster.this[0].vpc_config[0].endpoint_public_access,
      aws_eks_cluster.this[0].vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"]),
    ])
    error_message = "The public endpoint is for the named networks."
  }
}

run "private_api" {
  variables {
    api_allowed_cidrs = []
  }
  assert {
    condition     = !aws_eks_cluster.this[0].vpc_config[0].endpoint_public_access
    error_message = "No networks: no public endpoint."
  }
}

run "world_open_api" {
  command = plan
  variables {
    api_allowed_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.api_allowed_cidrs]
}

run "rights" {
  assert {
    condition     = toset(keys(aws_iam_role.pod)) == toset(["karpenter", "load-balancer", "logs", "network"])
    error_message = "One role a service account, and no more of them."
  }
  assert {
    condition = alltrue([
      for s in jsondecode(aws_iam_role_policy.pod["karpenter"].policy).Statement :
      s.Resource != "*" || alltrue([for a in flatten([s.Action]) : can(regex(":(Describe|List|Get)", a))])
    ])
    error_message = "On all resources, Karpenter only looks."
  }
  assert {
    condition = alltrue([
      for s in jsondecode(aws_iam_role_policy.pod["load-balancer"].policy).Statement :
      s.Resource != "*" || alltrue([for a in flatten([s.Action]) : can(regex(":(Describe|List|Get)", a))])
    ])
    error_message = "On all resources, the load balancer controller only looks."
  }
  assert {
    condition     = aws_eks_access_entry.node[0].type == "EC2_LINUX"
    error_message = "Karpenter's nodes may join."
  }
}

run "model_bucket" {
  variables {
    models = [{ bucket = "my-models", prefix = "sdxl/" }, { bucket = "theirs", prefix = "sd/" }]
  }
  assert {
    condition     = contains(keys(aws_eks_addon.workload), "aws-mountpoint-s3-csi-driver")
    error_message = "The driver that mounts it."
  }
  assert {
    condition = [
      for s in jsondecode(aws_iam_role_policy.pod["models"].policy).Statement : s.Resource
      if s.Action == "s3:GetObject"
    ] == ["arn:aws:s3:::my-models/sdxl/*", "arn:aws:s3:::theirs/sd/*"]
    error_message = "Only reading, and only the models' folders."
  }
}

run "model_bucket_with_a_key" {
  variables {
    models            = [{ bucket = "my-models", prefix = "sdxl/" }]
    model_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/2"
  }
  assert {
    condition = [
      for s in jsondecode(aws_iam_role_policy.pod["models"].policy).Statement : s.Resource
      if s.Action == "kms:Decrypt"
    ] == [var.model_kms_key_arn]
    error_message = "What is encrypted with a key of one's own is read with it."
  }
}

run "no_bucket_unasked" {
  assert {
    condition     = length(aws_s3_bucket.models) == 0 && output.models_bucket == null
    error_message = "A bucket of models is a choice."
  }
}

run "models_bucket" {
  variables {
    models_bucket = "my-models"
    models        = [{ bucket = "my-models", prefix = "sdxl/" }]
  }
  assert {
    condition     = output.models_bucket == "my-models" && aws_s3_bucket.models["my-models"].force_destroy != true
    error_message = "It has the name that models are pushed to, and is not deleted with models in it."
  }
  assert {
    condition = alltrue([
      for block in values(aws_s3_bucket_public_access_block.models) :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "Nothing in it can be made public."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.models["my-models"].rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "It is encrypted."
  }
  assert {
    condition     = one(aws_s3_bucket_versioning.models["my-models"].versioning_configuration).status == "Enabled"
    error_message = "A model that was deleted can be had back."
  }
  assert {
    condition     = one(one(aws_s3_bucket_lifecycle_configuration.models["my-models"].rule).abort_incomplete_multipart_upload).days_after_initiation == 7
    error_message = "Uploads that were cut off do not stay for ever."
  }
  assert {
    condition     = jsondecode(aws_s3_bucket_policy.models["my-models"].policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "Nobody reads it without TLS."
  }
  assert {
    condition = [
      for s in jsondecode(aws_iam_role_policy.pod["models"].policy).Statement : s.Resource
      if s.Action == "s3:GetObject"
    ] == ["arn:aws:s3:::my-models/sdxl/*"]
    error_message = "Services read it as they do a bucket that was there."
  }
}

run "models_bucket_with_a_key" {
  variables {
    models_bucket     = "my-models"
    model_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/2"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.models["my-models"].rule).apply_server_side_encryption_by_default).kms_master_key_id == var.model_kms_key_arn
    error_message = "The key that the services may decrypt with."
  }
}

run "administrators" {
  variables {
    admin_role_arns = ["arn:aws:iam::123456789012:role/admin"]
  }
  assert {
    condition     = length(aws_eks_access_policy_association.admin) == 1
    error_message = "Each gets the administrator's policy."
  }
}

run "zones_that_offer_the_instances" {
  assert {
    condition     = join(",", local.zones) == "us-east-1b,us-east-1c,us-east-1d"
    error_message = "Nodes go where their instance types are offered, not into the first zones."
  }
}

run "instances_in_one_zone" {
  override_data {
    target = data.aws_ec2_instance_type_offerings.nodes
    values = { locations = ["us-east-1d"] }
  }
  assert {
    condition     = join(",", local.zones) == "us-east-1d,us-east-1a"
    error_message = "A cluster wants two zones; the one with the instances is among them."
  }
}

run "existing_vpc" {
  variables {
    vpc_id             = "vpc-1"
    private_subnet_ids = ["subnet-1", "subnet-2"]
  }
  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.private) + length(aws_nat_gateway.this) + length(aws_flow_log.this) == 0
    error_message = "Nothing of a network is made."
  }
  assert {
    condition     = aws_eks_cluster.this[0].vpc_config[0].subnet_ids == toset(["subnet-1", "subnet-2"])
    error_message = "The cluster is in the subnets that were there."
  }
  assert {
    condition     = output.vpc_id == "vpc-1"
    error_message = "The controller is told the VPC."
  }
}

run "existing_cluster" {
  variables {
    vpc_id             = "vpc-1"
    private_subnet_ids = ["subnet-1", "subnet-2"]
    cluster            = "shared"
    container_insights = false
  }
  assert {
    condition = (
      length(aws_eks_cluster.this) + length(aws_eks_node_group.system) + length(aws_eks_addon.node) +
      length(aws_eks_addon.workload) + length(aws_ec2_tag.discovery) == 0
    )
    error_message = "Nothing of the cluster is made or changed."
  }
  assert {
    condition     = keys(aws_iam_role.node) == ["karpenter"] && keys(aws_iam_role.pod) == ["karpenter", "load-balancer"]
    error_message = "The controllers that are installed get their rights, and nobody else."
  }
  assert {
    condition     = aws_eks_pod_identity_association.this["karpenter"].cluster_name == "shared" && aws_eks_access_entry.node[0].cluster_name == "shared"
    error_message = "They get them in that cluster."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.pod["karpenter"].policy, "kubernetes.io/cluster/shared") && strcontains(aws_iam_role_policy.pod["load-balancer"].policy, "shared")
    error_message = "Their rights are for what carries that cluster's name."
  }
  assert {
    condition     = output.cluster_name == "shared" && output.vpc_id == "vpc-1"
    error_message = "The installer is told the cluster's name."
  }
}

run "existing_cluster_with_controllers" {
  variables {
    vpc_id               = "vpc-1"
    private_subnet_ids   = ["subnet-1", "subnet-2"]
    cluster              = "shared"
    container_insights   = false
    existing_controllers = ["karpenter", "aws-load-balancer-controller"]
  }
  assert {
    condition = (
      length(aws_iam_role.node) + length(aws_iam_role.pod) + length(aws_sqs_queue.interruptions) +
      length(aws_cloudwatch_event_rule.interruptions) + length(aws_cloudwatch_metric_alarm.this) + length(aws_eks_access_entry.node) == 0
    )
    error_message = "The cluster's own Karpenter has its queue, its nodes' role and its rights."
  }
}

run "existing_cluster_of_another_vpc" {
  command = plan
  variables {
    vpc_id             = "vpc-2"
    private_subnet_ids = ["subnet-1", "subnet-2"]
    cluster            = "shared"
  }
  expect_failures = [data.aws_eks_cluster.existing]
}

run "names_of_the_account_carry_the_region" {
  assert {
    condition = alltrue([
      for role in concat(values(aws_iam_role.pod), values(aws_iam_role.node), aws_iam_role.cluster) :
      startswith(role.name, "images-us-east-1-")
    ])
    error_message = "IAM is the account's: the same deployment in two regions must not collide."
  }
}

run "firewall_rights" {
  assert {
    condition = contains(flatten([
      for s in jsondecode(aws_iam_role_policy.pod["load-balancer"].policy).Statement : s.Action
    ]), "wafv2:AssociateWebACL")
    error_message = "The controller may put the web ACL before the load balancer."
  }
}

run "nobody_to_tell" {
  assert {
    condition     = length(aws_sns_topic.alarms) == 0 && length(aws_budgets_budget.this) == 0
    error_message = "Without an address there is no topic and no budget."
  }
}

run "alarms_are_told" {
  variables {
    alarm_email        = "me@example.com"
    monthly_budget_usd = 500
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.this : length(a.alarm_actions) == 1])
    error_message = "Every alarm has an action."
  }
  assert {
    condition     = aws_budgets_budget.this[0].limit_amount == "500"
    error_message = "The budget is the one that was named."
  }
}

run "tags_of_ones_own" {
  command = plan
  variables {
    tags = { team = "images" }
  }
  assert {
    condition     = var.tags["team"] == "images"
    error_message = "They are the provider's default tags."
  }
}

run "traces" {
  variables {
    tracing = true
  }
  assert {
    condition     = endswith(aws_iam_role_policy_attachment.traces[0].policy_arn, "AWSXrayWriteOnlyAccess")
    error_message = "The agent may write traces, and no more."
  }
}

run "nothing_is_instrumented" {
  assert {
    condition = !jsondecode(
      aws_eks_addon.workload["amazon-cloudwatch-observability"].configuration_values
    ).manager.applicationSignals.autoMonitor.monitorAllServices
    error_message = "CloudWatch's operator must not add init containers to restricted pods."
  }
}

run "without_container_insights" {
  variables {
    container_insights = false
  }
  assert {
    condition = alltrue([
      length(aws_cloudwatch_log_group.workload) == 0,
      !contains(keys(aws_eks_addon.workload), "amazon-cloudwatch-observability"),
      !contains(keys(aws_iam_role.pod), "logs"),
      join(",", keys(aws_cloudwatch_metric_alarm.this)) == "interruptions",
    ])
    error_message = "No agents, no rights for them, no alarms of theirs."
  }
}
