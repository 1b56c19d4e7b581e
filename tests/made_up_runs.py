"""Predict runs that nobody predicted: folders with the files of `he2her2 predict`, for tests of what reads them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from he2her2.config import Config
from he2her2.evaluation import Cases
from he2her2.geometry import Size, TileGrid
from he2her2.models import load_aggregator, top_tiles
from he2her2.results import ScoredTiles, result_to_record
from he2her2.results.notes import OperatingPointNote
from he2her2.results.slide_result import Areas, ColourStatistics, Counts, QualityFindings
from he2her2.results.tiles_h5 import write_tiles
from tests.made_up_bags import bag_of_scores, logits_of_scores
from tests.made_up_results import made_up_her2, made_up_result

QUICK = replace(Config(), selection=replace(Config().selection, n_tiles=12))
"""The default settings, with 12 tiles a slide in place of 300."""

SIDE_L0 = 256


@dataclass(frozen=True)
class MadeUpSlide:
    """One slide of a made-up run and its row of the manifest; a slide without probability was not predicted."""

    slide_id: str
    patient_id: str = ""
    status: str = ""
    ihc_score: str = ""
    site: str = ""
    split: str = "test"
    stain: str = "HE"
    ish: str = ""
    probability: float | None = None
    failure: str = ""
    size: int = 40_000
    tissue_mm2: float = 30.0
    colour: tuple[float, float, float] = (200.0, 150.0, 190.0)
    pen_share: float = 0.0
    scores: np.ndarray | None = field(default=None, compare=False)
    """(h, w) of its tiles, for tiles.h5."""


def write_run(
    folder: Path,
    slides: Sequence[MadeUpSlide],
    *,
    config: Config = QUICK,
    notices: Sequence[str] = (),
    threshold: float = 0.5,
    operating_point: OperatingPointNote | None = None,
    **description,
) -> Path:
    """Write `run.json`, the tables, and the records of the slides that have a probability."""
    folder.mkdir(parents=True)
    said = {"config": asdict(config), "digest": "made up", "weights": [], "versions": {"he2her2": "0"}} | description
    (folder / "run.json").write_text(json.dumps(said))
    rows = []
    for slide in slides:
        if slide.probability is None:
            continue
        rows.append(
            {
                "slide_id": slide.slide_id,
                "path": f"{slide.slide_id}.tif",
                "status": "positive" if slide.probability >= threshold else "negative",
                "probability": slide.probability,
                "threshold": threshold,
                "tile_score": "" if slide.scores is None else _tile_score(slide.scores, config),
                "notices": "; ".join(notices),
            }
        )
        _write_slide(folder / "slides" / slide.slide_id, slide, operating_point)
    _write_csv(folder / "predictions.csv", rows)
    failed = [slide for slide in slides if slide.failure]
    _write_csv(
        folder / "failures.csv",
        [{"slide_id": s.slide_id, "path": "", "stage": "tissue", "reason": s.failure, "remedy": ""} for s in failed],
        ("slide_id", "path", "stage", "reason", "remedy"),
    )
    return folder


def write_labels(path: Path, slides: Sequence[MadeUpSlide]) -> Path:
    """Write the manifest of the slides."""
    rows = [
        {
            "slide_id": s.slide_id, "path": f"{s.slide_id}.tif", "patient_id": s.patient_id or s.slide_id,
            "stain": s.stain, "ihc_score": s.ihc_score, "ish": s.ish, "her2_status": s.status, "site": s.site,
            "split": s.split,
        }
        for s in slides
    ]  # fmt: skip
    _write_csv(path, rows)
    return path


def _write_slide(folder: Path, slide: MadeUpSlide, point: OperatingPointNote | None) -> None:
    folder.mkdir(parents=True)
    per_score = [5, 5, 5, 5]
    if slide.scores is not None:
        per_score = np.bincount(np.rint(slide.scores).astype(int).ravel(), minlength=4).tolist()
    assert slide.probability is not None
    result = made_up_result(
        slide_id=slide.slide_id,
        her2=replace(made_up_her2(slide.probability, per_score), operating_point=point),
        slide=replace(made_up_result().slide, width=slide.size, height=slide.size),
        quality=QualityFindings(slide.pen_share, 0.0, left_out=True),
        colour=ColourStatistics(slide.colour, (20.0, 25.0, 22.0)),
        area_mm2=Areas(slide.tissue_mm2, slide.tissue_mm2, slide.tissue_mm2 / 2),
        counts=Counts(0, tiles_without_overlap=round(slide.tissue_mm2 * 100)),
    )
    (folder / "prediction.json").write_text(json.dumps(result_to_record(result)))
    if slide.scores is not None:
        height, width = slide.scores.shape
        y, x = np.divmod(np.arange(slide.scores.size), width)
        grid = TileGrid(np.stack([x, y], axis=1) * SIDE_L0, float(SIDE_L0), 256, 0.25)
        scores = slide.scores.ravel().astype(float)
        none = np.zeros(scores.size)
        tiles = ScoredTiles(grid, scores, logits_of_scores(scores), none.astype(bool), none)
        size = Size(width * SIDE_L0, height * SIDE_L0)
        write_tiles(folder / "tiles.h5", tiles, slide_id=slide.slide_id, size_l0=size, mpp_l0=0.25, overlap_px=0)


def _tile_score(scores: np.ndarray, config: Config) -> str:
    flat = scores.ravel().astype(float)
    chosen = np.sort(np.floor(flat[top_tiles(flat, config.selection)] + 0.5))
    return ("0", "1+", "2+", "3+")[int(chosen[(len(chosen) - 1) // 2])]


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def decided_by(slide: MadeUpSlide, config: Config = QUICK, weights: str = "untrained:0") -> MadeUpSlide:
    """The slide with the probability that an aggregator makes of its tiles."""
    assert slide.scores is not None
    bag = bag_of_scores(slide.scores.ravel(), config.scoring.beta)
    return replace(slide, probability=round(load_aggregator(weights, config)(bag).probability, 6))


def made_up_cases(
    n: int,
    *,
    share: float = 0.4,
    gap: float = 1.0,
    seed: int = 0,
    sites: Sequence[str] = ("a",),
    slides_a_patient: int = 1,
    threshold: float = 0.5,
) -> Cases:
    """Patients whose probabilities differ by `gap` standard deviations between the classes."""
    rng = np.random.default_rng(seed)
    owner = np.arange(n) // slides_a_patient
    truth = (rng.permutation(int(owner[-1]) + 1) < share * (owner[-1] + 1))[owner]
    probability = 1 / (1 + np.exp(-(rng.normal(size=n) + gap * (truth - 0.5))))
    ids, patients = (np.array([f"{kind}{k:05d}" for k in which]) for kind, which in (("s", range(n)), ("p", owner)))
    true_score = np.where(truth, rng.choice([2, 3], n), rng.choice([0, 1, 2], n))
    return Cases(
        "slide" if slides_a_patient > 1 else "patient",
        ids,
        patients if slides_a_patient > 1 else ids,
        rng.choice(np.array(sites), n),
        truth,
        probability,
        probability >= threshold,
        true_score,
        np.clip(true_score + rng.integers(-1, 2, n), 0, 3),
        threshold,
    )
