"""Small slides with something like tissue on them, quick to write and quick to predict on."""

import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from he2her2.config import load_config
from he2her2.models import CNNS, UNTRAINED_NOTICE, Card, aggregator_for
from he2her2.models.aggregators import RankingSpec
from tests.slide_files import SlideSpec, pyramid, write_slide

GLASS = (243, 241, 244)
SIDE = 2048
_DOWNSAMPLES = (1, 4, 16, 32)

WEIGHTS_VARIABLE = "HE2HER2_TEST_WEIGHTS"
"""Names the folder of `write_untrained`, where `conftest` has made one."""

_SETTINGS = ("selection.n_tiles=5", "adaptive.iterations=2", "adaptive.points=20")

QUICK = (
    "--weights", os.environ.get(WEIGHTS_VARIABLE, "untrained:0"), "--threads", "2",
    *(word for setting in _SETTINGS for word in ("--set", setting)),
)  # fmt: skip
"""Options of a prediction in about a second: 34 tiles are enough."""


def write_untrained(folder: Path) -> None:
    """Write the networks of `QUICK` as `untrained:0` draws them: a command that reads them need not load torch."""
    from he2her2.models.export import save_weights  # noqa: PLC0415  loads torch
    from he2her2.models.torch_modules import initial_weights  # noqa: PLC0415  as above

    config = load_config(overrides=_SETTINGS)
    for role, named in (("tumour_cnn", config.networks.tumour_cnn), ("tile_cnn", config.networks.tile_cnn)):
        spec = CNNS[named]
        save_weights(
            folder / role, Card(spec, trained=False, notice=UNTRAINED_NOTICE, seed=0), initial_weights(spec, 0)
        )
    mlp = aggregator_for(config)
    assert isinstance(mlp, RankingSpec)
    ranking = mlp.ranking_of(config.selection, config.scoring)
    card = Card(mlp, trained=False, notice=UNTRAINED_NOTICE, seed=0, ranking=ranking)
    save_weights(folder / "aggregator", card, initial_weights(mlp, 0))


def tissue_pixels(side: int = SIDE, share: float = 0.8, seed: int = 0) -> np.ndarray:
    """(side, side, 3) glass with a square of sharp, stained texture in the middle, `share` of the side wide."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), GLASS, np.uint8)
    wide = int(side * share)
    start = (side - wide) // 2
    cells = Image.new("RGB", (wide, wide), (226, 170, 205))
    draw = ImageDraw.Draw(cells)
    for x, y in rng.integers(0, wide, ((wide // 24) ** 2, 2)):
        r = int(rng.integers(8, 14))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(int(rng.integers(80, 120)), 60, 150), outline=(60, 30, 110))
    grain = rng.integers(-14, 15, (wide, wide, 1))
    pixels[start : start + wide, start : start + wide] = np.clip(np.asarray(cells) + grain, 0, 255)
    return pixels


def write_tissue(path: Path, pixels: np.ndarray | None = None, **spec) -> Path:
    """An Aperio-like slide of 256 px tiles with levels 1, 4, 16 and 32."""
    levels = _usual_levels() if pixels is None else pyramid(pixels, _DOWNSAMPLES)
    return write_slide(path, levels, SlideSpec(**{"tile": 256} | spec))


@cache
def _usual_levels() -> list[np.ndarray]:
    return pyramid(tissue_pixels(), _DOWNSAMPLES)
