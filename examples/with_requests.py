"""Generate two images with requests, and see what the service says of a mistake."""

import base64
import os
from pathlib import Path

import requests

SERVICE = os.environ.get("SERVICE", "http://127.0.0.1:3000")
wanted = {
    "prompt": "a red circle on a blue background",
    "num_images_per_prompt": 2,
    "output_format": "json",
}

answer = requests.post(f"{SERVICE}/txt2img", json=wanted, timeout=300)
answer.raise_for_status()
for i, image in enumerate(answer.json()["images"]):
    Path(f"image-{i}.png").write_bytes(base64.b64decode(image["image"]))
    print("seed", image["seed"])

wrong = requests.post(f"{SERVICE}/txt2img", json={**wanted, "width": 100}, timeout=300)
print(wrong.status_code, wrong.json()["error"])
