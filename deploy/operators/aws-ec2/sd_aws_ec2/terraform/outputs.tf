output "endpoint" {
  description = "Where the service answers. With a certificate, point its name at this address."
  value       = "${local.scheme}://${aws_lb.this.dns_name}"
}

output "curl_txt2img" {
  description = "Draw from text."
  value       = "curl -X POST ${local.scheme}://${aws_lb.this.dns_name}/txt2img -H 'Content-Type: application/json' -d '{\"prompt\":\"View of a cyberpunk city\"}' --output output.jpg"
}

output "curl_img2img" {
  description = "Redraw an image."
  value       = "curl -X POST ${local.scheme}://${aws_lb.this.dns_name}/img2img -H 'Content-Type: multipart/form-data' -F img=\"@input.jpg\" -F data='{\"prompt\":\"View of a cyberpunk city\"}' --output output.jpg"
}

output "ami_id" {
  description = "The AMI in use: set it as spec.ami_id to stay on it."
  value       = local.ami_id
}

output "log_group" {
  description = "Where the service's log is: aws logs tail NAME --follow"
  value       = aws_cloudwatch_log_group.this.name
}

output "autoscaling_group" {
  description = "The group, for its activities and its instances."
  value       = aws_autoscaling_group.this.name
}

output "target_group" {
  description = "The instances behind the load balancer, and their health."
  value       = aws_lb_target_group.this.arn
}

output "tunnel" {
  description = "The service on 127.0.0.1:3000 without opening anything (Session Manager)."
  value       = "aws ssm start-session --region ${var.region} --document-name AWS-StartPortForwardingSession --parameters portNumber=3000,localPortNumber=3000 --target INSTANCE_ID"
}

output "shell" {
  description = "A shell on one of the instances, without SSH."
  value       = "aws ssm start-session --region ${var.region} --target \"$(aws autoscaling describe-auto-scaling-groups --region ${var.region} --auto-scaling-group-names ${aws_autoscaling_group.this.name} --query 'AutoScalingGroups[0].Instances[0].InstanceId' --output text)\""
}
