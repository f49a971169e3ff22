"""The bentoctl operator aws-ec2: an autoscaling group of GPU or Inferentia2 instances.

bentoctl calls the functions exported here; `wait` after an apply.
"""

from sd_aws_ec2.values import generate
from sd_aws_ec2.waiting import wait
from sd_bentoctl.deployable import create_deployable
from sd_bentoctl.ecr import create_repository, delete_repository

__all__ = ["create_deployable", "create_repository", "delete_repository", "generate", "wait"]
