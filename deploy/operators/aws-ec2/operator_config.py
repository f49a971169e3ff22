"""The names that bentoctl reads: it puts this folder on sys.path and imports this file."""

from sd_aws_ec2.spec import Ec2Spec
from sd_bentoctl.schema import cerberus_schema

OPERATOR_NAME = "aws-ec2"
OPERATOR_MODULE = "sd_aws_ec2"
OPERATOR_DEFAULT_TEMPLATE = "terraform"
OPERATOR_SPEC = Ec2Spec
OPERATOR_SCHEMA = cerberus_schema(Ec2Spec)
