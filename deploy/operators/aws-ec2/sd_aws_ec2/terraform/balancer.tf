locals {
  tls            = var.certificate_arn != null
  listener_ports = local.tls ? [80, 443] : [80]
  scheme         = local.tls ? "https" : "http"
}

resource "aws_lb" "this" {
  # checkov:skip=CKV_AWS_91:access logs need a bucket with a policy of the account; the service logs every request itself
  # checkov:skip=CKV2_AWS_28:a firewall is the account's policy; the service has keys, limits and body sizes of its own
  # checkov:skip=CKV_AWS_150:deletion_protection switches it; on by default it would make bentoctl destroy fail
  # checkov:skip=CKV2_AWS_20:with a certificate the http listener redirects; without one there is nothing to redirect to
  name                       = local.name
  internal                   = var.internal
  load_balancer_type         = "application"
  subnets                    = local.balancer_subnets
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  idle_timeout               = var.idle_timeout_s
}

resource "aws_lb_target_group" "this" {
  # checkov:skip=CKV_AWS_378:between balancer and instances, inside the VPC, the service speaks http
  name_prefix          = "sd-"
  vpc_id               = local.vpc_id
  port                 = local.port
  protocol             = "HTTP"
  deregistration_delay = var.drain_s

  # the instance with the fewest requests open: drawings differ in length
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "http" {
  # checkov:skip=CKV_AWS_2:redirects where there is a certificate; plain http is the user's choice, see allow_plain_http
  # checkov:skip=CKV_AWS_103:the TLS policy is on the https listener
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = local.tls ? "redirect" : "forward"
    target_group_arn = local.tls ? null : aws_lb_target_group.this.arn

    dynamic "redirect" {
      for_each = local.tls ? [1] : []

      content {
        port        = "443"
        protocol    = "HTTPS"
        status_code = "HTTP_301"
      }
    }
  }
}

resource "aws_lb_listener" "https" {
  count = local.tls ? 1 : 0

  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}
