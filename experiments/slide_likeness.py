"""Accuracy of the leak check in telling the same tissue from other tissue.

False alarms: all pairs of slides of different patients in the given cohorts, and of the given pictures, each of a
patient of its own. Missed copies: slides whose thumbnail was turned, cropped, restained, inked and so on.

Run: python -m experiments.slide_likeness COHORT/manifest.csv ... [--pictures FILE ...] [--copied 32]
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.color import hed2rgb, rgb2hed

from he2her2.cohort import ALIKE, THUMBNAIL_PX, alike_pairs, likeness, print_of
from he2her2.files import write_text
from he2her2.geometry import Rgb
from he2her2.manifest import SlideRow, patient_key, read_manifest
from he2her2.slides import open_slide
from he2her2.statistics import exact_binomial

RESULTS = Path(__file__).parent / "results"
GLASS = 243
INKS = ((20, 40, 140), (20, 120, 60), (25, 25, 25))


def thumbnail(row: SlideRow) -> Rgb:
    """Thumbnail of a slide as the leak check reads it."""
    with open_slide(row.path, mpp=row.mpp) as slide:
        return slide.thumbnail(max(slide.size_l0) * slide.mpp / THUMBNAIL_PX)


def picture(path: Path) -> Rgb:
    """A picture in the size of such a thumbnail."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(image)


def copies(rgb: Rgb, other: Rgb, rng: np.random.Generator) -> Iterator[tuple[str, Rgb]]:
    """Make altered copies of a thumbnail; `other` is the second piece of tissue that one of them has."""
    h, w = rgb.shape[:2]
    yield "JPEG of quality 30", _jpeg(rgb, 30)
    yield "half as large", np.asarray(Image.fromarray(rgb).resize((w // 2, h // 2), Image.Resampling.BOX))
    yield "1.7 times as large", np.asarray(Image.fromarray(rgb).resize((w * 17 // 10, h * 17 // 10)))
    yield "noisy", np.clip(rgb + rng.normal(0, 8, rgb.shape), 0, 255).astype(np.uint8)
    yield "out of focus", np.asarray(ndimage.gaussian_filter(rgb, (2, 2, 0)))
    yield "mirrored, turned by 270 degrees, JPEG of quality 50", _jpeg(np.rot90(rgb[:, ::-1], 3), 50)
    for _ in range(3):
        yield "turned by any angle", _turned(rgb, rng)
    for _ in range(2):
        yield "cropped to 75 % of each side", _cropped(rgb, 0.75, rng)
    yield "cropped to half of each side", _cropped(rgb, 0.5, rng)
    yield "cropped to a third of each side", _cropped(rgb, 1 / 3, rng)
    yield "a quarter of glass added", np.pad(rgb, ((0, h // 4), (0, w // 12), (0, 0)), constant_values=GLASS)
    for _ in range(3):
        yield "restained: haematoxylin and eosin times 0.4 to 2", _restained(rgb, rng)
    yield "restained: each colour by another gamma", (255 * (rgb / 255) ** np.array([1.8, 1.1, 0.6])).astype(np.uint8)
    yield "three bars of pen", _inked(rgb, rng)
    yield "a second piece of tissue", np.concatenate([rgb, _like(other, rgb)], axis=1)
    part = _cropped(_turned(rgb, rng), 0.75, rng)
    yield "turned, cropped to 75 %, restained and inked", _inked(_restained(part, rng), rng)


def _jpeg(rgb: NDArray[np.uint8], quality: int) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _turned(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    return np.asarray(ndimage.rotate(rgb, rng.uniform(0, 360), order=1, mode="constant", cval=GLASS))


def _cropped(rgb: Rgb, share: float, rng: np.random.Generator) -> Rgb:
    h, w = (int(side * share) for side in rgb.shape[:2])
    y, x = rng.integers(rgb.shape[0] - h + 1), rng.integers(rgb.shape[1] - w + 1)
    return rgb[y : y + h, x : x + w]


def _restained(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    strength = np.array([*np.exp(rng.uniform(np.log(0.4), np.log(2), 2)), 1.0])
    return np.asarray((hed2rgb(rgb2hed(rgb) * strength) * 255).astype(np.uint8))


def _inked(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    image = Image.fromarray(np.ascontiguousarray(rgb))
    h, w = rgb.shape[:2]
    for _ in range(3):
        ends = [(int(rng.integers(w)), int(rng.integers(h))) for _ in range(2)]
        ImageDraw.Draw(image).line(ends, fill=INKS[rng.integers(len(INKS))], width=max(6, w // 25))
    return np.asarray(image)


def _like(other: Rgb, rgb: Rgb) -> Rgb:
    return np.asarray(Image.fromarray(other).resize(rgb.shape[1::-1]))


def table(n_pictures: int, n_pairs: int, n_alarms: int, highest: int, found: dict[str, list[int]]) -> Iterator[str]:
    """The page of results."""
    yield "# Does the leak check tell the same tissue from other tissue?\n"
    yield (
        f"{n_pictures} thumbnails; two slides are alike where {ALIKE} landmarks agree on one place, scale and angle. "
        f"Of {n_pairs} pairs of different patients {n_alarms} are called alike "
        f"({exact_binomial(n_alarms, n_pairs).percent(3)}, were pairs independent); at most {highest} landmarks agree "
        "in such a pair. Copies, by what was done to them:\n"
    )
    yield "| copy | found | share (95 % interval, were copies independent) | fewest landmarks |"
    yield "|---|--:|--:|--:|"
    for name, counts in found.items():
        n = sum(count >= ALIKE for count in counts)
        share = exact_binomial(n, len(counts)).percent(1)
        yield f"| {name} | {n} of {len(counts)} | {share} | {min(counts)} |"
    yield (
        "\nNot looked for: serial sections, the same block cut or stained again on another slide, a copy of under half "
        "of the slide, and slides with too little tissue, which are named."
    )


def measure(pictures: Sequence[Rgb], patients: Sequence[str], copied: Sequence[int]) -> list[str]:
    """Compare all pictures, and some with their copies."""
    prints = [print_of(one) for one in pictures]
    other = [(i, j) for i in range(len(prints)) for j in range(i) if patients[i] != patients[j]]
    alarms = sum(patients[i] != patients[j] for i, j, _ in alike_pairs(prints))
    highest = max(likeness(prints[i], prints[j]) for i, j in other[:: max(1, len(other) // 5000)])
    found: dict[str, list[int]] = {}
    rng = np.random.default_rng(0)
    for i in copied:
        for name, copy in copies(pictures[i], pictures[(i + 1) % len(pictures)], rng):
            agreeing = next((n for *_, n in alike_pairs([prints[i], print_of(copy)])), 0)
            found.setdefault(name, []).append(agreeing)
    return list(table(len(prints), len(other), alarms, highest, found))


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    parser.add_argument("--copied", type=int, default=32, help="slides of which copies are made, beside all pictures")
    options = parser.parse_args()
    rows = [row for path in options.manifests for row in read_manifest(path).rows]
    pictures = [thumbnail(row) for row in rows] + [picture(path) for path in options.pictures]
    patients = [patient_key(row.patient_id) for row in rows] + [f"picture {path.name}" for path in options.pictures]
    some = np.linspace(0, len(rows) - 1, min(options.copied, len(rows))).round().astype(int).tolist()
    lines = measure(pictures, patients, [*some, *range(len(rows), len(pictures))])
    write_text(RESULTS / "slide_likeness.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
