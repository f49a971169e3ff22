# For checks on moto only, which refuses parameters below /aws/service: prepare.py makes this one.

data "aws_ssm_parameter" "ami" {
  name = "/stand-in/ami"
}

provider "aws" {
  max_retries = 1
}
