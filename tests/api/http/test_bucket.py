"""`response_format=url` with a bucket: the image is there, and its address opens it.

moto stands in for S3. It checks neither signatures nor expiry, so what the address says is compared
with what S3 asks for: SigV4, the bucket's own region, and the seconds of the setting.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import ValidationError
from starlette.testclient import TestClient

from api.app import Api
from api.http.bucket import Bucket
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

NAME = "images-of-ours"
ASK = {"prompt": "x", "n": 2, "num_inference_steps": 1, "response_format": "url"}


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "local")
        patch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(
            Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        yield client
    server.stop()


def served(start: Callable[..., StableDiffusionRunnable], where: str) -> TestClient:
    runnable = start("sd1", urls_s3=where, url_expiry_s=60)
    return TestClient(Api(runnable).app(), raise_server_exceptions=False)


def test_images_lie_in_the_bucket_and_their_addresses_open_them(
    s3: Any, start: Callable[..., StableDiffusionRunnable]
) -> None:
    client = served(start, f"s3://{NAME}/some/where/")
    answer = client.post("/v1/images/generations", json=ASK)
    assert answer.status_code == 200, answer.text
    addresses = [one["url"] for one in answer.json()["data"]]
    stored = s3.list_objects_v2(Bucket=NAME)["Contents"]
    keys = {f"/{NAME}/{one['Key']}" for one in stored}
    assert {urlsplit(address).path for address in addresses} == keys
    assert len(keys) == 2
    assert all(key.startswith(f"/{NAME}/some/where/") for key in keys)
    for address in addresses:
        with urllib.request.urlopen(address) as image:
            assert image.headers["content-type"] == "image/png"
            assert image.read().startswith(b"\x89PNG")


def test_the_address_is_one_of_the_region_and_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    bucket = Bucket(f"s3://{NAME}", 90)
    monkeypatch.setattr(bucket._s3, "put_object", lambda **sent: None)
    address = urlsplit(bucket.keep(b"image", "webp"))
    query = parse_qs(address.query)
    assert address.scheme == "https"
    assert address.netloc == f"{NAME}.s3.eu-west-1.amazonaws.com"
    assert address.path.count("/") == 1
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["90"]
    assert "/eu-west-1/s3/aws4_request" in query["X-Amz-Credential"][0]


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_503(start: Callable[..., StableDiffusionRunnable]) -> None:
    client = served(start, "s3://no-such-bucket/x")
    answer = client.post("/v1/images/generations", json=ASK)
    assert answer.status_code == 503
    assert answer.json()["error"]["param"] == "response_format"
    assert int(answer.headers["retry-after"]) >= 1
    plain = client.post("/v1/images/generations", json={**ASK, "response_format": "b64_json"})
    assert plain.status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"urls_s3": "images-of-ours"},
        {"urls_s3": "s3://Images/x"},
        {"urls_s3": "s3://images-of-ours", "url_expiry_s": 8 * 24 * 3600},
    ],
)
def test_a_setting_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**wrong)
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("urls_s3",)
