"""Realism of the phantoms: the same measurements on real and on phantom regions.

Real H&E is BCSS (two TCGA-BRCA regions), real IHC the oesophageal HER2 cores; both lie outside the repository
(`HE2HER2_DATA`). A phantom's number should lie within the range that the real regions span. `--sheets FOLDER` also
writes pictures of both side by side, to look at and not to commit.

Run: python -m experiments.phantom_realism [--sheets FOLDER]
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import color, filters, measure, segmentation

from he2her2.geometry import Rgb
from he2her2.phantom import Painter, Window, make_spec

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "experiments" / "results"
MPP = 0.25
SIDE_PX = 1024
HED_FROM_RGB = np.linalg.inv(
    np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
    / np.linalg.norm([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], axis=1, keepdims=True)
)


@dataclass(frozen=True)
class Numbers:
    """Measurements of one region of 1024 px at 0.25 µm/px.

    Attributes:
        nuclei_per_mm2: Number of segmented nuclei.
        nuclear_area_um2: Median area of the nuclei.
        nuclear_area_iqr_um2: Interquartile range of the area.
        red: Mean of the red channel.
        green: Mean of the green channel.
        blue: Mean of the blue channel.
        haematoxylin_p50: Median optical density of haematoxylin.
        haematoxylin_p95: 95th percentile of it.
        second_p50: Median optical density of eosin (H&E) or DAB (IHC).
        second_p95: 95th percentile of it.
        spectrum_slope: Exponent of the power spectrum of lightness between 0.02 and 0.5 cycles/µm.
        fine_share: Share of lightness's variance above 0.5 cycles/µm.
    """

    nuclei_per_mm2: float
    nuclear_area_um2: float
    nuclear_area_iqr_um2: float
    red: float
    green: float
    blue: float
    haematoxylin_p50: float
    haematoxylin_p95: float
    second_p50: float
    second_p95: float
    spectrum_slope: float
    fine_share: float


def measure_region(rgb: Rgb, stain: str) -> Numbers:
    """Measure one region; the same code for real and phantom."""
    od = -np.log(np.clip(rgb.astype(np.float64), 1, 255) / 245.0)
    stains = od @ HED_FROM_RGB
    areas = nuclear_areas(rgb, stain)
    area_mm2 = rgb.shape[0] * rgb.shape[1] * MPP**2 / 1e6
    second = stains[..., 1 if stain == "HE" else 2]
    slope, fine = spectrum(rgb)
    quartiles = np.percentile(areas, [25, 50, 75]) if len(areas) else np.zeros(3)
    r, g, b = rgb.reshape(-1, 3).mean(axis=0)
    return Numbers(
        len(areas) / area_mm2,
        float(quartiles[1]),
        float(quartiles[2] - quartiles[0]),
        float(r),
        float(g),
        float(b),
        float(np.percentile(stains[..., 0], 50)),
        float(np.percentile(stains[..., 0], 95)),
        float(np.percentile(second, 50)),
        float(np.percentile(second, 95)),
        slope,
        fine,
    )


def nuclear_areas(rgb: Rgb, stain: str) -> NDArray[np.float64]:
    """Areas in µm² of nuclei: Otsu on red light, split by watershed, without fragments and clumps."""
    red = filters.gaussian(rgb[..., 0].astype(np.float64), 1.5)
    tissue = red[red < 235]
    if len(tissue) < 1000:
        return np.zeros(0)
    dark = red < min(filters.threshold_multiotsu(tissue, 3)[0], 150 if stain == "HE" else 205)
    dark = ndimage.binary_opening(ndimage.binary_fill_holes(ndimage.binary_closing(dark, iterations=2)), iterations=3)
    distance = filters.gaussian(ndimage.distance_transform_edt(dark), 2)
    seeds = measure.label((distance == ndimage.maximum_filter(distance, 17)) & dark)
    nuclei = segmentation.watershed(-distance, seeds, mask=dark)
    areas = np.bincount(nuclei.ravel())[1:] * MPP**2
    return np.asarray(areas[(areas > 6) & (areas < 400)], np.float64)


def spectrum(rgb: Rgb) -> tuple[float, float]:
    """Slope of the power spectrum of lightness, and the share of its finest part."""
    light = color.rgb2gray(rgb)
    window = np.hanning(light.shape[0])[:, None] * np.hanning(light.shape[1])[None, :]
    power = np.abs(np.fft.fft2((light - light.mean()) * window)) ** 2
    f = np.hypot(np.fft.fftfreq(light.shape[0], MPP)[:, None], np.fft.fftfreq(light.shape[1], MPP)[None, :])
    edges = np.geomspace(0.02, 2.0, 25)
    band = np.digitize(f.ravel(), edges)
    mean = np.bincount(band, power.ravel(), minlength=26)[1:25] / np.maximum(np.bincount(band, minlength=26)[1:25], 1)
    middle = np.sqrt(edges[1:] * edges[:-1])
    use = (middle < 0.5) & (mean > 0)
    slope = np.polyfit(np.log(middle[use]), np.log(mean[use]), 1)[0]
    return float(slope), float(power[f > 0.5].sum() / power[f > 0.02].sum())


def real_regions(data: Path, stain: str) -> Iterator[tuple[str, Rgb]]:
    """Yield regions of real tissue with little glass."""
    folder, most_glass, most = (data / "bcss", 0.25, 9) if stain == "HE" else (data / "her2_ihc_tma", 0.6, 3)
    for file in sorted(f for f in folder.glob("*.jpg") if "mask" not in f.name):
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        rows, columns = pixels.shape[0] - SIDE_PX + 1, pixels.shape[1] - SIDE_PX + 1
        corners = [(y, x) for y in range(0, rows, SIDE_PX // 2 + 8) for x in range(0, columns, SIDE_PX)]
        regions = [(f"{file.stem}:{x},{y}", pixels[y : y + SIDE_PX, x : x + SIDE_PX]) for y, x in corners]
        yield from islice(((n, r) for n, r in regions if (r.min(axis=2) > 215).mean() < most_glass), most)


def phantom_regions(stain: str, n_slides: int, signal: float = 0.0) -> Iterator[tuple[str, Rgb]]:
    """Yield regions of phantoms of both sites: deep in the tumour and at its edge."""
    scores = ("0", "1+", "2+", "3+")
    for seed in range(n_slides):
        score = scores[seed % 4]
        painter = Painter.of(
            make_spec(
                seed=1000 + seed,
                size_px=(16_000, 16_000),
                tissue_extent=0.6,
                stain=stain,
                signal=signal,
                ihc_score=score,
                ish="positive" if score == "2+" else None,
                site=("her2sc-like", "brca-like")[seed // 4 % 2],
            )
        )
        outlines = painter.anatomy.outlines
        rng = np.random.default_rng(seed)
        for name, where in (("tumour", outlines.tumour.values > 150), ("edge", np.abs(outlines.tumour.values) < 50)):
            ys, xs = np.nonzero(where & (outlines.tissue.values > 200))
            if not len(ys):
                continue
            k = int(rng.integers(len(ys)))
            x, y = (int(v[k] * 32 - SIDE_PX // 2) // 2 * 2 for v in (xs, ys))
            window = Window(x, y, SIDE_PX, SIDE_PX, MPP)
            yield f"seed {seed} {painter.spec.site} {score} {name}", painter.pixels(window)[0][..., :3]


def compare(data: Path, stain: str, n_slides: int, sheets: Path | None) -> dict[str, Any]:
    """Compare both: medians, ranges, and phantoms' medians within the real range."""
    real, phantom = list(real_regions(data, stain)), list(phantom_regions(stain, n_slides))
    if sheets is not None:
        save_sheet(sheets / f"{stain}.png", [p for _, p in real], [p for _, p in phantom])
    rows = {
        side: [measure_region(p, stain) for _, p in regions] for side, regions in (("real", real), ("phantom", phantom))
    }
    table = {}
    for name in Numbers.__dataclass_fields__:
        a, b = (np.array([asdict(row)[name] for row in rows[side]]) for side in ("real", "phantom"))
        low, high = float(a.min()), float(a.max())
        table[name] = {
            "real_min": round(low, 3),
            "real_median": round(float(np.median(a)), 3),
            "real_max": round(high, 3),
            "phantom_p10": round(float(np.percentile(b, 10)), 3),
            "phantom_median": round(float(np.median(b)), 3),
            "phantom_p90": round(float(np.percentile(b, 90)), 3),
            "median_within": bool(low <= np.median(b) <= high),
            "share_within": round(float(((b >= low) & (b <= high)).mean()), 2),
        }
    return {"real_regions": len(real), "phantom_regions": len(phantom), "table": table}


