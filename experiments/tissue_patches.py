"""Real tissue for `he2her2 train tumour` and `he2her2 test tumour`: the BCSS regions and the BreCaHAD fields.

Nothing is copied into the project: pictures are read from the folder of real data, sets are written to OUT.

    bcss.npz      windows of 128 µm at 2 µm/px, a step of 12 µm apart; tumour if the mask fills at least 0.6 of their
                  middle 40 µm, other tissue if at most 0.1; what lies between is left out. A region is a patient.
    brecahad.npz  windows about tumour nuclei, which fill at least 0.12 of their middle 48 µm; positives only. Patients
                  are unknown: a field counts as one, so that a network can be judged on fields that it has not seen.
                  The files state no scale: 0.25 µm/px, as usual for a 40x objective.
    slides.csv    all of them as slides with masks, under the patients' names of the sets: a cross-validation's
                  networks are tested on them, each on those that it has not seen

Run: python -m experiments.tissue_patches OUT [--data ../shared/data]
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from tifffile import imwrite

from he2her2.geometry import Mask, Rgb

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE_MPP, MPP = 0.25, 2.0
SIDE_PX = 64
STEP_PX = {"bcss": 6, "brecahad": 12}
MIDDLE_PX = {"bcss": 20, "brecahad": 24}
_MASK_THRESHOLD = 128


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one picture: (n, 64, 64, 3) pixels, and the share of their middle that the mask fills: (n,)."""

    pixels: Rgb
    share: NDArray[np.float64]


def read_pair(picture: Path, mask: Path) -> tuple[Rgb, Mask]:
    """A picture and its mask at 2 µm/px."""
    rgb = Image.open(picture).convert("RGB")
    size = (round(rgb.width * SOURCE_MPP / MPP), round(rgb.height * SOURCE_MPP / MPP))
    small = np.asarray(rgb.resize(size, Image.Resampling.BOX))
    filled = Image.open(mask).convert("L").resize(size, Image.Resampling.BOX)
    return small, np.asarray(filled) >= _MASK_THRESHOLD


def windows_of(rgb: Rgb, mask: Mask, step: int, middle: int) -> Windows:
    """Windows on a grid that lie inside the picture."""
    height, width = mask.shape
    filled = uniform_filter(mask.astype(np.float64), middle)
    half = SIDE_PX // 2
    centres = [(y, x) for y in range(half, height - half + 1, step) for x in range(half, width - half + 1, step)]
    pixels = np.stack([rgb[y - half : y + half, x - half : x + half] for y, x in centres])
    return Windows(pixels, np.array([filled[min(y, height - 1), min(x, width - 1)] for y, x in centres]))


def bcss_regions(data: Path) -> Iterator[tuple[str, Windows]]:
    """Yield the name and the windows of each BCSS region."""
    for mask in sorted((data / "bcss").glob("*_tumour_mask.jpg")):
        name = mask.name.removesuffix("_tumour_mask.jpg")
        yield name, windows_of(*read_pair(mask.with_name(f"{name}.jpg"), mask), STEP_PX["bcss"], MIDDLE_PX["bcss"])


def write_bcss(data: Path, out: Path) -> None:
    """Write the set of the BCSS regions."""
    pixels, labels, patients = [], [], []
    for name, windows in bcss_regions(data):
        clear = (windows.share >= 0.6) | (windows.share <= 0.1)
        pixels.append(windows.pixels[clear])
        labels.append(windows.share[clear] >= 0.6)
        patients.append(np.full(int(clear.sum()), f"bcss-{name}"))
    invasive = np.concatenate(labels).astype(np.uint8)
    patch, patient = np.concatenate(pixels), np.concatenate(patients)
    np.savez_compressed(out / "bcss.npz", patch=patch, patient=patient, invasive=invasive)


def write_brecahad(data: Path, out: Path) -> None:
    """Write the set of the BreCaHAD fields."""
    pixels, patients = [], []
    for picture in sorted((data / "brecahad" / "images").iterdir()):
        pair = read_pair(picture, data / "brecahad" / "masks" / picture.name)
        windows = windows_of(*pair, STEP_PX["brecahad"], MIDDLE_PX["brecahad"])
        pixels.append(windows.pixels[windows.share >= 0.12])
        patients.append(np.full(len(pixels[-1]), f"brecahad-{picture.stem}"))
    patch, patient = np.concatenate(pixels), np.concatenate(patients)
    np.savez_compressed(out / "brecahad.npz", patch=patch, patient=patient, invasive=np.ones(len(patch), np.uint8))


def pictures_of(data: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield name, picture and mask of every region and field."""
    for mask in sorted((data / "bcss").glob("*_tumour_mask.jpg")):
        name = mask.name.removesuffix("_tumour_mask.jpg")
        yield f"bcss-{name}", mask.with_name(f"{name}.jpg"), mask
    for picture in sorted((data / "brecahad" / "images").iterdir()):
        yield f"brecahad-{picture.stem}", picture, data / "brecahad" / "masks" / picture.name


def write_slides(data: Path, out: Path) -> None:
    """Write every picture as a tiled TIFF with its mask, and their manifest."""
    (out / "slides").mkdir(exist_ok=True)
    lines = ["slide_id,path,patient_id,stain,site,mpp,annotations"]
    for name, picture, mask in pictures_of(data):
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        per_cm = 10_000 / SOURCE_MPP
        imwrite(
            out / "slides" / f"{name}.tif", pixels, photometric="rgb", tile=(256, 256), compression="deflate",
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
        )  # fmt: skip
        filled = np.asarray(Image.open(mask).convert("L")) >= _MASK_THRESHOLD
        Image.fromarray(filled).save(out / "slides" / f"{name}.png")
        site = name.split("-")[0]
        lines.append(f"{name},slides/{name}.tif,{name},HE,{site},{SOURCE_MPP},slides/{name}.png")
    (out / "slides.csv").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    """Write the sets and the slides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    default = Path(os.environ.get("HE2HER2_DATA", REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_bcss(arguments.data, arguments.out)
    write_brecahad(arguments.data, arguments.out)
    write_slides(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
