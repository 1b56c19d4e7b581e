"""HER2 signal in the H&E of phantoms: at signal 0 no feature may separate the classes, at 1 the nuclei must.

Small slides, half of them HER2-positive (3+, and 2+ with amplification). A negative
slide is the same at every signal, so it is drawn once.
Every feature's AUC carries a DeLong interval, widened for the number of features (Bonferroni).

Run: python -m experiments.phantom_signal [--slides 200]
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from experiments.phantom_realism import HED_FROM_RGB, nuclear_areas, spectrum
from numpy.typing import NDArray
from scipy import stats

from he2her2.phantom import Painter, PhantomSpec, Window, make_spec

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
SIGNALS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEGATIVE = (("0", None), ("1+", None), ("2+", "negative"))
POSITIVE = (("3+", None), ("2+", "positive"))
FEATURES = (
    "nuclear_area_median",
    "large_nuclei_median",
    "nuclear_area_p90",
    "nuclear_area_spread",
    "nuclei",
    "red",
    "green",
    "blue",
    "haematoxylin_mean",
    "haematoxylin_p95",
    "eosin_mean",
    "eosin_p95",
    "glass_share",
    "spectrum_slope",
    "fine_share",
)
LARGE_UM2 = 25.0
"""Nuclei above this area are not lymphocytes."""

MORPHOLOGY = ("large_nuclei_median", "nuclear_area_p90", "nuclear_area_spread")


def spec_of(k: int, *, positive: bool, signal: float) -> PhantomSpec:
    """Make the settings of the `k`-th patient of a class."""
    score, ish = (POSITIVE if positive else NEGATIVE)[k % (2 if positive else 3)]
    return make_spec(
        seed=2 * k + positive,
        size_px=(1536, 1536),
        tissue_extent=0.6,
        tumour_share=0.7,
        foci=1,
        ihc_score=score,
        ish=ish,
        signal=signal,
        site=("her2sc-like", "brca-like")[k % 2],
    )


def features_of(spec: PhantomSpec) -> NDArray[np.float64]:
    """Measure a slide's features, in the order of `FEATURES`."""
    rgb = Painter.of(spec).pixels(Window(0, 0, *spec.size_px, spec.mpp))[0][..., :3]
    stains = -np.log(np.clip(rgb, 1, 255) / 245.0) @ HED_FROM_RGB
    tissue = rgb.min(axis=2) < 215
    areas = nuclear_areas(rgb, "HE")
    large = areas[areas > LARGE_UM2]
    slope, fine = spectrum(rgb)
    h, e = stains[..., 0][tissue], stains[..., 1][tissue]
    colour = rgb[tissue].mean(axis=0)
    ends = np.percentile(h, 95), e.mean(), np.percentile(e, 95), 1 - tissue.mean(), slope, fine
    return np.array(
        [
            np.median(areas),
            np.median(large),
            np.percentile(areas, 90),
            areas.std(),
            len(areas),
            *colour,
            h.mean(),
            *ends,
        ]
    )


def auc_interval(
    negative: NDArray[np.float64], positive: NDArray[np.float64], confidence: float
) -> tuple[float, float, float]:
    """AUC with its DeLong interval."""
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    auc = float(wins.mean())
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    half = float(stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return auc, auc - half, auc + half


def rank_together(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each slide's morphology features."""
    columns = [FEATURES.index(name) for name in MORPHOLOGY]
    return np.asarray(stats.rankdata(table[:, columns], axis=0).mean(axis=1))


def table_of(n: int, pool: ProcessPoolExecutor, *, positive: bool, signal: float) -> NDArray[np.float64]:
    """Features of `n` patients of a class, (n, features)."""
    specs = [spec_of(k, positive=positive, signal=signal) for k in range(n)]
    return np.array(list(pool.map(features_of, specs, chunksize=5)))


def run(n_slides: int, pool: ProcessPoolExecutor) -> dict[str, object]:
    """Draw, measure and compare."""
    half = n_slides // 2
    negative = table_of(half, pool, positive=False, signal=0.0)
    confidence = 1 - 0.05 / len(FEATURES)
    rows: dict[str, object] = {}
    for signal in SIGNALS:
        positive = table_of(half, pool, positive=True, signal=signal)
        row: dict[str, list[float]] = {}
        for i, name in enumerate(FEATURES):
            row[name] = _rounded(auc_interval(negative[:, i], positive[:, i], confidence))
        together = rank_together(np.concatenate([negative, positive]))
        row["nuclear_morphology"] = _rounded(auc_interval(together[:half], together[half:], 0.95))
        rows[str(signal)] = row
    return {"slides": n_slides, "confidence_of_features": round(confidence, 4), "auc_by_signal": rows}


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(v, 3) for v in values]


def as_markdown(result: dict[str, object]) -> Iterator[str]:
    """Format the table as Markdown."""
    rows = result["auc_by_signal"]
    assert isinstance(rows, dict)
    yield "# What separates the classes of phantom H&E"
    yield ""
    yield f"{result['slides']} slides, half HER2-positive; AUC (Bonferroni interval; morphology: 95 %)."
    yield ""
    yield "| | " + " | ".join(f"signal {signal}" for signal in rows) + " |"
    yield "|---" * (len(rows) + 1) + "|"
    for name in (*FEATURES, "nuclear_morphology"):
        cells = [row[name] for row in rows.values()]
        yield f"| {name} | " + " | ".join(f"{a:.2f} ({low:.2f}-{high:.2f})" for a, low, high in cells) + " |"


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        result = run(options.slides, pool)
    text = "\n".join(as_markdown(result)) + "\n"
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "phantom_signal.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (RESULTS / "phantom_signal.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
