"""A process that serves imports what it needs, generates the same, and can import the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from tests.test_layering import ROOT

KINDS = ("sd1", "flux-dev")
SETTINGS = {"precision": "fp32", "threads": 1}
PARAMETERS = {"prompt": "a castle", "num_inference_steps": 2, "seed": 3, "height": 64, "width": 64}
#: what a start of any model leaves out
UNUSED = {
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.tensor",
    "torchao",
    "peft",
    "scipy.stats._stats_py",
    "scipy.integrate._ode",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.models.transformers.transformer_wan",
    "diffusers.models.unets.unet_1d",
}

START = f"""
import sys
import numpy as np
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings

def generate(model, **further):
    runnable = StableDiffusionRunnable(Settings(model=model, **{SETTINGS}))
    runnable.start()
    result = runnable.txt2img(TextToImage(**{{**{PARAMETERS}, **further}}))
    runnable.close()
    return np.asarray(result.images[0].image)
"""


def run(code: str, *arguments: str) -> str:
    """Run code in a process of its own, as a host starts a model in one."""
    command = [sys.executable, "-c", START + code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_start_leaves_out_what_it_does_not_need(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    code = """
for model in sys.argv[2:]:
    np.save(f"{sys.argv[1]}/{model.split('/')[-1]}", generate(model))
from runnables.extensions.hooks import hooked
with hooked([]):  # as LoRAs do
    print(*sys.modules)
"""
    modules = run(code, str(tmp_path), *(str(tiny_model(kind)) for kind in KINDS)).split()
    assert sorted(UNUSED & set(modules)) == []
    for kind in KINDS:
        runnable = StableDiffusionRunnable(Settings(model=str(tiny_model(kind)), **SETTINGS))
        runnable.start()
        try:
            here = np.asarray(runnable.txt2img(TextToImage(**PARAMETERS)).images[0].image, int)
        finally:
            runnable.close()
        assert np.abs(np.load(tmp_path / f"{kind}.npy") - here).max() <= 1


def test_what_was_left_out_is_imported_when_it_is_asked_for(
    tiny_model: Callable[[str], Path],
) -> None:
    code = """
generate(sys.argv[1])
assert generate(sys.argv[1], scheduler="lms").any()  # scipy.integrate
import torch, scipy.stats, torchao
import transformers.models
from diffusers.models.transformers import WanTransformer3DModel
from diffusers.models.unets import UNet1DModel
assert scipy.stats.beta.ppf(0.5, 1, 1) == 0.5
assert {WanTransformer3DModel.__module__, UNet1DModel.__module__} <= sys.modules.keys()
assert transformers.models.bert.BertModel is transformers.BertModel
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
"""
    run(code, str(tiny_model("sd1")))


@pytest.mark.parametrize(
    ("setting", "module"),
    [({"compile": "regional"}, "torch._dynamo"), ({"quantize": "unet:int8"}, "torchao")],
)
def test_what_a_setting_needs_is_not_left_out(setting: dict[str, str], module: str) -> None:
    code = f"""
from runnables import imports
settings = Settings(**{setting})
with imports.trimmed(compiles=settings.compile != "off", quantizes=bool(settings.quantize)):
    from diffusers.utils import is_torchao_available
print({module!r} in sys.modules, is_torchao_available())
"""
    assert run(code).split() == ["True", str(module == "torchao")]
