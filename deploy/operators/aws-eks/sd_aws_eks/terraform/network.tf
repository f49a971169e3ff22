# One VPC over three zones, unless there is one already. Nodes and pods have private addresses only; the
# load balancer is in the public subnets, unless it is internal.

data "aws_availability_zones" "this" {
  # checkov:skip=CKV_AWS_394:zones that have the instance types are taken, in the order of their names
  state = "available"
  # EKS puts no control plane into these (EKS user guide, network requirements).
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

# Not every zone has every instance type: inf2, g6 and g6e are offered in some only.
data "aws_ec2_instance_type_offerings" "nodes" {
  location_type = "availability-zone"
  filter {
    name   = "instance-type"
    values = var.instance_types
  }
}

locals {
  new_vpc = var.vpc_id == null
  usable  = data.aws_availability_zones.this.names
  # those with an instance type first; a cluster wants two zones, if need be without nodes
  offered   = [for name in local.usable : name if contains(data.aws_ec2_instance_type_offerings.nodes.locations, name)]
  ordered   = concat(local.offered, [for name in local.usable : name if !contains(local.offered, name)])
  zones     = local.new_vpc ? slice(local.ordered, 0, min(max(2, min(3, length(local.offered))), length(local.ordered))) : []
  zone      = { for index, name in local.zones : name => index }
  nat_zones = var.nat_per_zone ? local.zones : slice(local.zones, 0, min(1, length(local.zones)))

  vpc_id          = local.new_vpc ? one(aws_vpc.this[*].id) : var.vpc_id
  vpc_arn         = "${local.ec2}:${local.account}:vpc/${local.vpc_id}"
  private_subnets = local.new_vpc ? [for subnet in aws_subnet.private : subnet.id] : var.private_subnet_ids
}

resource "aws_vpc" "this" {
  count                = local.new_vpc ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

# What AWS opens by default, closed.
resource "aws_default_security_group" "this" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = local.vpc_id
}

resource "aws_subnet" "private" {
  for_each          = local.zone
  vpc_id            = local.vpc_id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, each.value)
  tags = merge(local.discovery, {
    Name                              = "${local.name}-private-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
  })
}

resource "aws_subnet" "public" {
  for_each          = local.zone
  vpc_id            = local.vpc_id
  availability_zone = each.key
  # the last quarter of the addresses, in pieces
  cidr_block = cidrsubnet(var.vpc_cidr, 6, 48 + each.value)
  tags = {
    Name                     = "${local.name}-public-${each.key}"
    "kubernetes.io/role/elb" = "1"
  }
}

resource "aws_internet_gateway" "this" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = local.vpc_id
  tags   = { Name = local.name }
}

resource "aws_eip" "nat" {
  for_each = toset(local.nat_zones)
  domain   = "vpc"
  tags     = { Name = "${local.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each      = toset(local.nat_zones)
  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = { Name = "${local.name}-${each.key}" }
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  count  = local.new_vpc ? 1 : 0
  vpc_id = local.vpc_id
  tags   = { Name = "${local.name}-public" }
}

resource "aws_route" "internet" {
  count                  = local.new_vpc ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each       = local.zone
  route_table_id = aws_route_table.public[0].id
  subnet_id      = aws_subnet.public[each.key].id
}

resource "aws_route_table" "private" {
  for_each = local.zone
  vpc_id   = local.vpc_id
  tags     = { Name = "${local.name}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each               = local.zone
  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[var.nat_per_zone ? each.key : local.zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each       = local.zone
  route_table_id = aws_route_table.private[each.key].id
  subnet_id      = aws_subnet.private[each.key].id
}

# Models and image layers come from S3: this way they cost no NAT traffic.
resource "aws_vpc_endpoint" "s3" {
  count             = local.new_vpc ? 1 : 0
  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for table in aws_route_table.private : table.id]
  tags              = { Name = "${local.name}-s3" }
}

resource "aws_flow_log" "this" {
  count           = local.new_vpc ? 1 : 0
  vpc_id          = local.vpc_id
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn    = aws_iam_role.flow[0].arn
}

resource "aws_cloudwatch_log_group" "flow" {
  count             = local.new_vpc ? 1 : 0
  name              = "/${local.name}/vpc-flow"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
}

resource "aws_iam_role" "flow" {
  count              = local.new_vpc ? 1 : 0
  name               = "${local.name}-${var.region}-vpc-flow"
  assume_role_policy = data.aws_iam_policy_document.trust["vpc-flow-logs"].json
}

resource "aws_iam_role_policy" "flow" {
  count = local.new_vpc ? 1 : 0
  name  = "write"
  role  = aws_iam_role.flow[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = "${aws_cloudwatch_log_group.flow[0].arn}:*"
    }]
  })
}
