"""`python -m benchmarks.peers`: install each peer into an environment of its own, measure, and compare with ours."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine
from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table, markdown, read_all, update_page, write_found
from he2her2.geometry import Size

ROOT = Path(__file__).parents[2]
SIDE_PX = 40 * 256
TILES = 1000
ROUNDS = 3
OURS = "he2her2"
PATIENCE_S = 1200


@dataclass(frozen=True, slots=True)
class Peer:
    """A library that installs from PyPI.

    Attributes:
        packages: What is installed.
        options: Of pip.
    """

    packages: tuple[str, ...]
    options: tuple[str, ...] = ()


PEERS = {
    "openslide": Peer(("openslide-python", "openslide-bin", "scikit-image")),
    "hs2p": Peer(("hs2p", "openslide-python", "openslide-bin")),
    "ratiopath": Peer(("ratiopath", "pyvips-binary", "openslide-bin"), ("--no-binary", "pyvips")),  # it has no wheel
    "wsinfer": Peer(("wsinfer", "openslide-python", "openslide-bin", "torch==2.13.0", "zarr<3")),
    "lazyslide": Peer(("lazyslide", "openslide-bin", "torch==2.13.0")),
    "tiatoolbox": Peer(("tiatoolbox", "openslide-bin", "torch==2.13.0", "setuptools<81")),  # for pkg_resources
    "histolab": Peer(
        (
            "histolab", "openslide-python", "openslide-bin", "numpy", "pillow", "scikit-image", "scipy", "lazy-loader",
            "imageio", "tifffile", "packaging", "networkx", "requests", "certifi", "typing-extensions",
        ),
        ("--no-deps",),  # it asks for years-old releases that have no wheels any more
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, measure in turns, write."""
    wanted = _parser().parse_args(arguments)
    setting = Setting(wanted.work, quick=False, plots=wanted.work)
    here = machine()
    slide = phantom_slide(setting, Size(SIDE_PX, SIDE_PX))
    pythons = {OURS: Path(sys.executable)}
    missing: dict[str, str] = {}
    for name in wanted.only or PEERS:
        python, problem = install(name, wanted.work / "peers" / name)
        if problem:
            missing[name] = problem
        else:
            pythons[name] = python
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for turn in range(wanted.rounds):
        for name in [*pythons][:: 1 if turn % 2 == 0 else -1]:
            if name in missing:
                continue
            result, problem = measure(name, pythons[name], slide)
            if result is None:
                missing[name] = problem
            else:
                runs[name].append(result)
    found = compare({name: done for name, done in runs.items() if done and name not in missing}, missing)
    for table in found.tables:
        print(f"{table.title}\n{markdown(table.header, table.rows)}")
    write_found(wanted.out, "peers", found, here)
    update_page(ROOT / "docs" / "performance.md", read_all(wanted.out))
    return 0


def install(name: str, folder: Path) -> tuple[Path, str]:
    """The Python of a peer's environment, made unless it is there; and why it could not be made."""
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python, ""
    peer = PEERS[name]
    venv.create(folder, with_pip=True)
    command = [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", *peer.options, *peer.packages]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return python, f"pip had not finished after {PATIENCE_S} s"
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        return python, "cannot be installed: " + (errors or ["pip failed"])[-1].removeprefix("ERROR: ")
    done.touch()
    return python, ""


def measure(name: str, python: Path, slide: Path) -> tuple[dict[str, Any] | None, str]:
    """Output of a peer's script, or its error."""
    command = [str(python), "-m", f"benchmarks.peers.with_{name}", str(slide.absolute()), str(TILES)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY"), "1")
    time.sleep(1)  # let the machine settle
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | threads, timeout=PATIENCE_S
    )
    if result.returncode:
        return None, "does not run: " + (result.stderr.strip().splitlines() or ["no message"])[-1][:200]
    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return found, ""


def compare(runs: dict[str, list[dict[str, Any]]], missing: dict[str, str]) -> Found:
    """Medians, and ours against the best."""
    rates = {name: statistics.median(run["tiles_per_s"] for run in done) for name, done in runs.items()}
    masks = {name: statistics.median(run["mask_s"] for run in done) for name, done in runs.items()}
    figures: dict[str, float] = {}
    peers = [name for name in rates if name not in (OURS, "openslide")]
    if peers:
        figures = {
            "peers_tiles": rates[OURS] / max(rates[name] for name in peers),
            "peers_mask": masks[OURS] / min(masks[name] for name in peers),
        }
    rows: list[tuple[str | float, ...]] = [
        (f"{name} {done[0]['version']}", masks[name], done[0]["coordinates"], rates[name])
        for name, done in runs.items()
    ]
    rows += [(name, problem, "", "") for name, problem in missing.items()]
    header = ("library", "mask and coordinates, s", "tiles found", "reading, tiles/s")
    title = f"{SIDE_PX} px square, {TILES} tiles of 256 px, one processor, medians"
    return Found(figures, (Table(title, header, tuple(rows)),), {"runs": runs, "missing": missing})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PEERS, help="these peers alone")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--work", type=Path, default=ROOT / "bench-work", help="keeps environments and slides")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where JSON goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
