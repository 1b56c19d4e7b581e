"""A run to be viewed: two predicted slides, a failed one, and a manifest that pairs one of them with its IHC."""

import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg

from he2her2.labels import Her2Status
from he2her2.results import PatientResult
from he2her2.results.patients import write_patient_results
from tests.slide_files import APERIO
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
    done = subprocess.run([*command, *QUICK, "--workers", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # the broken one
    return folder / "run"


def give_patient(run: Path, *slides: str) -> None:
    """Say of slides of a run that they are patient p9's."""
    rows = "".join(f"{name},{name}.svs,p9\n" for name in slides)
    (run / "planned.csv").write_text(f"slide_id,path,patient_id\n{rows}")


def join_patient(run: Path, *slides: str, triage: str) -> None:
    """Say of slides of a run that they are one patient's, whom stored rules put into an arm of the triage."""
    give_patient(run, *slides)
    called = PatientResult("p9", Her2Status.POSITIVE, 0.61, 0.5, None, triage, "mean", 1, 1, guaranteed=False)
    write_patient_results(run / "patients.csv", [called])


def write_huge_slide(path: Path, w: int = 100_000, h: int = 80_000) -> Path:
    """An Aperio-like slide of that size in a few MB: all tiles of its four levels are the same bytes of the file."""
    tile = simplejpeg.encode_jpeg(np.full((256, 256, 3), (226, 170, 205), np.uint8), quality=80, colorsubsampling="420")
    header = b"II+\0\x08\0\0\0"
    at = 16 + len(tile)
    blocks, directories = [tile], []
    for n in (1, 4, 16, 32):
        size = (w // n, h // n)
        n_tiles = -(-size[0] // 256) * -(-size[1] // 256)
        text = APERIO.format(w=size[0], h=size[1], t=256, mpp=0.25, mag=40).encode() + b"\0"
        offsets = np.full(n_tiles, 16, "<u8").tobytes() if n_tiles > 1 else b""
        counts = np.full(n_tiles, len(tile), "<u8").tobytes() if n_tiles > 1 else b""
        places = (at, at + len(text), at + len(text) + len(offsets))
        blocks += [text, offsets, counts]
        at += len(text) + len(offsets) + len(counts)
        bits = int.from_bytes(struct.pack("<4H", 8, 8, 8, 0), "little")
        tags = [(254, 4, 1, int(n > 1)), (256, 4, 1, size[0]), (257, 4, 1, size[1]), (258, 3, 3, bits), (259, 3, 1, 7),
                (262, 3, 1, 6), (270, 2, len(text), places[0]), (277, 3, 1, 3), (322, 3, 1, 256), (323, 3, 1, 256),
                (324, 16, n_tiles, places[1]), (325, 16, n_tiles, places[2]), (530, 3, 2, 2 | 2 << 16)]  # fmt: skip
        directories.append(tags)
    first = at
    for i, tags in enumerate(directories):
        at += 16 + 20 * len(tags)
        after = at if i + 1 < len(directories) else 0
        rows = b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
        blocks.append(struct.pack("<Q", len(tags)) + rows + struct.pack("<Q", after))
    path.write_bytes(header + struct.pack("<Q", first) + b"".join(blocks))
    return path


@contextmanager
def serving(*words: object) -> Iterator[str]:
    """The address of `he2her2 view`, while it runs."""
    command = [sys.executable, "-m", "he2her2", "view", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.stdout.readline().split()[1]
        process.terminate()
