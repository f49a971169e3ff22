"""`python -m hosts.queue.gallery s3://bucket/prefix`: a page of results, on this machine.

It reads the bucket with the rights of whoever starts it, and links images by presigned URLs, so the
bucket stays closed. Every view lists the prefix anew.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from api.http import presigned
from hosts.queue import completion
from hosts.queue.completion import Manifest

PAGE = 48
LINK_S = 3600
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Results</title>
<meta name="viewport" content="width=device-width"><style>
body{font:14px system-ui,sans-serif;margin:1rem auto;max-width:80rem;padding:0 1rem}
ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem;list-style:none;padding:0}
li{border:1px solid #8886;border-radius:.5rem;padding:.5rem}
img{width:100%;border-radius:.25rem}pre{white-space:pre-wrap;overflow-wrap:anywhere}
.failed{color:#b00}</style>"""


def page(s3: Any, bucket: str, prefix: str, number: int = 0) -> str:
    """Return the HTML of one page of results, the newest first.

    Args:
        number: of the page, from 0.
    """
    found = sorted(_manifests(s3, bucket, prefix), reverse=True)
    shown = found[number * PAGE : (number + 1) * PAGE]
    items = "".join(_item(s3, bucket, key) for _, key in shown)
    links = [
        f'<a href="?page={other}">{text}</a>'
        for other, text in ((number - 1, "newer"), (number + 1, "older"))
        if 0 <= other * PAGE < len(found)
    ]
    title = f"<h1>{escape(f's3://{bucket}/{prefix}')}: {len(found)} results</h1>"
    return f"{_HEAD}{title}<nav>{' '.join(links)}</nav><ul>{items}</ul>"


def _manifests(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[Any, str]]:
    """When each task of the prefix ended, and the key of its manifest."""
    for part in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in part.get("Contents", []):
            if one["Key"].endswith(".out"):
                yield one["LastModified"], one["Key"]


def _item(s3: Any, bucket: str, key: str) -> str:
    try:
        manifest = completion.load(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ValueError:
        return f'<li><p class="failed">{escape(key)} is not a manifest</p></li>'
    images = "".join(
        f'<a href="{link}"><img loading="lazy" alt="{escape(_prompt(manifest))}" src="{link}"></a>'
        for link in (escape(_link(s3, url)) for url in manifest.image_url)
    )
    about = escape(json.dumps(manifest.parameters, indent=1, ensure_ascii=False))
    error = f'<p class="failed">{escape(manifest.error)}</p>' if manifest.error else ""
    return (
        f"<li>{images}{error}<p>{escape(_prompt(manifest))}</p>"
        f"<small>{escape(manifest.id)}, {escape(manifest.runtime)}, {manifest.status}, "
        f"{escape(manifest.finished)}</small>"
        f"<details><summary>parameters</summary><pre>{about}</pre></details></li>"
    )


def _prompt(manifest: Manifest) -> str:
    return str(manifest.parameters.get("prompt") or "")


def _link(s3: Any, url: str) -> str:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return presigned.address(s3, bucket, key, LINK_S)


def server(s3: Any, bucket: str, prefix: str, port: int) -> ThreadingHTTPServer:
    """Return a server of the page, on the loopback interface alone; it is not started."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            number = parse_qs(address.query).get("page", ["0"])[0]
            if address.path != "/" or not re.fullmatch(r"\d{1,6}", number):
                self.send_error(404)
                return
            body = page(s3, bucket, prefix, int(number)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Serve until Ctrl-C."""
    import boto3

    parser = argparse.ArgumentParser(prog="python -m hosts.queue.gallery", description=__doc__)
    parser.add_argument("place", help="s3://bucket or s3://bucket/prefix")
    parser.add_argument("--port", type=int, default=8090)
    chosen = parser.parse_args()
    found = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", chosen.place)
    if not found:
        parser.error(f"{chosen.place} is no place in S3; write s3://bucket/prefix")
    serving = server(
        boto3.client("s3", config=presigned.CONFIG), found[1], found[2] or "", chosen.port
    )
    print(f"http://127.0.0.1:{serving.server_port}/")
    serving.serve_forever()


if __name__ == "__main__":
    main()