def save_sheet(path: Path, real: list[Rgb], phantom: list[Rgb]) -> None:
    """Save pictures, real on the left and phantom on the right, at 1x (512 px) and, in the last row, 2x zoomed out."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(4):
        pair = [side[int(rng.integers(len(side)))] for side in (real, real, phantom, phantom)]
        rows.append(np.concatenate([p[256:768, 256:768] for p in pair], axis=1))
    pair = [side[int(rng.integers(len(side)))] for side in (real, real, phantom, phantom)]
    halves = [np.asarray(Image.fromarray(p).resize((512, 512), Image.Resampling.BOX)) for p in pair]
    rows.append(np.concatenate(halves, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


_REAL = {"HE": "of two TCGA-BRCA slides", "IHC": "of cores of oesophageal adenocarcinoma, not of the breast"}


def as_markdown(result: dict[str, dict[str, Any]]) -> str:
    """Format the tables as Markdown."""
    lines = ["# Phantoms against real tissue", "", "Regions of 1024 px at 0.25 µm/px; one code measures both."]
    columns = ("real_min", "real_median", "real_max", "phantom_p10", "phantom_median", "phantom_p90")
    head = [*(name.replace("_", " ") for name in columns), "median in real range", "regions in real range"]
    for stain, part in result.items():
        lines += ["", f"## {stain}", ""]
        lines += [
            f"{part['real_regions']} real regions ({_REAL[stain]}), {part['phantom_regions']} phantom regions.",
            "",
        ]
        lines += ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
        for name, row in part["table"].items():
            cells = [f"{row[k]:g}" for k in columns]
            cells += ["yes" if row["median_within"] else "no", f"{row['share_within']:.0%}"]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--slides", type=int, default=16)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    data = (REPOSITORY / os.environ.get("HE2HER2_DATA", "../shared/data")).resolve()
    result = {stain: compare(data, stain, options.slides, options.sheets) for stain in ("HE", "IHC")}
    text = as_markdown(result)
    print(text)
    if not options.dry:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "phantom_realism.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (RESULTS / "phantom_realism.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
