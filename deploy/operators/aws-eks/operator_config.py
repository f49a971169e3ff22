"""The names that bentoctl reads: it puts this folder on sys.path and imports this file."""

from sd_aws_eks.spec import EksSpec
from sd_bentoctl.schema import cerberus_schema

OPERATOR_NAME = "aws-eks"
OPERATOR_MODULE = "sd_aws_eks"
OPERATOR_DEFAULT_TEMPLATE = "terraform"
OPERATOR_SPEC = EksSpec
OPERATOR_SCHEMA = cerberus_schema(EksSpec)
