"""The image repository in Amazon ECR: scanned, encrypted, immutable tags, old images expire."""

from __future__ import annotations

import base64
import json
from typing import Any

KEEP = 10  # images


def lifecycle_policy() -> str:
    """Untagged images go after a day, tagged ones when more than KEEP newer ones are there."""
    untagged = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days"}
    rules = [
        {"rulePriority": 1, "selection": {**untagged, "countNumber": 1}},
        {
            "rulePriority": 2,
            "selection": {
                "tagStatus": "any",
                "countType": "imageCountMoreThan",
                "countNumber": KEEP,
            },
        },
    ]
    return json.dumps({"rules": [{**rule, "action": {"type": "expire"}} for rule in rules]})


def create_repository(repository_name: str, operator_spec: dict[str, Any]) -> tuple[str, str, str]:
    """Create the repository, or take the one that is there. Returns (url, user, password)."""
    client = _client(operator_spec)
    try:
        made = client.create_repository(
            repositoryName=repository_name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration=_encryption(operator_spec),
        )
        url = made["repository"]["repositoryUri"]
    except client.exceptions.RepositoryAlreadyExistsException:
        found = client.describe_repositories(repositoryNames=[repository_name])
        url = found["repositories"][0]["repositoryUri"]
    client.put_lifecycle_policy(
        repositoryName=repository_name, lifecyclePolicyText=lifecycle_policy()
    )
    token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, password = base64.b64decode(token).decode().split(":", 1)
    return url, user, password


def delete_repository(repository_name: str, operator_spec: dict[str, Any]) -> None:
    """Delete the repository with its images; none there is no error."""
    client = _client(operator_spec)
    try:
        client.delete_repository(repositoryName=repository_name, force=True)
    except client.exceptions.RepositoryNotFoundException:
        return


def _encryption(spec: dict[str, Any]) -> dict[str, str]:
    key = spec.get("kms_key_arn")
    return {"encryptionType": "KMS", "kmsKey": key} if key else {"encryptionType": "AES256"}


def _client(spec: dict[str, Any]) -> Any:
    import boto3  # where it is used: generating needs no AWS SDK

    return boto3.client("ecr", region_name=spec["region"])
