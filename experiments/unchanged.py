"""Compares what two checkouts compute: slides, cohorts, evaluations, trainings, the tables of `make reproduce`.

    python -m experiments.unchanged --before ../before --after . --work FOLDER [--quick] [--only NAME]

Each checkout runs the same commands, in processes of its own, on the slides that the first one drew. What the first
one gave is kept in FOLDER/before and used again for as long as its commit and the command are the same. Equal means:
pixels, arrays and weights bit for bit; every cell of a table and every figure of a JSON file. A sentence may be put in
other words; that is counted, and is no difference. Paths, times and the hashes of settings are left out. Exit code 1 on
a difference.

It takes three minutes a checkout with --quick, else a quarter of an hour, on one core.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from typing import Any

import h5py
import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HE2HER2_DATA", REPOSITORY.parent / "shared" / "data"))

SKIPPED_KEYS = {
    *("path", "inputs", "command", "provenance", "versions", "run_digest", "digest", "sha256"),
    *("seconds", "timing", "created"),
}
WORDS = {"warnings", "notices", "reason", "remedy", "detail"}
"""Columns that hold sentences; a sentence is also every text with a space in a JSON file."""

COHORT = """
n = {n}
seed = 8
stains = ["{stain}"]
sites = ["her2sc-like", "brca-like"]
scores = {scores}
splits = {splits}

[slide]
size_px = [{side}, {side}]
tissue_extent = 0.6
tumour_share = 0.7
foci = 1
signal = 1.0
"""
TRAINING = """
[selection]
n_tiles = 20

