"""C2PA manifests (Content Credentials), which say, signed, how an image was made.

For a generated image the manifest says `c2pa.created` with the IPTC source type for images of
generative models (C2PA specification 2.1, section 18.15.2); for an enlarged one it names the image
that was enlarged as its ingredient. Signing is the last step: any later change breaks it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from runnables.errors import ConfigurationError
from runnables.images import codec
from runnables.settings import Settings
from runnables.version import VERSION

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ENHANCED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
GENERATOR = [{"name": "stable-diffusion-service", "version": VERSION}]
CREATED: dict[str, Any] = {
    "claim_generator_info": GENERATOR,
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": GENERATED}]},
        }
    ],
}
#: the image that was enlarged is the ingredient; where it came from is not known here
ENLARGED: dict[str, Any] = {
    "claim_generator_info": GENERATOR,
    "ingredients": [
        {
            "title": "the image that was enlarged",
            "format": "image/png",
            "relationship": "parentOf",
            "label": "source",
        }
    ],
    "assertions": [
        {
            "label": "c2pa.actions.v2",
            "data": {
                "actions": [
                    {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}},
                    {"action": "c2pa.resized", "digitalSourceType": ENHANCED},
                ]
            },
        }
    ],
}


def check(settings: Settings) -> None:
    """Sign a tiny image, so that a wrong certificate stops the start.

    Raises:
        ConfigurationError: Something is wrong with SD_C2PA_CERT or SD_C2PA_KEY.
    """
    if bool(settings.c2pa_cert) != bool(settings.c2pa_key):
        raise ConfigurationError(
            "SD_C2PA_CERT and SD_C2PA_KEY belong together", loc=("SD_C2PA_CERT",)
        )
    try:
        sign(codec.encode(Image.new("RGB", (16, 16)), "png"), "png", settings)
    except Exception as error:
        raise ConfigurationError(
            f"SD_C2PA_CERT: images cannot be signed: {error}", loc=("SD_C2PA_CERT",)
        ) from error


def sign(data: bytes, kind: codec.Format, settings: Settings, *, generated: bool = True) -> bytes:
    """Return the image's file with a signed manifest inside, or as it was without a certificate.

    Args:
        generated: Whether a model made the image; else it was only enlarged.
    """
    if not settings.c2pa_cert or not settings.c2pa_key:
        return data
    import c2pa

    signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            alg=settings.c2pa_alg.encode(),
            sign_cert=Path(settings.c2pa_cert).read_bytes(),
            private_key=Path(settings.c2pa_key).read_bytes(),
            ta_url=settings.c2pa_timestamps.encode() if settings.c2pa_timestamps else None,
        )
    )
    signed = io.BytesIO()
    with signer, c2pa.Builder(json.dumps(CREATED if generated else ENLARGED)) as builder:
        builder.sign(signer, f"image/{kind}", io.BytesIO(data), signed)
    return signed.getvalue()
