# `terraform test`: plans and applies on a mock of the provider, without an account or a network.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1a", "us-east-1b", "us-east-1c"] }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["us-east-1a", "us-east-1b", "us-east-1c"] }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_iam_roles" {
    defaults = {
      arns = ["arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"]
    }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }
  mock_data "aws_ami" {
    defaults = {
      root_device_name      = "/dev/sda1"
      block_device_mappings = [{ device_name = "/dev/sda1", ebs = { volume_size = "75" } }]
    }
  }
  mock_data "aws_vpc" {
    defaults = { cidr_block = "10.0.0.0/16" }
  }
  mock_resource "aws_lb" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/drawing/0"
      arn_suffix = "app/drawing/0"
      dns_name   = "drawing.example.com"
    }
  }
  mock_resource "aws_lb_target_group" {
    defaults = {
      arn        = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/sd/0"
      arn_suffix = "targetgroup/sd/0"
    }
  }
  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/drawing/0/0" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:/stable-diffusion/drawing" }
  }
  mock_resource "aws_kms_grant" {
    defaults = { grant_id = "0" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/drawing" }
  }
}

variables {
  deployment_name     = "drawing"
  region              = "us-east-1"
  image_uri           = "123456789012.dkr.ecr.us-east-1.amazonaws.com/drawing:v1"
  instance_type       = "g5.xlarge"
  accelerator         = "nvidia"
  accelerator_devices = 1
  ami_ssm_parameter   = "/test/ami"
}

# First, because subnets that are there keep their zones.
run "zones_that_offer_the_instances" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type_offerings.instances
    values = { locations = ["us-east-1c", "us-east-1b"] }
  }

  assert {
    condition     = join(",", aws_subnet.private[*].availability_zone) == "us-east-1b,us-east-1c"
    error_message = "Instances must be where their type is offered."
  }
}

# The balancer wants two zones, also where the instances have one.
run "instances_in_one_zone" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type_offerings.instances
    values = { locations = ["us-east-1c"] }
  }

  assert {
    condition     = join(",", aws_subnet.public[*].availability_zone) == "us-east-1c,us-east-1a"
    error_message = "The zone of the instances comes first, and another one is beside it."
  }
  assert {
    condition     = join(",", aws_subnet.private[*].availability_zone) == "us-east-1c"
    error_message = "No instance may be tried where its type is not offered."
  }
}

run "closed_by_default" {
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.allowed) == 0
    error_message = "Nobody from outside may reach the balancer unless allowed_cidrs says so."
  }
  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 must be required."
  }
  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "The volume must be encrypted."
  }
  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].ebs[0].volume_size == 107
    error_message = "The volume is the AMI's 75 GiB, 30 for the image and twice the model's 1."
  }
  assert {
    condition     = one(aws_launch_template.this.network_interfaces[*].associate_public_ip_address) == "false"
    error_message = "Instances must have no public address."
  }
  assert {
    condition     = length(aws_vpc.this) == 1 && length(aws_subnet.private) == 2
    error_message = "A VPC of its own, in two zones."
  }
  assert {
    condition     = length(aws_autoscaling_policy.load) == 0 && !strcontains(base64decode(aws_launch_template.this.user_data), "put-metric-data")
    error_message = "One instance needs no scaling policy."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "--gpus all")
    error_message = "The container must see the GPU."
  }
  assert {
    condition     = aws_lb_target_group.this.health_check[0].path == "/readyz"
    error_message = "Health is readiness."
  }
}

run "with_a_certificate_http_only_redirects" {
  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d"
    allowed_cidrs   = ["0.0.0.0/0"]
  }

  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "redirect"
    error_message = "Port 80 must only redirect."
  }
  assert {
    condition     = aws_lb_listener.https[0].default_action[0].type == "forward"
    error_message = "Port 443 must serve."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.allowed) == 2
    error_message = "One rule a port for the allowed network."
  }
  assert {
    condition     = startswith(output.endpoint, "https://")
    error_message = "The endpoint is https."
  }
}

run "plain_http_for_the_world_is_refused" {
  command = plan

  variables {
    allowed_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.allow_plain_http]
}

run "without_an_image_it_says_so" {
  command = plan

  variables {
    image_uri = null
  }

  expect_failures = [var.image_uri]
}

