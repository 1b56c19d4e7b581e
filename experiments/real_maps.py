"""Tumour maps of the three real slides without a mask, drawn without their pixels: docs/real-tissue-maps.png.

Tissue is pale grey, the network's probability of invasive tumour goes from white to violet, what is called tumour is
outlined. OS-1 is a crop of a carcinoma, TCGA-CR-7395 a frozen squamous cell carcinoma whose file states no
scale (1 µm/px by the size of its lymphocytes, about 7 px), CMU-1 is skin without any.

Run: python -m experiments.real_maps [--data ../shared/data] [--out docs/real-tissue-maps.png]
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from he2her2.config import load_config
from he2her2.method import Segmentation, segment_slide
from he2her2.models import load_cnn
from he2her2.slides import open_slide

REPOSITORY = Path(__file__).resolve().parents[1]
_MM = 1000.0


class RealSlide(NamedTuple):
    """A slide, its µm per pixel where its file states none, and what it is."""

    file: str
    mpp: float | None
    what: str


SLIDES = (
    RealSlide("OS-1-detail.ome.tif", None, "OS-1, carcinoma (crop)"),
    RealSlide("tcga-cr-7395-01a-01-ts1.svs", 1.0, "TCGA-CR-7395, frozen squamous cell carcinoma"),
    RealSlide("CMU-1-Small-Region.svs", None, "CMU-1, skin: no tumour"),
)


def main() -> None:
    """Find the tumour of each and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = REPOSITORY / os.environ.get("HE2HER2_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "real-tissue-maps.png")
    arguments = parser.parse_args()
    config = load_config()
    tumour_cnn, tile_cnn = (load_cnn("bundled", role, config) for role in ("tumour_cnn", "tile_cnn"))
    figure = Figure(figsize=(11, 4), layout="constrained")
    for real, axes in zip(SLIDES, figure.subplots(1, len(SLIDES)), strict=True):
        with open_slide(arguments.data / "slides" / real.file, mpp=real.mpp) as slide:
            found = segment_slide(slide, tile_cnn.card.input, config, tumour_cnn=tumour_cnn)
        area = (found.px_mpp / _MM) ** 2
        tumour, usable = found.tumour.sum() * area, found.usable.sum() * area
        print(f"{real.what}: {tumour:.3f} of {usable:.3f} mm² called tumour")
        _draw(axes, found)
        axes.set_title(f"{real.what}\n{tumour:.2g} of {usable:.2g} mm² called tumour", fontsize=9)
    figure.savefig(arguments.out, dpi=110)


def _draw(axes: Axes, found: Segmentation) -> None:
    """Tissue, map and outline of the tumour, on axes in mm."""
    assert found.sampling is not None
    h, w = found.tissue.shape
    side = found.px_mpp / _MM
    extent = (0, w * side, h * side, 0)
    axes.imshow(np.where(found.tissue, 0.9, 1.0), cmap="gray", vmin=0, vmax=1, extent=extent)
    probability = np.ma.masked_where(~found.usable, found.sampling.map)
    axes.imshow(probability, cmap="Purples", vmin=0, vmax=1, extent=extent)
    across, down = (np.arange(n) * side + side / 2 for n in (w, h))
    axes.contour(across, down, found.tumour, levels=[0.5], colors="#400060", linewidths=0.8)
    axes.set_xlabel("mm")


if __name__ == "__main__":
    main()
