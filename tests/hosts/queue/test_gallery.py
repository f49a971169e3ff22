"""The gallery shows every result of a prefix, with its parameters, and runs nothing of theirs."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from typing import Any

import boto3
import pytest
from moto import mock_aws

from hosts.queue import gallery
from hosts.queue.completion import Manifest

BUCKET = "results-of-ours"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


def put(s3: Any, id: str, prefix: str = "out", **fields: Any) -> None:
    key = f"{prefix}/{id}/{id}-0"
    made = Manifest(
        id=id,
        runtime="sd15",
        image_url=[f"s3://{BUCKET}/{key}-0.png"],
        output_url=f"s3://{BUCKET}/{key}.out",
        **{"status": "completed", **fields},
    )
    s3.put_object(Bucket=BUCKET, Key=f"{key}.out", Body=made.model_dump_json().encode())
    s3.put_object(Bucket=BUCKET, Key=f"{key}-0.png", Body=b"png")


def test_images_are_linked_beside_their_parameters(s3: Any) -> None:
    put(s3, "a", parameters={"prompt": "a <b>sun</b>", "steps": 30})
    put(s3, "b", status="failed", error="<script>alert(1)</script>")
    put(s3, "c", prefix="of-others")
    html = gallery.page(s3, BUCKET, "out/")
    assert "2 results" in html and "of-others" not in html
    assert "<script" not in html and "<b>" not in html
    (source,) = [url for url in re.findall(r'src="([^"]+)"', html) if "/out/a/" in url]
    assert "/out/a/a-0-0.png?" in unescape(source) and "Signature=" in source
    assert json.dumps({"prompt": "a <b>sun</b>", "steps": 30}, indent=1) in unescape(html)


def test_it_has_pages(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PAGE", 2)
    for number in range(3):
        put(s3, f"t-{number}", parameters={"prompt": "x"})
    s3.put_object(Bucket=BUCKET, Key="out/bad/bad.out", Body=b"{")
    pages = [gallery.page(s3, BUCKET, "out/", number) for number in range(2)]
    assert ["older" in one for one in pages] == [True, False]
    assert ["newer" in one for one in pages] == [False, True]
    assert sum(one.count("<li>") for one in pages) == 4
    assert sum("is not a manifest" in one for one in pages) == 1


def test_it_is_served_to_this_machine_alone(s3: Any) -> None:
    put(s3, "a")
    serving = gallery.server(s3, BUCKET, "", 0)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{serving.server_port}/"
        assert serving.server_address[0] == "127.0.0.1"
        with urllib.request.urlopen(address) as answer:
            assert "1 results" in answer.read().decode()
        for path in ("etc/passwd", "?page=-1"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)
    finally:
        serving.shutdown()
        serving.server_close()
