"""Accuracy of HASHI with a tumour CNN on annotated slides, and agreement with a dense map of the same network.

Dice is that of the tumour mask that prediction uses and the annotation, both inside usable tissue; "whole" also counts
the annotation outside it (blurred, inked or pale); "all tissue" is the Dice of a program that calls all usable tissue
tumour, without which the others say little. Agreement is the share of usable tissue where the adaptive map and a
dense map by the same network (a point every `--step` mask px) agree.

Run: python -m experiments.tumour_maps WEIGHTS MANIFEST [--dense] [--limit 12] [--out FILE.md]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Config, load_config
from he2her2.files import atomic
from he2her2.geometry import Mask, Size, TileGrid, l0_from_mask
from he2her2.manifest import SlideRow, read_manifest
from he2her2.method import Segmentation, infer, native_mpp, segment_slide, tumour_threshold
from he2her2.models import Engine, load_cnn, softmax
from he2her2.models.encoders.cnn import STRIDED_TILE_CNN
from he2her2.preprocessing import read_annotation
from he2her2.slides import Slide, open_slide
from he2her2.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Found:
    """Result of one slide.

    Attributes:
        row: The slide.
        dice: Dice of tumour and annotation, in usable tissue.
        whole: Dice of tumour and the whole annotation.
        all_tissue: Dice of all usable tissue and annotation, in usable tissue.
        samples: Number of points that HASHI sampled.
        agreement: Share of agreement with the dense map; None without a dense map.
    """

    row: SlideRow
    dice: float
    whole: float
    all_tissue: float
    samples: int
    agreement: float | None


def dice(one: Mask, other: Mask) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def judge(row: SlideRow, engine: Engine, config: Config, step: int | None) -> Found:
    """Find a slide's tumour and compare it with its annotation."""
    assert row.annotations is not None
    with open_slide(row.path, mpp=row.mpp) as slide:
        found = segment_slide(slide, STRIDED_TILE_CNN.input, config, tumour_cnn=engine)
        assert found.sampling is not None
        height, width = found.tissue.shape
        drawn = read_annotation(row.annotations)
        truth = drawn.mask(Size(width, height), found.px_l0, slide.size_l0, slide.bounds_origin_l0)
        agreement = None if step is None else _agreement(slide, found, engine, config, step)
    inside = truth & found.usable
    dices = dice(found.tumour, inside), dice(found.tumour, truth), dice(found.usable, inside)
    return Found(row, *dices, len(found.sampling.points), agreement)


def _agreement(slide: Slide, found: Segmentation, engine: Engine, config: Config, step: int) -> float:
    """Share of usable tissue where both maps agree, at the points of the dense map."""
    assert found.sampling is not None
    rows, columns = np.nonzero(found.usable)
    on_grid = (rows % step == 0) & (columns % step == 0)
    centres = np.stack([columns[on_grid], rows[on_grid]], axis=1) + 0.5
    probability = score_points(slide, centres, found.px_l0, engine, config)
    adaptive = found.sampling.map[rows[on_grid], columns[on_grid]]
    threshold = tumour_threshold(engine.card, config.adaptive)
    return float(((probability >= threshold) == (adaptive >= threshold)).mean())


def score_points(
    slide: Slide, centres: NDArray[np.float64], px_l0: float, engine: Engine, config: Config
) -> NDArray[np.float64]:
    """Probability of tumour at (n, 2) centres in mask px."""
    spec = engine.card.input
    mpp = native_mpp(slide, spec, config.tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    origins = np.rint(l0_from_mask(centres, px_l0) - side_l0 / 2).astype(np.int64)
    readable, logits = infer(slide, TileGrid(origins, side_l0, spec.side_px, mpp), engine, config.runtime)
    assert len(readable) == len(centres)
    return softmax(logits)[:, 1]


def report(found: Sequence[Found]) -> list[str]:
    """Format the figures as Markdown, by site."""
    columns = (
        "slides",
        "n",
        "Dice (95 %)",
        "Dice, all tissue",
        "Dice, whole annotation",
        "worst",
        "samples",
        "agreement with a dense map",
    )
    lines = [f"| {' | '.join(columns)} |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    sites = sorted({str(slide.row.site) for slide in found})
    return lines + [_line(site, [slide for slide in found if str(slide.row.site) == site]) for site in sites]


def _line(site: str, found: Sequence[Found]) -> str:
    agreed = [slide.agreement for slide in found if slide.agreement is not None]
    cells = [
        site,
        str(len(found)),
        _mean([slide.dice for slide in found], found),
        _mean([slide.all_tissue for slide in found], found),
        _mean([slide.whole for slide in found], found),
        f"{min(slide.dice for slide in found):.3f}",
        f"{np.mean([slide.samples for slide in found]):.0f}",
        _mean(agreed, found) if agreed else "not asked",
    ]
    return f"| {' | '.join(cells)} |"


def _mean(values: Sequence[float], found: Sequence[Found]) -> str:
    figures = np.array(values)
    mean: Estimate = mean_interval(figures, [slide.row.patient_id for slide in found])
    return f"{mean.value:.3f} ({mean.low:.3f}-{mean.high:.3f})"


def main() -> None:
    """Evaluate the annotated slides of a manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a folder with tumour_cnn/")
    parser.add_argument("manifest", type=Path, nargs="+")
    parser.add_argument("--dense", action="store_true", help="compare with a dense map too")
    parser.add_argument("--step", type=int, default=2, help="mask px between the dense map's points")
    parser.add_argument("--limit", type=int, help="judge so many slides of each manifest")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="key=value, as for predict")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = load_config(overrides=arguments.settings)
    engine = load_cnn(arguments.weights, "tumour_cnn", config)
    rows = [
        row
        for path in arguments.manifest
        for row in read_manifest(path).select(stain="HE")[: arguments.limit]
        if row.annotations is not None
    ]
    work = partial(judge, engine=engine, config=config, step=arguments.step if arguments.dense else None)
    text = "\n".join(report([work(row) for row in rows]))
    print(text)
    if arguments.out:
        with atomic(arguments.out) as draft:
            draft.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
