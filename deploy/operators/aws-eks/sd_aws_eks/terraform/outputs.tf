output "cluster_name" {
  description = "The cluster's name."
  value       = local.cluster
}

output "cluster_endpoint" {
  description = "The Kubernetes API."
  value       = local.new_cluster ? one(aws_eks_cluster.this[*].endpoint) : one(data.aws_eks_cluster.existing[*].endpoint)
}

output "region" {
  description = "The AWS region."
  value       = var.region
}

output "vpc_id" {
  description = "The VPC, which the load balancer controller is told."
  value       = local.vpc_id
}

output "interruption_queue" {
  description = "The queue Karpenter hears of spot interruptions from; none where Karpenter was there."
  value       = one(aws_sqs_queue.interruptions[*].name)
}

output "private" {
  description = "Whether the Kubernetes API has a private endpoint only."
  value       = length(var.api_allowed_cidrs) == 0
}

output "zones" {
  description = "Where nodes may be: the zones of a new VPC."
  value       = local.zones
}

output "api_keys_parameter" {
  description = "The SSM parameter with the API keys, if any."
  value       = var.api_keys_parameter
}

output "image_uri" {
  description = "The service's image."
  value       = var.image_uri
}

output "kubeconfig" {
  description = "The command that makes a kubeconfig."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${local.cluster}"
}
