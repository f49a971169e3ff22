"""Request bodies as the reference system's clients send them."""

from __future__ import annotations

from typing import Any

MODEL = "v1-5.safetensors"
LINK = "https://example.com/in.png"


def newer(id: str, kind: str = "text-to-image", **content: Any) -> dict[str, Any]:
    """v1alpha2."""
    return {
        "task": {
            "metadata": {
                "id": id,
                "runtime": "sd15",
                "tasktype": kind,
                "prefix": "output",
                "context": {"userid": "u-1"},
            },
            "content": {
                "alwayson_scripts": {},
                "prompt": "A red circle on a blue background",
                "steps": 2,
                "width": 128,
                "height": 128,
                **content,
            },
        }
    }


def extra(id: str, kind: str = "extra-single-image", **content: Any) -> dict[str, Any]:
    """v1alpha2, of pictures to be enlarged."""
    body = newer(id, kind)
    body["task"]["content"] = {"image_link": LINK, "upscaler_1": "Lanczos", **content}
    return body


def older(id: str, kind: str = "text-to-image", link: str = "", **body: Any) -> dict[str, Any]:
    """v1alpha1."""
    scripts = {
        "task": kind,
        "sd_model_checkpoint": MODEL,
        "id_task": id,
        "uid": "456",
        "save_dir": "outputs",
    }
    return {
        "alwayson_scripts": {**scripts, **({"image_link": link} if link else {})},
        "prompt": "A green square on a white background",
        "steps": 2,
        "width": 128,
        "height": 128,
        **body,
    }
