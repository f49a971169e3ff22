"""LiteLLM's calls; the argument is the service's address."""

import base64
import io
import sys

import litellm

BLUE_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGOUc7vOgA0wYRUdtBIA+fEBS+wz"
    "bOIAAAAASUVORK5CYII="
)
here = {"api_base": f"{sys.argv[1]}/v1", "api_key": "none"}
given = {"model": "openai/gpt-image-1", "prompt": "a red circle", **here}

many = litellm.image_generation(n=10, size="64x64", background="transparent", **given)
assert len(many.data) == 10 and many.data[0].b64_json
by_address = {"response_format": "url"}  # LiteLLM itself refuses it as a parameter
(address,) = litellm.image_generation(size="256x256", extra_body=by_address, **given).data
assert address.url.startswith(sys.argv[1])
edited = litellm.image_edit(image=[io.BytesIO(BLUE_PNG)], **given)
assert edited.data[0].b64_json
varied = litellm.image_variation(image=io.BytesIO(BLUE_PNG), model="openai/dall-e-2", **here)
assert varied.data[0].b64_json or varied.data[0].url
print("used")
