"""More than 100 fields and values per API: never 500 or above, and a refusal names the field.

The names are those that clients really send, the values those that people really try: right ones,
of the wrong type, at and past the limits.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from PIL import Image
from starlette.testclient import TestClient

from api.app import Api
from runnables.runnable import StableDiffusionRunnable
from tests.long import LONG

#: values that are tried in every field
VALUES: tuple[Any, ...] = (
    None,
    "",
    "x",
    0,
    1,
    -1,
    2**64,
    0.5,
    True,
    [],
    [1],
    {},
    {"a": 1},
    "\udc80",
)
OPENAI = (
    "model prompt n size response_format output_format stream partial_images background quality "
    "style moderation output_compression complexity input_fidelity user safety_identifier "
    "frame_count markup svg negative_prompt num_inference_steps guidance_scale seed scheduler "
    "strength loras controlnets embeddings hires width height priority deadline_s"
)
WEBUI = (
    "prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h "
    "seed_resize_from_w sampler_name scheduler sampler_index batch_size n_iter steps cfg_scale "
    "width height restore_faces tiling do_not_save_samples do_not_save_grid eta denoising_strength "
    "s_min_uncond s_churn s_tmax s_tmin s_noise override_settings "
    "override_settings_restore_afterwards refiner_checkpoint refiner_switch_at "
    "disable_extra_networks firstpass_image comments enable_hr firstphase_width firstphase_height "
    "hr_scale hr_upscaler hr_second_pass_steps hr_resize_x hr_resize_y hr_checkpoint_name "
    "hr_sampler_name hr_scheduler hr_prompt hr_negative_prompt force_task_id script_name "
    "script_args send_images save_images alwayson_scripts infotext init_images mask mask_blur "
    "inpainting_fill inpaint_full_res inpaint_full_res_padding inpainting_mask_invert "
    "initial_noise_multiplier resize_mode image_cfg_scale include_init_images"
)
#: what an image that is given makes of the fields; the others are read by the same code
WEBUI_IMAGES = (
    "prompt denoising_strength steps width height batch_size sampler_name override_settings "
    "script_args alwayson_scripts init_images mask mask_blur inpainting_fill inpaint_full_res "
    "inpaint_full_res_padding inpainting_mask_invert initial_noise_multiplier resize_mode "
    "image_cfg_scale include_init_images"
)
NATIVE = (
    "prompt negative_prompt model prompt_syntax clip_skip loras controlnets embeddings "
    "guidance_scale guidance_rescale guidance_interval deep_cache_interval skip_layer_guidance "
    "num_inference_steps seed scheduler num_images_per_prompt safety_check priority deadline_s "
    "output_format height width hires strength unknown"
)


JOB = "task parameters id webhook priority deadline_s unknown"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(
    start: Callable[..., StableDiffusionRunnable], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("fields")
    api = Api(start("sd1", max_pixels=64 * 64, jobs_dir=str(folder), request_timeout_s=60))
    with TestClient(api.app(), raise_server_exceptions=False) as client:
        api.start()
        yield client
        api.stop()


def posted(client: TestClient, path: str, body: dict[str, Any]) -> Response:
    """Send JSON as it is, half surrogates included."""
    content = json.dumps(body)
    headers = {"content-type": "application/json"}
    return client.post(path, content=content, headers=headers)


def edited(client: TestClient, fields: dict[str, Any]) -> Response:
    """Send an edit, whose fields are text."""
    data = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
        if value not in (None, "\udc80")
    }
    files = {"image": ("a.png", png(), "image/png")}
    return client.post("/v1/images/edits", data=data, files=files)


def check(send: Callable[[dict[str, Any]], Response], fields: str, base: dict[str, Any]) -> None:
    """Try every field with every value. Of `deadline_s` some cannot be met, which is 504."""
    found = {
        (name, repr(value)): send({**base, name: value})
        for name in fields.split()
        for value in VALUES
    }
    assert len(found) >= 100
    refused = {case: answer for case, answer in found.items() if answer.status_code >= 300}
    wrong = {
        case: f"{answer.status_code} {answer.text[:300]}"
        for case, answer in refused.items()
        if (answer.status_code >= 500 and case[0] != "deadline_s") or case[0] not in answer.text
    }
    assert not wrong, "\n".join(f"{case}: {text}" for case, text in wrong.items())
    print(f"{len(found)} cases: {len(found) - len(refused)} answered, {len(refused)} refused")


QUICK = {"num_inference_steps": 1, "width": 16, "height": 16}


def test_openai(client: TestClient) -> None:
    base = {"prompt": "x", "num_inference_steps": 1, "size": "16x16"}
    check(lambda body: posted(client, "/v1/images/generations", body), OPENAI, base)


def test_openai_edits(client: TestClient) -> None:
    base = {"prompt": "x", "num_inference_steps": 2, "size": "16x16"}
    check(lambda body: edited(client, body), OPENAI, base)


def test_webui(client: TestClient) -> None:
    base = {"prompt": "x", "steps": 1, "width": 16, "height": 16}
    check(lambda body: posted(client, "/sdapi/v1/txt2img", body), WEBUI, base)


def test_webui_img2img(client: TestClient) -> None:
    image = base64.b64encode(png()).decode()
    base = {"prompt": "x", "steps": 2, "width": 16, "height": 16, "init_images": [image]}
    fields = WEBUI if LONG else WEBUI_IMAGES  # test_webui tries the others
    check(lambda body: posted(client, "/sdapi/v1/img2img", body), fields, base)


def test_jobs(client: TestClient) -> None:
    """The fields of the parameters lie below those of the job."""

    def send(body: dict[str, Any]) -> Response:
        job = {name: body.pop(name) for name in JOB.split() if name in body}
        return posted(client, "/jobs", {"task": "txt2img", "parameters": body, **job})

    check(send, f"{JOB} {NATIVE}", {"prompt": "x", **QUICK})


def test_native(client: TestClient) -> None:
    base = {"prompt": "x", **QUICK}
    check(lambda body: posted(client, "/txt2img", body), NATIVE, base)
