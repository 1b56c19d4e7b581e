"""A small cohort of IHC slides, quick to write and quick to learn: the higher the score, the darker the tissue."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from he2her2.config import Config, load_config
from tests.labelled_slides import OVERRIDES
from tests.tissue_slides import GLASS, tissue_pixels, write_tissue

SCORES = ("0", "1+", "2+", "3+")
SIDE = 576
TILE_L0 = 64
N_TILES = 50
"""Of each slide; a tile of the tiny CNN is as wide as a piece of tissue."""

PX_L0 = 32
"""Level-0 px per mask px."""

QUICK = (*OVERRIDES, "quality.apply=false", "tissue.blur_px=1")
"""Settings of the tiny CNN; ink, blur and a smooth border need more tissue than there is here."""

COLUMNS = "slide_id,path,patient_id,stain,ihc_score,split,annotations"


def quick_config(*overrides: str) -> Config:
    """Settings for the tiny CNN."""
    return load_config(overrides=(*QUICK, *overrides))


def scored_pixels(score: str, seed: int) -> np.ndarray:
    """(h, w, 3) tile-sized pieces of tissue on glass, their places drawn from the seed; darker for a higher score."""
    pixels = tissue_pixels(SIDE, share=1.0, seed=seed)
    pixels = (pixels * (1 - 0.2 * SCORES.index(score))).astype(np.uint8)
    n = SIDE // TILE_L0
    there = np.random.default_rng(seed).permutation(n * n).reshape(n, n) < N_TILES
    glass = ~there.repeat(TILE_L0, axis=0).repeat(TILE_L0, axis=1)
    pixels[glass] = GLASS
    return pixels


def write_scored(folder: Path, splits: Sequence[str], scores: Sequence[str] = SCORES, stain: str = "IHC") -> Path:
    """One slide of each score in each of the splits ("" for none; a split may come again), and their manifest."""
    lines = [COLUMNS]
    for i, split in enumerate(splits):
        for score in scores:
            name = f"s{i}-{SCORES.index(score)}"
            write_tissue(folder / f"{name}.svs", scored_pixels(score, len(lines)), codec="zlib")
            lines.append(f"{name},{name}.svs,p-{name},{stain},{score},{split},")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    return manifest


def changed(manifest: Path, old: str, new: str, name: str = "changed.csv") -> Path:
    """A copy of a manifest in the same folder with a text in place of another."""
    text = manifest.read_text("utf-8")
    assert old in text
    copy = manifest.with_name(name)
    copy.write_text(text.replace(old, new), "utf-8")
    return copy


def left_half(path: Path) -> Path:
    """A mask of a slide's left half."""
    mask = np.zeros((SIDE // PX_L0, SIDE // PX_L0), np.uint8)
    mask[:, : SIDE // PX_L0 // 2] = 255
    Image.fromarray(mask).save(path)
    return path
