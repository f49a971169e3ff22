#!/bin/sh
# Generate an image, and change it.
set -eu
SERVICE=${SERVICE:-http://127.0.0.1:3000}

curl --fail -X POST "$SERVICE/txt2img" -H 'Content-Type: application/json' \
  -d '{"prompt": "a red circle on a blue background", "seed": 1}' --output circle.jpg
curl --fail -X POST "$SERVICE/img2img" -F img=@circle.jpg \
  -F data='{"prompt": "a green square on a blue background", "strength": 0.7}' --output square.jpg
