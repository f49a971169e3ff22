data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0
  name  = var.ami_ssm_parameter
}

data "aws_ami" "this" {
  filter {
    name   = "image-id"
    values = [local.ami_id]
  }
}

locals {
  ami_id      = var.ami_id == null ? nonsensitive(data.aws_ssm_parameter.ami[0].value) : var.ami_id
  root_device = data.aws_ami.this.root_device_name

  ami_sizes = [
    for disk in data.aws_ami.this.block_device_mappings : tonumber(try(disk.ebs.volume_size, 0))
    if disk.device_name == local.root_device
  ]
  ami_gib = try(max(local.ami_sizes...), 0)
  # the image is there packed and unpacked, the model while it is replaced by a newer one
  volume_gib = var.volume_gib == null ? max(100, local.ami_gib + 30 + 2 * var.model_gib) : var.volume_gib

  scales           = var.max_instances > var.min_instances
  metric_namespace = "StableDiffusion"
  metric           = "Load"

  # sorted, so that the script changes only with its contents
  env_lines = [for key in sort(keys(var.environment)) : "${key}=${var.environment[key]}"]

  user_data = templatefile("${path.module}/boot.sh.tftpl", {
    image        = var.image_uri
    registry     = local.image_parts == null ? "" : split("/", var.image_uri)[0]
    region       = var.region
    log_group    = aws_cloudwatch_log_group.this.name
    port         = local.port
    drain_s      = var.drain_s
    devices      = var.accelerator == "nvidia" ? "--gpus all" : join(" ", [for i in range(var.accelerator_devices) : "--device=/dev/neuron${i}"])
    serve_base64 = var.serve_config == null ? "" : base64encode(var.serve_config)
    resources    = var.accelerator == "nvidia" ? "--gpus ${var.accelerator_devices}" : "--neuron-cores ${2 * var.accelerator_devices}"
    deployment   = local.name
    scales       = local.scales
    namespace    = local.metric_namespace
    metric       = local.metric
    env_base64   = base64encode(join("\n", concat(local.env_lines, [""])))
    keys         = var.api_keys_parameter == null ? "" : var.api_keys_parameter
    model_source = local.model_location == null ? "" : trimsuffix(var.model, "/")
    spot         = var.spot
  })
}

resource "aws_launch_template" "this" {
  name_prefix            = "${local.name}-"
  image_id               = local.ami_id
  instance_type          = var.instance_type
  user_data              = base64encode(local.user_data)
  update_default_version = true
  ebs_optimized          = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.this.arn
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [aws_security_group.instance.id]
    delete_on_termination       = true
  }

  block_device_mappings {
    device_name = local.root_device

    ebs {
      volume_size           = local.volume_gib
      volume_type           = "gp3"
      throughput            = 500 # MiB/s: weights load from here at every start
      iops                  = 4000
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # not from inside the container
  }

  monitoring {
    enabled = true
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = local.name })
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_autoscaling_group" "this" {
  name_prefix         = "${local.name}-"
  min_size            = var.min_instances
  max_size            = var.max_instances
  vpc_zone_identifier = local.instance_subnets
  target_group_arns   = [aws_lb_target_group.this.arn]

  # the balancer's view of /readyz decides, once boot, pull and loading have had their time
  health_check_type         = "ELB"
  health_check_grace_period = var.boot_grace_s
  default_instance_warmup   = var.boot_grace_s
  capacity_rebalance        = var.spot
  # Terraform must not wait for a GPU to be free: the group goes on trying, and /readyz tells
  wait_for_capacity_timeout = "0"

  dynamic "launch_template" {
    for_each = var.spot ? [] : [aws_launch_template.this]

    content {
      id      = launch_template.value.id
      version = launch_template.value.latest_version
    }
  }

  dynamic "mixed_instances_policy" {
    for_each = var.spot ? [aws_launch_template.this] : []

    content {
      instances_distribution {
        on_demand_base_capacity                  = var.on_demand_base
        on_demand_percentage_above_base_capacity = 0
        spot_allocation_strategy                 = "price-capacity-optimized"
      }

      launch_template {
        launch_template_specification {
          launch_template_id = mixed_instances_policy.value.id
          version            = mixed_instances_policy.value.latest_version
        }

        dynamic "override" {
          for_each = distinct(concat([var.instance_type], var.other_instance_types))

          content {
            instance_type = override.value
          }
        }
      }
    }
  }

  # a new image, AMI or setting is a new template version: replace instances one by one, new one first
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 200
      instance_warmup        = var.boot_grace_s
      auto_rollback          = true
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = local.name })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false # the launch template tags them, volumes included
    }
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [desired_capacity]
  }

  depends_on = [
    aws_kms_grant.autoscaling,
    aws_iam_role_policy.instance,
    aws_lb_listener.http,
    aws_route_table_association.private,
  ]
}

# On what the engines have to do, as the instances report it (boot.sh.tftpl): the balancer would count
# the web page's files and refused requests, too, and an image of 50 steps like one of 4.
resource "aws_autoscaling_policy" "load" {
  count = local.scales ? 1 : 0

  name                   = "${local.name}-load"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.requests_per_replica * var.accelerator_devices

    customized_metric_specification {
      namespace   = local.metric_namespace
      metric_name = local.metric
      statistic   = "Average" # over the instances that serve

      metric_dimension {
        name  = "Deployment"
        value = local.name
      }
    }
  }
}
