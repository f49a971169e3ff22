"""Generate an image with OpenAI's SDK, and change it."""

import base64
import os
from pathlib import Path

import openai

SERVICE = os.environ.get("SERVICE", "http://127.0.0.1:3000")
client = openai.OpenAI(base_url=f"{SERVICE}/v1", api_key=os.environ.get("SD_KEY", "none"))

made = client.images.generate(prompt="a red circle on a blue background", size="128x128")
Path("made.png").write_bytes(base64.b64decode(made.data[0].b64_json))

with open("made.png", "rb") as image:
    changed = client.images.edit(image=image, prompt="a green square", extra_body={"seed": 1})
Path("changed.png").write_bytes(base64.b64decode(changed.data[0].b64_json))