[training]
epochs = 2
"""
REGION = '{"type": "Polygon", "coordinates": [[[300, 300], [2700, 500], [2500, 2700], [400, 2300], [300, 300]]]}'


@dataclass(frozen=True)
class Step:
    """A command that both checkouts run.

    Attributes:
        name: Its name, and that of its folder.
        words: Arguments of `he2her2`. `{out}` is the step's own folder; `{he}`, `{ihc}`, `{run}` and `{weights}` were
            drawn, predicted and trained by the first checkout, `{own_run}` was predicted by the same one; `{inputs}`
            holds the files of `write_inputs`, `{data}` the real slides.
        quick: Also run with --quick.
    """

    name: str
    words: str
    quick: bool = True

    @property
    def needs_data(self) -> bool:
        """True if it reads real slides."""
        return "{data}" in self.words


_TRAIN = "--accelerator cpu --config {inputs}/"
STEPS = (
    Step("he", "phantom {out} --config {inputs}/he.toml --threads 1"),
    Step("ihc", "phantom {out} --config {inputs}/ihc.toml --threads 1"),
    Step("run", "predict {he}/slides --out {out} --threads 1"),
    Step("segment", "segment {he}/slides --out {out} --threads 1"),
    Step("evaluate", "evaluate {run} --manifest {he}/manifest.csv --out {out} --no-plots"),
    Step(
        "evaluate-all",
        "evaluate {own_run} --manifest {he}/manifest.csv --out {out} --split all --weights bundled --policy paper "
        "--no-plots",
    ),
    Step("split", "split {he}/manifest.csv --out {out}/split.csv --seed 3"),
    Step("folds", "split {ihc}/manifest.csv --out {out} --folds 3 --repeats 2 --label ihc_score"),
    Step(
        "train-tumour",
        "train tumour --manifest {he}/manifest.csv --patches {inputs}/patches.npz --folds 2 --out {out} "
        f"{_TRAIN}tumour.toml",
    ),
    Step("train-tiles", f"train tiles --manifest {{ihc}}/manifest.csv --out {{out}} --threads 1 {_TRAIN}tiles.toml"),
    Step(
        "train-slides",
        "train slides --manifest {he}/manifest.csv --weights bundled --annotations-use replace --out {out} --threads 1 "
        f"{_TRAIN}slides.toml",
    ),
    Step(
        "old-weights",
        "predict {he}/slides/phantom-8-0001-HE.tif --weights {weights} --set selection.n_tiles=20 --out {out} "
        "--threads 1",
    ),
    Step(
        "paper",
        "predict {he}/slides/phantom-8-0000-HE.tif --out {out} --threads 1 --preset paper --set selection.n_tiles=20 "
        "--weights untrained:1 --annotations {inputs}/region.geojson --annotations-use replace",
    ),
    Step("demo", "demo --out {out} --threads 1"),
    Step("svs", "predict {data}/slides/CMU-1-Small-Region.svs --out {out} --threads 1"),
    Step(
        "jpeg2000",
        "predict {data}/slides/tcga-cr-7395-01a-01-ts1.svs --mpp 0.5 --weights untrained:1 --out {out} --threads 1",
    ),
    Step("folder", "predict {data}/slides --weights untrained:1 --set selection.n_tiles=50 --out {out} --threads 1"),
    Step("labels", "manifest tcga-brca --clinical {data}/labels/tcga_brca_her2.csv --out {out}/labels.csv"),
    Step("reproduce", "", quick=False),
)


def write_inputs(folder: Path) -> None:
    """Write the settings, a region and patches that steps take; the patches are noise, dark where they are invasive."""
    folder.mkdir(parents=True, exist_ok=True)
    he = COHORT.format(n=10, stain="HE", scores=[0.2, 0.2, 0.2, 0.4], splits=[0.4, 0.2, 0.4], side=3072)
    ihc = COHORT.format(n=8, stain="IHC", scores=[0.25] * 4, splits=[0.5, 0.5, 0.0], side=2048)
    texts = {
        "he.toml": he,
        "ihc.toml": ihc,
        "slides.toml": TRAINING,
        "tiles.toml": TRAINING + "tiles_per_class = 60\nval_tiles_per_class = 30\n",
        "tumour.toml": TRAINING + "patches_per_slide = 40\n",
        "region.geojson": REGION,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    rng, invasive = np.random.default_rng(0), np.arange(120) % 2
    noise = rng.integers(60, 240, (120, 50, 50, 3), np.uint8) - (50 * invasive[:, None, None, None]).astype(np.uint8)
    patients = np.array([f"p{i // 6}" for i in range(120)])
    corner = np.arange(120)
    np.savez(folder / "patches.npz", patch=noise, invasive=invasive, patient=patients, x=corner, y=corner)


# Running


@dataclass(frozen=True)
class Side:
    """One of the two checkouts, and where its results go."""

    name: str
    checkout: Path
    work: Path

    def folder(self, step: Step) -> Path:
        """Folder of a step's results."""
        return self.work / self.name / step.name

    def command(self, step: Step) -> list[str]:
        """A step's command line."""
        first = self.work / "before"
        drawn = {name: first / name for name in ("he", "ihc", "run")} | {"weights": first / "train-slides" / "weights"}
        own = {"out": self.folder(step), "own_run": self.work / self.name / "run"}
        paths = {"inputs": self.work / "inputs", "data": DATA, **drawn, **own}
        return [sys.executable, "-m", "he2her2", *step.words.format(**paths).split()]

    def run(self, step: Step) -> float:
        """Run a step; gives its seconds. Its exit code is written as `exit_code.csv`, to be compared as all else is."""
        folder, start = self.folder(step), perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if step.name == "reproduce":
            code = self._reproduce(folder)
        else:
            code = self._process(self.command(step), self.checkout, self.work, folder.with_suffix(".log"))
        folder.mkdir(exist_ok=True)
        (folder / "exit_code.csv").write_text(f"exit_code\n{code}\n", "utf-8")
        return perf_counter() - start

    def _reproduce(self, folder: Path) -> int:
        """Run `experiments.reproduce` in a copy of the checkout, since it writes beside itself; keep its tables."""
        copy, tables = folder.with_name("reproduce-checkout"), Path("experiments", "results", "reproduce")
        shutil.rmtree(copy, ignore_errors=True)
        for name in ("src", "experiments"):
            shutil.copytree(self.checkout / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        drawn = self.work / "before" / "reproduce-checkout" / "run" / "cohorts"
        if self.name != "before":
            shutil.copytree(drawn, copy / "run" / "cohorts")
        shutil.rmtree(copy / tables)
        words = [sys.executable, "-m", "experiments.reproduce", "--work", "run", "--threads", "1"]
        code = self._process(words, copy, copy, folder.with_suffix(".log"))
        shutil.copytree(copy / tables, folder)
        return code

    def _process(self, words: Sequence[str], checkout: Path, at: Path, log: Path) -> int:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = os.environ | threads | {"PYTHONPATH": str(checkout / "src")}
        with log.open("w", encoding="utf-8") as out:
            return subprocess.run(words, cwd=at, env=environment, stdout=out, stderr=out, check=False).returncode


def run_before(side: Side, step: Step) -> None:
    """Run a step of the first checkout, unless its results are there of the same commit and command."""
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=side.checkout, text=True).strip()
    mark, made_of = side.folder(step).with_suffix(".done"), f"{commit} {step.words}\n"
    if mark.is_file() and mark.read_text("utf-8") == made_of:
        return
    print(f"before  {step.name:14} {side.run(step):6.0f} s", flush=True)
    mark.write_text(made_of, "utf-8")


