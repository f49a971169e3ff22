"""What a program does with the generated package; its argument is the service's address."""

import base64
import io
import sys
import time

from stable_diffusion_client import AuthenticatedClient
from stable_diffusion_client.api.images import img2img, txt2img
from stable_diffusion_client.api.jobs import create_job, get_job, get_job_image
from stable_diffusion_client.api.names import list_models, list_samplers
from stable_diffusion_client.api.openai import create_image
from stable_diffusion_client.api.webui import webui_txt_2_img
from stable_diffusion_client.models import (
    Error,
    GeneratedImages,
    ImageToImage,
    Img2ImgBody,
    Job,
    JobRequest,
    JobRequestTask,
    JobState,
    OpenAIImageRequest,
    OpenAIImages,
    TextToImage,
    TextToImageOutputFormatType0,
    WebUIGeneration,
    WebUIImages,
)
from stable_diffusion_client.types import File

client = AuthenticatedClient(base_url=sys.argv[1], token="none", timeout=300)
PROMPT = "a red circle on a blue background"
JSON = TextToImageOutputFormatType0.JSON

models = list_models.sync(client=client)
assert models and models[0].name == "embedded" and models[0].height == 128
assert "euler_a" in [sampler.name for sampler in list_samplers.sync(client=client) or ()]

wanted = TextToImage(prompt=PROMPT, num_inference_steps=2, seed=1, output_format=JSON)
answer = txt2img.sync(client=client, body=wanted)
assert isinstance(answer, GeneratedImages)
assert answer.images[0].seed == 1
png = base64.b64decode(answer.images[0].image)
assert png.startswith(b"\x89PNG")

wrong = txt2img.sync(client=client, body=TextToImage(prompt="", output_format=JSON))
assert isinstance(wrong, Error) and wrong.detail[0].loc == ["prompt"]

change = ImageToImage.from_dict({**wanted.to_dict(), "strength": 0.5})
parts = Img2ImgBody(img=File(io.BytesIO(png), "a.png", "image/png"), data=change)
assert isinstance(img2img.sync(client=client, body=parts), GeneratedImages)

plain = TextToImage(prompt=PROMPT, num_inference_steps=2)
job = create_job.sync(client=client, body=JobRequest(JobRequestTask.TXT2IMG, plain))
while isinstance(job, Job) and job.state in (JobState.QUEUED, JobState.RUNNING):
    time.sleep(0.2)
    job = get_job.sync(job.id, client=client)
assert isinstance(job, Job) and job.state == JobState.SUCCEEDED
image = get_job_image.sync(job.id, "0", client=client)
assert isinstance(image, File) and len(image.payload.read()) > 1000

images = create_image.sync(client=client, body=OpenAIImageRequest(prompt=PROMPT, n=2))
assert isinstance(images, OpenAIImages) and len(images.data) == 2
webui = webui_txt_2_img.sync(client=client, body=WebUIGeneration(prompt=PROMPT, steps=2))
assert isinstance(webui, WebUIImages) and len(webui.images) == 1
print("used")
