data "aws_availability_zones" "available" {
  # checkov:skip=CKV_AWS_394:a zone that AWS adds moves nothing: subnets ignore changes of their zone
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

# Not every zone has every instance type: inf2, g6 and g6e are offered in some only.
data "aws_ec2_instance_type_offerings" "instances" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = concat([var.instance_type], var.other_instance_types)
  }

  lifecycle {
    postcondition {
      condition     = length(self.locations) > 0
      error_message = "No zone of ${var.region} offers ${var.instance_type}: use another instance_type or region."
    }
  }
}

data "aws_vpc" "given" {
  count = var.vpc_id == null ? 0 : 1
  id    = var.vpc_id
}

locals {
  own_vpc = var.vpc_id == null
  usable  = data.aws_availability_zones.available.names
  # those with an instance type first; the balancer wants two, if need be one without instances
  offered = [for name in local.usable : name if contains(data.aws_ec2_instance_type_offerings.instances.locations, name)]
  ordered = concat(local.offered, [for name in local.usable : name if !contains(local.offered, name)])
  zones   = slice(local.ordered, 0, 2)

  vpc_id            = local.own_vpc ? aws_vpc.this[0].id : var.vpc_id
  vpc_cidr          = local.own_vpc ? var.vpc_cidr : data.aws_vpc.given[0].cidr_block
  balancer_subnets  = local.own_vpc ? aws_subnet.public[*].id : var.balancer_subnet_ids
  instance_subnets  = local.own_vpc ? aws_subnet.private[*].id : var.instance_subnet_ids
  own_vpc_zones     = local.own_vpc ? local.zones : []
  private_zones     = slice(local.own_vpc_zones, 0, min(length(local.own_vpc_zones), max(1, length(local.offered))))
  own_vpc_instances = local.own_vpc ? 1 : 0
}

resource "aws_vpc" "this" {
  # checkov:skip=CKV2_AWS_11:flow logs cost by volume and are an account's policy; add them there
  count = local.own_vpc_instances

  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = local.name }
}

# Nothing uses the default group; adopting it without rules closes it.
resource "aws_default_security_group" "closed" {
  count  = local.own_vpc_instances
  vpc_id = aws_vpc.this[0].id
}

resource "aws_internet_gateway" "this" {
  count  = local.own_vpc_instances
  vpc_id = aws_vpc.this[0].id

  tags = { Name = local.name }
}

resource "aws_subnet" "public" {
  count = length(local.own_vpc_zones)

  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.own_vpc_zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)

  tags = { Name = "${local.name}-public-${count.index}" }

  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_subnet" "private" {
  count = length(local.private_zones)

  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.private_zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, count.index + 1)

  tags = { Name = "${local.name}-private-${count.index}" }

  lifecycle {
    ignore_changes = [availability_zone]
  }
}

# One gateway for all zones: instances need it to boot (models from the Hub, SSM, logs), not to serve,
# so a zone's failure costs new instances only. Image layers and S3 models go through the S3 endpoint.
resource "aws_eip" "nat" {
  count  = local.own_vpc_instances
  domain = "vpc"

  tags       = { Name = "${local.name}-nat" }
  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  count = local.own_vpc_instances

  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id

  tags = { Name = local.name }
}

resource "aws_route_table" "public" {
  count  = local.own_vpc_instances
  vpc_id = aws_vpc.this[0].id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }

  tags = { Name = "${local.name}-public" }
}

resource "aws_route_table" "private" {
  count  = local.own_vpc_instances
  vpc_id = aws_vpc.this[0].id

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this[0].id
  }

  tags = { Name = "${local.name}-private" }
}

resource "aws_route_table_association" "public" {
  count = length(local.own_vpc_zones)

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table_association" "private" {
  count = length(local.private_zones)

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

resource "aws_vpc_endpoint" "s3" {
  count = local.own_vpc_instances

  vpc_id          = aws_vpc.this[0].id
  service_name    = "com.amazonaws.${var.region}.s3"
  route_table_ids = [aws_route_table.private[0].id]

  tags = { Name = "${local.name}-s3" }
}

# Who may talk to whom: allowed_cidrs -> balancer -> instances -> https anywhere. Nothing else.

resource "aws_security_group" "balancer" {
  name_prefix = "${local.name}-balancer-"
  description = "Load balancer of ${local.name}"
  vpc_id      = local.vpc_id

  tags = { Name = "${local.name}-balancer" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "instance" {
  name_prefix = "${local.name}-instance-"
  description = "Instances of ${local.name}"
  vpc_id      = local.vpc_id

  tags = { Name = "${local.name}-instance" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "allowed" {
  # checkov:skip=CKV_AWS_260:port 80 redirects where there is a certificate; without one, the whole world is refused unless allow_plain_http says so
  for_each = {
    for pair in setproduct(var.allowed_cidrs, local.listener_ports) : "${pair[0]}-${pair[1]}" => pair
  }

  security_group_id = aws_security_group.balancer.id
  description       = "Allowed network"
  cidr_ipv4         = each.value[0]
  ip_protocol       = "tcp"
  from_port         = each.value[1]
  to_port           = each.value[1]
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_instance" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.instance.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_ingress_rule" "instance_from_balancer" {
  security_group_id            = aws_security_group.instance.id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_egress_rule" "instance_https" {
  security_group_id = aws_security_group.instance.id
  description       = "ECR, S3, SSM, CloudWatch, model hubs"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# The Neuron AMI may come without Docker, and Ubuntu's package mirrors speak http only (apt checks
# signatures itself).
resource "aws_vpc_security_group_egress_rule" "instance_packages" {
  count = var.accelerator == "neuron" ? 1 : 0

  security_group_id = aws_security_group.instance.id
  description       = "Ubuntu package mirrors"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}
