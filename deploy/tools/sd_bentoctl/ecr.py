"""The image repository in Amazon ECR: scanned, encrypted, with immutable tags."""

from __future__ import annotations

import base64
import json
import re
from typing import Any


def lifecycle_policy() -> str:
    """Untagged images go after a day. Tagged ones stay: one of them may be what is deployed."""
    selection = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days"}
    rule = {"rulePriority": 1, "selection": {**selection, "countNumber": 1}}
    return json.dumps({"rules": [{**rule, "action": {"type": "expire"}}]})


def has(image: str) -> bool:
    """Return whether ECR has this image, by its tag; False for another registry's."""
    found = re.fullmatch(r"\d+\.dkr\.ecr\.([a-z0-9-]+)\.[^/]+/([^:@]+):([^:@/]+)", image)
    if found is None:
        return False
    region, repository, tag = found.groups()
    client = _client({"region": region})
    try:
        client.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except client.exceptions.ImageNotFoundException:
        return False
    return True


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
