"""Stains of real tissue, measured, and two phantom sites drawn in them: experiments/ladder/bcss.toml and mixed.toml.

Dyes by Macenko's method and colours in LAB are measured on stained pixels at 1 µm/px of the two BCSS regions, CMU-1,
OS-1 and the frozen TCGA section (whose µm/px are taken for 0.5), and on phantoms, since the strengths of their dyes are
relative. `bcss` is drawn around the mean of the two BCSS regions, with their spread; `mixed` around that of all five.

Run: python -m experiments.site_stains PHANTOMS, a folder of H&E phantoms of the site her2sc-like
"""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from he2her2.geometry import Rgb
from he2her2.phantom.sites import SITES
from he2her2.phantom.spec import SiteName
from he2her2.preprocessing.stain import LabStatistics, StainPair, lab_statistics, macenko_stains, stained_pixels
from he2her2.slides import open_slide

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("HE2HER2_DATA", "../shared/data"))
PHANTOM_SITE: SiteName = "her2sc-like"
MPP = 1.0
BCSS_REDUCTION = 4  # of 0.25 µm/px
SLIDES = {"CMU-1": "CMU-1-Small-Region.svs", "OS-1": "OS-1-detail.ome.tif", "TCGA": "tcga-cr-7395-01a-01-ts1.svs"}
UNSTATED_MPP = {"TCGA": 0.5}


@dataclass(frozen=True)
class Stain:
    """Dyes and colours of one picture's stained pixels."""

    name: str
    dyes: StainPair
    lab: LabStatistics

    @classmethod
    def of(cls, name: str, rgb: Rgb) -> "Stain":
        """Measure a picture at 1 µm/px."""
        stained = stained_pixels(rgb)
        return cls(name, macenko_stains(rgb, stained), lab_statistics(rgb, stained))

    @property
    def row(self) -> str:
        """Line of a table."""
        numbers = (self.dyes.haematoxylin, self.dyes.eosin, self.dyes.amounts, self.lab.mean, self.lab.spread)
        return f"| {self.name} | " + " | ".join(words(group) for group in numbers) + " |"


def words(numbers: Iterable[float]) -> str:
    """Numbers to three digits."""
    return ", ".join(f"{number:.3g}" for number in numbers)


def real_pictures() -> Iterator[tuple[str, Rgb]]:
    """Pictures of real H&E at about 1 µm/px."""
    for file in sorted((DATA / "bcss").glob("????.jpg")):
        with Image.open(file) as picture:
            yield f"BCSS {file.stem}", np.asarray(picture.convert("RGB").reduce(BCSS_REDUCTION))
    for name, slide_file in SLIDES.items():
        with open_slide(DATA / "slides" / slide_file, mpp=UNSTATED_MPP.get(name)) as slide:
            yield name, slide.thumbnail(MPP)


def phantom_stains(folder: Path, limit: int = 12) -> list[Stain]:
    """Stains of some phantoms."""
    found = []
    for file in sorted(folder.glob("**/*-HE.tif"))[:limit]:
        with open_slide(file) as slide:
            found.append(Stain.of(file.stem, slide.thumbnail(MPP)))
    if not found:
        raise SystemExit(f"{folder}: holds no H&E phantom; draw some with he2her2 phantom")
    return found


def mean_stain(name: str, stains: Sequence[Stain]) -> Stain:
    """Mean of several."""
    red, green, blue = np.mean([one.dyes.vectors for one in stains], axis=0).T.tolist()
    first, second = zip(red, green, blue, strict=True)
    haematoxylin, eosin = np.exp(np.log([one.dyes.amounts for one in stains]).mean(axis=0)).tolist()
    light, red_green, blue_yellow = np.mean([(one.lab.mean, one.lab.spread) for one in stains], axis=0).T.tolist()
    lab = LabStatistics(*zip(light, red_green, blue_yellow, strict=True))
    return Stain(name, StainPair(first, second, (haematoxylin, eosin)), lab)


def spreads(stains: Sequence[Stain]) -> tuple[float, float]:
    """Standard deviation of the dyes' channels and of the log amounts between pictures."""
    vectors = np.array([one.dyes.vectors for one in stains])
    amounts = np.log([one.dyes.amounts for one in stains])
    return float(vectors.std(axis=0, ddof=1).mean()), float(amounts.std(axis=0, ddof=1).mean())


def cohort(name: str, what: str, seed: int, stains: Sequence[Stain], phantoms: Stain) -> str:
    """TOML of a cohort that is drawn in these stains."""
    wanted, (vectors, strengths) = mean_stain(name, stains).dyes, spreads(stains)
    site = SITES[PHANTOM_SITE]
    relative = np.array(wanted.amounts) / np.array(phantoms.dyes.amounts) * (site.haematoxylin, site.eosin)
    return f"""# {what}: 24 slides to adapt to ("train", their labels are never read) and 60 to test.
# Written by experiments/site_stains.py, from {", ".join(one.name for one in stains)}.
n = 84
seed = {seed}
sites = ["brca-like"]
scores = [0.2, 0.2, 0.3, 0.3]
splits = [0.2857, 0.0, 0.7143]

[slide]
size_px = [4096, 4096]
tissue_extent = 0.5
tumour_share = 0.7
foci = 1
signal = 1.0

[slide.staining]
haematoxylin = [{words(wanted.haematoxylin)}]
eosin = [{words(wanted.eosin)}]
strengths = [{words(relative)}]
vector_spread = {vectors:.3g}
strength_spread = {strengths:.3g}
"""


def main() -> None:
    """Measure, print the table and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phantoms", type=Path)
    options = parser.parse_args()
    phantoms = mean_stain(f"phantoms, {PHANTOM_SITE}", phantom_stains(options.phantoms))
    real = [Stain.of(name, rgb) for name, rgb in real_pictures()]
    print("| tissue | haematoxylin | eosin | amounts | LAB mean | LAB spread |\n|---|---|---|---|---|---|")
    print("\n".join(one.row for one in (phantoms, *real)))
    of_bcss = [one for one in real if one.name.startswith("BCSS")]
    for name, what, seed, stains in (
        ("bcss", "Slides stained as BCSS", 63, of_bcss),
        ("mixed", "Slides stained as by many laboratories", 64, real),
    ):
        (HERE / "ladder" / f"{name}.toml").write_text(cohort(name, what, seed, stains, phantoms), "utf-8")


if __name__ == "__main__":
    main()
