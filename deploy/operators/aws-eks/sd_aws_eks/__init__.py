"""The bentoctl operator aws-eks: a cluster by Terraform, and what runs in it by kustomize.

bentoctl calls the four functions exported here.
"""

from sd_aws_eks.files import generate
from sd_bentoctl.deployable import create_deployable
from sd_bentoctl.ecr import create_repository, delete_repository

__all__ = ["create_deployable", "create_repository", "delete_repository", "generate"]
