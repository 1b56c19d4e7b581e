"""A run to be viewed: two predicted slides, a failed one, and a manifest that pairs one of them with its IHC."""

import subprocess
import sys
from pathlib import Path

from tests.tissue_slides import QUICK, tissue_pixels, write_tissue


def write_viewed_run(folder: Path) -> Path:
    """Write slides, `manifest.csv` and the run folder `run`; returns that."""
    write_tissue(folder / "case-1.svs")
    write_tissue(folder / "case 2 + <b>&.svs", tissue_pixels(seed=2))
    write_tissue(folder / "case-1-ihc.svs", tissue_pixels(side=1024, seed=3))
    (folder / "broken.svs").write_text("no slide at all")
    rows = ("case-1,case-1.svs,p1,HE", "case-1-ihc,case-1-ihc.svs,p1,IHC", "case 2 + <b>&,case 2 + <b>&.svs,p2,HE",
            "broken,broken.svs,p3,HE")  # fmt: skip
    (folder / "manifest.csv").write_text("\n".join(("slide_id,path,patient_id,stain", *rows)) + "\n")
    command = [sys.executable, "-m", "he2her2", "predict", str(folder / "manifest.csv"), "--out", str(folder / "run")]
    done = subprocess.run([*command, *QUICK], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # the broken one
    return folder / "run"