# Comparing: each gives what differs, as (place, what)

Difference = tuple[str, str]


def compare_bytes(before: Path, after: Path) -> Iterator[Difference]:
    """Compare whole files."""
    if hashlib.sha256(before.read_bytes()).digest() != hashlib.sha256(after.read_bytes()).digest():
        yield "bytes", "differ"


def compare_pixels(before: Path, after: Path) -> Iterator[Difference]:
    """Compare pictures by their pixels."""
    yield from compare_arrays("pixels", np.asarray(Image.open(before)), np.asarray(Image.open(after)))


def compare_arrays(place: str, before: np.ndarray, after: np.ndarray) -> Iterator[Difference]:
    """Compare arrays by type, shape and every bit."""
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        yield place, f"{before.dtype} {before.shape} -> {after.dtype} {after.shape}"
    elif before.tobytes() != after.tobytes():
        unequal = np.argwhere(before != after)
        most = np.abs(np.subtract(before, after, dtype=float)).max()
        yield place, f"{len(unequal)} of {before.size} values, by at most {most:.3g}"


def compare_h5(before: Path, after: Path) -> Iterator[Difference]:
    """Compare the arrays of an HDF5 file and their attributes."""
    with h5py.File(before) as old, h5py.File(after) as new:
        for name in sorted({*old, *new}):
            if name not in old or name not in new:
                yield name, "missing" if name in old else "added"
                continue
            yield from compare_arrays(name, old[name][()], new[name][()])
            yield from compare_values(name, _plain(old[name].attrs), _plain(new[name].attrs))


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for name, value in attributes.items()
    }


def compare_json(before: Path, after: Path) -> Iterator[Difference]:
    """Compare every value of a JSON file."""
    yield from compare_values("", json.loads(before.read_text("utf-8")), json.loads(after.read_text("utf-8")))


