"""What an unfinished image will look like, for requests that ask to see it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from runnables.engine.decode import to_image
from runnables.extensions.previews import Preview, TinyVae, estimate

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.engine.batch import Batch
    from runnables.engine.row import Row
    from runnables.families.base import Pipeline

logger = logging.getLogger(__name__)


class Previewer:
    """Draws previews with a tiny VAE, or with each model's own linear map, fitted when needed.

    Args:
        tiny_vae: an AutoencoderTiny, for the models of this family.
    """

    def __init__(self, tiny_vae: Any = None, family: str = "") -> None:
        self._tiny = TinyVae(tiny_vae) if tiny_vae is not None else None
        self._family = family
        self._maps: dict[int, Preview] = {}

    def due(self, row: Row, batch: Batch, every: int) -> Image | None:
        """At every n-th step, but not after the last one of a stage, which has its image soon."""
        if row.step in (0, len(row.stage.table)) or row.done % every or row not in batch.rows:
            return None
        try:
            return self.draw(row, batch)
        except Exception:  # a preview must never cost the image
            logger.exception("a preview could not be drawn")
            return None

    def draw(self, row: Row, batch: Batch) -> Image:
        """RGB, of the latents' size; of the image's with a tiny VAE.

        Args:
            row: has just taken a step, its last of this stage not included.
            batch: the one that it took the step in.
        """
        table, step = row.stage.table, row.step - 1
        of_image, of_noise = table.renoise[step].tolist()
        pipeline = row.stage.pipeline
        prediction = pipeline.checkpoint.scheduler_config.get("prediction_type", "epsilon")
        latents = estimate(row.latents, batch.output(row), (of_image, of_noise), prediction)
        return to_image(self._picture(pipeline)(latents))

    def _picture(self, pipeline: Pipeline) -> Callable[[Tensor], Tensor]:
        family = pipeline.checkpoint.family.removesuffix("-refiner")
        if self._tiny is not None and family == self._family:
            return self._tiny
        if pipeline.number not in self._maps:
            self._maps[pipeline.number] = Preview(pipeline)
        return self._maps[pipeline.number]
