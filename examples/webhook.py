"""Receive the webhook of a job, and check its signature.

The service needs the same SD_WEBHOOK_SECRET, and SD_FETCH_INSECURE=true, as this receiver has no
TLS.
"""

import hashlib
import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests

SERVICE = os.environ.get("SERVICE", "http://127.0.0.1:3000")
SECRET = os.environ.get("SD_WEBHOOK_SECRET", "a-secret-of-both-sides")


class Receiver(BaseHTTPRequestHandler):
    """Takes one webhook."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        right = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        genuine = hmac.compare_digest(right, self.headers.get("X-Signature-256", ""))
        self.send_response(204 if genuine else 401)
        self.end_headers()
        if genuine:
            job = json.loads(body)
            print("job", job["id"], job["state"])


with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
    wanted = {
        "task": "txt2img",
        "parameters": {"prompt": "a red circle on a blue background"},
        "webhook": f"http://127.0.0.1:{receiver.server_port}/",
    }
    requests.post(f"{SERVICE}/jobs", json=wanted, timeout=30).raise_for_status()
    receiver.handle_request()