def compare_values(place: str, before: object, after: object) -> Iterator[Difference]:
    """Compare nested dictionaries, lists and plain values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            at = f"{place}/{key}"
            if key in SKIPPED_KEYS:
                continue
            if key not in after or key not in before:
                yield at, "missing" if key in before else "added"
            else:
                yield from compare_values(at, before[key], after[key])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from compare_values(f"{place}/{i}", old, new)
    elif type(before) is not type(after) or before != after:
        words = isinstance(before, str) and isinstance(after, str) and " " in before
        yield place, "words" if words else f"{_short(before)} -> {_short(after)}"


def compare_csv(before: Path, after: Path) -> Iterator[Difference]:
    """Compare a table cell by cell, and its columns with their order."""
    old, new = (list(csv.DictReader(file.read_text("utf-8").splitlines())) for file in (before, after))
    columns = [next(csv.reader(file.read_text("utf-8").splitlines()[:1]), []) for file in (before, after)]
    if columns[0] != columns[1]:
        yield "columns", f"{columns[0]} -> {columns[1]}"
    if len(old) != len(new):
        yield "rows", f"{len(old)} -> {len(new)}"
    for i, (one, other) in enumerate(zip(old, new, strict=False)):
        for column in columns[0]:
            if column not in SKIPPED_KEYS and one[column] != other.get(column):
                what = f"{_short(one[column])} -> {_short(other.get(column))}"
                yield f"{i}/{column}", "words" if column in WORDS else what


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


Compare = Callable[[Path, Path], Iterator[Difference]]
KINDS: Mapping[str, Compare] = {
    "tiles.h5": compare_h5,
    "weights.safetensors": compare_bytes,
    "*.tif": compare_bytes,
    "*.png": compare_pixels,
    "*.csv": compare_csv,
    "*.json": compare_json,
    "*.geojson": compare_json,
}
"""Comparison of a file, by its name; all others are prose, logs, or follow from these."""

SKIPPED_FILES = ("run.json", "*/checkpoints/*")


def compare_step(step: Step, sides: Sequence[Side]) -> dict[str, list[Difference]]:
    """Compare a step's files; gives the differences, as (file:place, what), by what the files hold."""
    before, after = (side.folder(step) for side in sides)
    found: dict[str, list[Difference]] = {}
    for file in sorted({name for folder in (before, after) for name in _files(folder)}):
        compare = next(compare for pattern, compare in KINDS.items() if fnmatch(Path(file).name, pattern))
        differences = found.setdefault(Path(file).name if Path(file).suffix != ".tif" else "*.tif", [])
        if not (after / file).exists() or not (before / file).exists():
            differences.append((file, "missing" if (before / file).exists() else "added"))
            continue
        differences += [(f"{file}:{place}", what) for place, what in compare(before / file, after / file)]
    return found


def _files(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        known = any(fnmatch(file.name, pattern) for pattern in KINDS)
        if known and not any(fnmatch(name, pattern) for pattern in SKIPPED_FILES):
            yield name


def tell(step: Step, thing: str, differences: Sequence[Difference]) -> bool:
    """Print a line for one kind of file; tells whether something differs."""
    n_words = sum(what == "words" for _, what in differences)
    wrong = [(place, what) for place, what in differences if what != "words"]
    verdict = f"DIFFERS in {len(wrong)}" if wrong else "equal"
    print(f"{step.name:14} {thing:28} {verdict}{f'; {n_words} sentences in other words' * bool(n_words)}")
    for place, what in wrong[:5]:
        print(f"{'':14}   {place}  {what}")
    return bool(wrong)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both checkouts and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--after", type=Path, default=REPOSITORY, help="the checkout to look at")
    parser.add_argument("--work", type=Path, required=True, help="where results go; those of --before are kept")
    parser.add_argument("--quick", action="store_true", help="without `make reproduce`")
    parser.add_argument("--only", action="append", help="a step; may be given again")
    parser.add_argument("--prepare", action="store_true", help="run the first checkout only")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    sides = Side("before", options.before.resolve(), work), Side("after", options.after.resolve(), work)
    write_inputs(work / "inputs")
    wrong = False
    for step in STEPS:
        if (step.needs_data and not DATA.is_dir()) or (options.quick and not step.quick):
            print(f"{step.name:14} not run")
            continue
        run_before(sides[0], step)
        if options.prepare or (options.only and step.name not in options.only):
            continue
        print(f"after   {step.name:14} {sides[1].run(step):6.0f} s", flush=True)
        for thing, differences in compare_step(step, sides).items():
            wrong |= tell(step, thing, differences)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
