"""Conversion of real pictures without a pyramid to tiled slides with a manifest, which every command reads.

Nothing is copied into the project: pictures are read from the folder of real data, slides are written to OUT.

Run: python -m experiments.real_slides tma|bcss OUT [--data ../shared/data]
"""

import argparse
import os
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from he2her2.csv_files import read_csv, write_csv
from he2her2.files import atomic
from he2her2.geometry import Rgb

REPOSITORY = Path(__file__).resolve().parents[1]
LEVELS = (1, 4, 16, 32)
TILE_PX = 256
TMA_MPP = 0.25
"""About; the cores' files do not say."""

COLUMNS = ("slide_id", "path", "patient_id", "stain", "ihc_score", "her2_status", "site", "split", "mpp", "annotations")
BCSS_MPP = 0.25
_MASK_THRESHOLD = 128
_IHC_SCORES = {"0": "0", "1": "1+", "2": "2+", "3": "3+"}


def tma_slides(data: Path, out: Path) -> Path:
    """Write HER2 IHC tissue cores as slides; each core is a patient without a split, for cross-validation.

    Args:
        data: Folder with `her2_ihc_tma/`.
        out: Folder for slides and manifest.

    Returns:
        Path of the manifest.
    """
    rows = []
    for label in read_csv(data / "her2_ihc_tma" / "labels.csv"):
        picture = data / "her2_ihc_tma" / label["file"]
        name = picture.stem.split("-")[0]  # such as 0_9b0f64d1
        write_slide(out / "slides" / f"tma-{name}.tif", read_picture(picture), TMA_MPP)
        rows.append(
            {
                "slide_id": f"tma-{name}",
                "path": f"slides/tma-{name}.tif",
                "patient_id": f"tma-{name}",
                "stain": "IHC",
                "ihc_score": _IHC_SCORES[label["ihc_score"]],
                "her2_status": label["her2_status"],
                "site": "bozeklab-tma",
                "mpp": TMA_MPP,
            }
        )
    write_csv(out / "manifest.csv", COLUMNS, rows)
    return out / "manifest.csv"


def bcss_slides(data: Path, out: Path) -> Path:
    """Write H&E regions of breast cancer as slides with annotated invasive tumour; each is a patient.

    Args:
        data: Folder with `bcss/`.
        out: Folder for slides, masks and manifest.

    Returns:
        Path of the manifest.
    """
    rows = []
    for file in sorted((data / "bcss").glob("*_tumour_mask.jpg")):
        name = file.name.split("_")[0]
        picture = read_picture(file.with_name(f"{name}.jpg"))
        mask = read_picture(file)[..., 0] >= _MASK_THRESHOLD
        write_slide(out / "slides" / f"bcss-{name}.tif", picture, BCSS_MPP)
        with atomic(out / "masks" / f"bcss-{name}.png") as draft:
            Image.fromarray(mask).save(draft, "png")
        rows.append(
            {
                "slide_id": f"bcss-{name}",
                "path": f"slides/bcss-{name}.tif",
                "patient_id": f"bcss-{name}",
                "stain": "HE",
                "site": "bcss",
                "mpp": BCSS_MPP,
                "annotations": f"masks/bcss-{name}.png",
            }
        )
    write_csv(out / "manifest.csv", COLUMNS, rows)
    return out / "manifest.csv"


def read_picture(path: Path) -> Rgb:
    """Read the pixels of a picture file, (h, w, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def write_slide(path: Path, pixels: Rgb, mpp: float) -> None:
    """Write a pyramidal, JPEG-tiled TIFF.

    Args:
        path: File to write.
        pixels: (h, w, 3) of level 0.
        mpp: µm per px of level 0.
    """
    whole = Image.fromarray(pixels)
    with atomic(path) as draft, tifffile.TiffWriter(draft) as tiff:
        for downsample in LEVELS:
            # "rgb": tifffile would label the JPEG's colours falsely as "ycbcr" without converting them.
            tiff.write(
                np.asarray(whole.reduce(downsample)),
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 95},
                subfiletype=0 if downsample == 1 else 1,
                resolution=(1e4 / (mpp * downsample),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


SETS = {"tma": tma_slides, "bcss": bcss_slides}


def main() -> None:
    """Write one set of real pictures as slides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=REPOSITORY / os.environ.get("HE2HER2_DATA", "../shared/data"))
    arguments = parser.parse_args()
    print(SETS[arguments.set](arguments.data, arguments.out))


if __name__ == "__main__":
    main()
