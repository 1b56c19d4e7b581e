"""Accuracy of the leak check in telling the same tissue from other tissue.

False alarms: all pairs of slides of different patients in the given cohorts. Missed copies: slides whose thumbnail
was recompressed, rescaled, shifted, rotated, mirrored, restained, made noisy, cropped or padded.

Run: python -m experiments.slide_likeness COHORT/manifest.csv ... [--copied 32]
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats

from he2her2.cohort import ALIKE, THUMBNAIL_PX, likeness, print_of
from he2her2.geometry import Rgb
from he2her2.manifest import SlideRow, patient_key, read_manifest
from he2her2.slides import open_slide

RESULTS = Path(__file__).parent / "results"
GLASS = 243


def thumbnail(row: SlideRow) -> Rgb:
    """Thumbnail of a slide as the leak check reads it."""
    with open_slide(row.path, mpp=row.mpp) as slide:
        return slide.thumbnail(max(slide.size_l0) * slide.mpp / THUMBNAIL_PX)


def copies(rgb: Rgb, rng: np.random.Generator) -> Iterator[tuple[str, Rgb]]:
    """Make altered copies of the thumbnail that the leak check must recognise."""
    h, w = rgb.shape[:2]
    noise = rng.normal(0, 8, rgb.shape)
    yield "JPEG of quality 30", _jpeg(rgb, 30)
    yield "half as large", np.asarray(Image.fromarray(rgb).resize((w // 2, h // 2), Image.Resampling.BOX))
    yield "1.7 times as large", np.asarray(Image.fromarray(rgb).resize((w * 17 // 10, h * 17 // 10)))
    yield "shifted by 5 %", ndimage.shift(rgb, (h // 20, -w // 20, 0), order=0, mode="constant", cval=GLASS)
    yield "turned by 90 degrees", np.rot90(rgb)
    yield "mirrored", rgb[:, ::-1]
    yield "mirrored, turned by 270 degrees, JPEG of quality 50", _jpeg(np.rot90(rgb[:, ::-1], 3), 50)
    yield "darker", np.clip(rgb * 0.9 + 5, 0, 255).astype(np.uint8)
    yield "stained otherwise", np.clip(255 * (rgb / 255) ** np.array([1.3, 1.1, 0.8]), 0, 255).astype(np.uint8)
    yield "noisy", np.clip(rgb + noise, 0, 255).astype(np.uint8)
    yield "4 % cropped from each side", rgb[h // 25 : -h // 25, w // 25 : -w // 25]
    yield "a quarter of glass added", np.pad(rgb, ((0, h // 4), (0, w // 12), (0, 0)), constant_values=GLASS)
    yield "turned by 3 degrees", ndimage.rotate(rgb, 3, reshape=False, order=1, mode="constant", cval=GLASS)


def _jpeg(rgb: NDArray[np.uint8], quality: int) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--copied", type=int, default=32, help="slides of which copies are made")
    options = parser.parse_args()
    rows = [row for path in options.manifests for row in read_manifest(path).rows]
    pictures = [thumbnail(row) for row in rows]
    prints = np.stack([print_of(picture) for picture in pictures])
    patients = np.array([patient_key(row.patient_id) for row in rows])
    others = likeness(prints, prints)[np.triu(patients[:, None] != patients[None], 1)]
    alarms = int((others >= ALIKE).sum())
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for i in np.linspace(0, len(rows) - 1, min(options.copied, len(rows))).round().astype(int):
        for name, copy in copies(pictures[i], rng):
            found.setdefault(name, []).append(float(likeness(prints[i : i + 1], print_of(copy)[None])[0, 0]))
    n_copies = sum(map(len, found.values()))
    missed = sum(value < ALIKE for values in found.values() for value in values)
    result = {
        "slides": len(rows),
        "threshold": ALIKE,
        "pairs of different patients": len(others),
        "false alarms": alarms,
        "upper 95 % bound of the false-alarm rate, were pairs independent": _upper(alarms, len(others)),
        "highest likeness of different patients": round(float(others.max()), 3),
        "copies": n_copies,
        "missed copies": missed,
        "upper 95 % bound of the miss rate, were copies independent": _upper(missed, n_copies),
        "lowest likeness of a copy": {name: round(min(values), 3) for name, values in found.items()},
    }
    text = json.dumps(result, indent=1) + "\n"
    (RESULTS / "slide_likeness.json").write_text(text, "utf-8")
    print(text)


def _upper(k: int, n: int) -> float:
    """Upper one-sided 95 % bound (exact, Clopper and Pearson) of a share."""
    return float(f"{stats.beta.ppf(0.95, k + 1, n - k):.2g}")


if __name__ == "__main__":
    main()