run "inferentia_with_a_replica_per_chip" {
  variables {
    instance_type        = "inf2.24xlarge"
    accelerator          = "neuron"
    accelerator_devices  = 6
    max_instances        = 2
    requests_per_replica = 3
    serve_config         = "{}"
  }

  assert {
    condition = alltrue([
      for i in range(6) : strcontains(base64decode(aws_launch_template.this.user_data), "--device=/dev/neuron${i} ")
    ])
    error_message = "The container must see every Neuron device."
  }
  assert {
    condition     = !strcontains(base64decode(aws_launch_template.this.user_data), "--gpus")
    error_message = "There is no GPU."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "python -m hosts.ray --host 0.0.0.0 --port 3000 --neuron-cores 12 /etc/serve.yaml")
    error_message = "Ray serves, and knows both cores of every chip."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), base64encode(var.serve_config))
    error_message = "The container gets Serve's config."
  }
  assert {
    condition     = one(aws_autoscaling_policy.load[0].target_tracking_configuration).target_value == 18
    error_message = "The group aims at a batch for each of the six replicas."
  }
}

run "several_gpus" {
  variables {
    instance_type       = "g6.12xlarge"
    accelerator_devices = 4
    serve_config        = "{}"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "hosts.ray --host 0.0.0.0 --port 3000 --gpus 4 ")
    error_message = "Ray serves, and knows every GPU."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "--gpus all") && strcontains(base64decode(aws_launch_template.this.user_data), "--shm-size 12g")
    error_message = "The container sees them all, and has room for Ray's object store."
  }
}

run "existing_network_spot_and_scaling" {
  variables {
    vpc_id              = "vpc-0123456789abcdef0"
    balancer_subnet_ids = ["subnet-00000001", "subnet-00000002"]
    instance_subnet_ids = ["subnet-00000003"]
    max_instances       = 4
    spot                = true

    on_demand_base       = 1
    other_instance_types = ["g6.xlarge"]
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_nat_gateway.this) + length(aws_subnet.public) == 0
    error_message = "Nothing of a network may be made in a given VPC."
  }
  assert {
    condition = (
      aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == 1 &&
      aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 0
    )
    error_message = "The first one is on demand, all others are spot."
  }
  assert {
    condition     = length(aws_autoscaling_group.this.mixed_instances_policy[0].launch_template[0].override) == 2
    error_message = "Both types may come."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "spot/instance-action")
    error_message = "A spot instance waits for its notice."
  }
  assert {
    condition     = aws_autoscaling_group.this.max_size == 4 && length(aws_autoscaling_policy.load) == 1
    error_message = "The group scales to four."
  }
  assert {
    condition = one([
      for policy in aws_autoscaling_policy.load[*].target_tracking_configuration[0].customized_metric_specification[0] :
      strcontains(base64decode(aws_launch_template.this.user_data), "--namespace '${policy.namespace}' --metric-name '${policy.metric_name}'") &&
      strcontains(base64decode(aws_launch_template.this.user_data), "--dimensions '${policy.metric_dimension[0].name}=${policy.metric_dimension[0].value}'")
    ])
    error_message = "The instances report the metric that the group scales on."
  }
  assert {
    condition = anytrue([
      for one in data.aws_iam_policy_document.instance.statement :
      contains(one.actions, "cloudwatch:PutMetricData") && contains(flatten(one.condition[*].values), "StableDiffusion")
    ])
    error_message = "The instances may report it, in this namespace only."
  }
}

run "a_key_of_the_account" {
  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d"
  }
  assert {
    condition     = aws_kms_grant.autoscaling[0].key_id == var.kms_key_arn
    error_message = "Auto Scaling may use the key"
  }
  assert {
    condition     = endswith(aws_kms_grant.autoscaling[0].grantee_principal, ":role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling")
    error_message = "the grant is to Auto Scaling's own role, which makes the volumes"
  }
}

run "a_key_in_an_account_that_had_no_group_yet" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d"
  }

  override_data {
    target = data.aws_iam_roles.autoscaling
    values = { arns = [] }
  }

  expect_failures = [data.aws_iam_roles.autoscaling]
}
