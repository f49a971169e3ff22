"""Submit a job, follow its progress as server-sent events, and get its image."""

import json
import os
from pathlib import Path

import requests

SERVICE = os.environ.get("SERVICE", "http://127.0.0.1:3000")
wanted = {"task": "txt2img", "parameters": {"prompt": "a red circle on a blue background"}}

job = requests.post(f"{SERVICE}/jobs", json=wanted, timeout=30).json()
events = requests.get(f"{SERVICE}/jobs/{job['id']}/events", stream=True, timeout=300)
kind = ""
for line in events.iter_lines(decode_unicode=True):
    name, _, value = line.partition(": ")
    if name == "event":
        kind = value
    elif name == "data":
        job = json.loads(value)
        print(kind, job["step"], "of", job["steps"])

assert kind == "succeeded", job["error"]
image = requests.get(f"{SERVICE}{job['images'][0]['url']}", timeout=30)
Path("job.jpg").write_bytes(image.content)
