"""Receive the webhook of a job, and check its signature (pip install standardwebhooks).

The service needs the same SD_WEBHOOK_SECRET, and SD_FETCH_INSECURE=true, as this receiver has no
TLS. A secret of your own: echo "whsec_$(openssl rand -base64 32)"
"""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests
from standardwebhooks import Webhook, WebhookVerificationError

SERVICE = os.environ.get("SERVICE", "http://127.0.0.1:3000")
WEBHOOK = Webhook(os.environ["SD_WEBHOOK_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    """Takes one webhook."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = WEBHOOK.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_error(401)
            return
        self.send_response(204)
        self.end_headers()
        print("job", event["data"]["id"], event["data"]["state"])


with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
    wanted = {
        "task": "txt2img",
        "parameters": {"prompt": "a red circle on a blue background"},
        "webhook": f"http://127.0.0.1:{receiver.server_port}/",
    }
    requests.post(f"{SERVICE}/jobs", json=wanted, timeout=30).raise_for_status()
    receiver.handle_request()
