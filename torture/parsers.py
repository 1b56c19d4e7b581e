"""Broken files to every parser: each reads it, or says in one line why it does not, soon and in little memory."""

import io
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

from he2her2.cli.console import one_line
from he2her2.config import Config, load_config, to_toml
from he2her2.datasets import read_tcga_brca
from he2her2.errors import He2Her2Error, ManifestError
from he2her2.evaluation import Question, evaluate
from he2her2.geometry import GlassFrame, Size, SlideFrame
from he2her2.manifest import label_tests, patients_used, raise_problems, read_manifest, write_manifest
from he2her2.models import Card, Role, read_card, read_domain, read_rules, trained_folder
from he2her2.phantom import load_cohort
from he2her2.preprocessing import read_annotation
from he2her2.results import open_run
from he2her2.training.settings import load_training
from torture import sound_files as sound
from torture.children import CPU_S, MEMORY_BYTES
from torture.endings import BROKEN, Ending, Tally
from torture.texts import Files, edited, edited_json, tables

_LONGEST_LINE = 3000
_MOST_DRAWINGS = 20


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, or several of one kind of file.

    Attributes:
        files: Files that it can be given, by their path in a folder, each with its broken forms.
        parse: Reads them from the folder.
        prepare: Writes the sound files of the folder.
    """

    files: Mapping[str, Files]
    parse: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda _: None


def torture_parsers(
    n: int, work: Path, *, first: int = 0, report: Callable[[int, Tally], None] = lambda *_: None
) -> Tally:
    """Give broken files to each parser.

    Args:
        n: How many in all.
        work: Folder for them; those that broke something are kept in its folder `broken`.
        first: Seed of the drawings.
        report: Called after each file with the number done and the endings so far.

    Returns:
        The endings by parser.
    """
    shutil.rmtree(work, ignore_errors=True)
    tally = Tally()
    targets = _targets()
    for i, (name, target) in enumerate(targets.items()):
        share = (n + len(targets) - 1 - i) // len(targets)
        folder = work / name
        folder.mkdir(parents=True)
        target.prepare(folder)
        for file, content in _drawn(target, share, first):
            whole = folder / file
            before = whole.read_bytes() if whole.exists() else None
            whole.write_bytes(content)
            ending, words = tried(target.parse, folder)
            tally.add(name, ending, f"{file}: {words}")
            if ending in BROKEN:
                (work / "broken").mkdir(exist_ok=True)
                (work / "broken" / f"{name} {len(tally.broken)} {whole.name}").write_bytes(content)
            if before is not None:
                whole.write_bytes(before)
            report(tally.total(), tally)
    return tally


def _drawn(target: Target, n: int, first: int) -> list[tuple[str, bytes]]:
    """Broken files of a target."""
    found: list[tuple[str, bytes]] = []
    either = st.one_of([st.tuples(st.just(file), broken) for file, broken in target.files.items()])

    def collect(drawn: tuple[str, bytes]) -> None:
        found.append(drawn)

    chosen = settings(
        max_examples=n, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    for again in range(_MOST_DRAWINGS):  # each ends early where it thinks that it has seen all
        if len(found) < n:
            seed(first + again)(chosen(given(either)(collect)))()
    return found[:n]


def tried(parse: Callable[[Path], object], folder: Path) -> tuple[Ending, str]:
    """The ending of a parser in a folder."""
    start, before = time.process_time(), _memory_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parse(folder)
        ending, words = Ending.ANSWERED, ""
    except He2Her2Error as error:
        ending, words = Ending.REFUSED, ""
        lines = error.problems if isinstance(error, ManifestError) else (str(error),)
        if any(not line.strip() or len(one_line(line)) > _LONGEST_LINE for line in lines):
            ending, words = Ending.CRASHED, f"no line for people: {lines[0]!r:.300}"
    except Exception as error:  # noqa: BLE001  # a traceback is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        ending, words = Ending.CRASHED, f"{type(error).__name__}: {error!s:.200} ({where})"
    if (taken := time.process_time() - start) > CPU_S:
        return Ending.HUNG, f"{taken:.0f} s"
    if _memory_bytes() - before > MEMORY_BYTES:
        return Ending.FLOODED, "over 2 GB more than any file before"
    return ending, words


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _targets() -> dict[str, Target]:
    toml = to_toml(Config()).encode()
    return {
        "manifest": Target(
            {"manifest.csv": edited([sound.MANIFEST]) | tables(sound.MANIFEST_HEADINGS, sound.MANIFEST_CELLS)},
            _manifest,
        ),
        "table of TCGA": Target(
            {"clinical.tsv": edited([sound.TCGA]) | tables(sound.TCGA_HEADINGS, sound.TCGA_CELLS)},
            lambda folder: read_tcga_brca(folder / "clinical.tsv"),
        ),
        "table of tests": Target(
            {"tests.csv": edited([sound.TESTS]) | tables(sound.TESTS_HEADINGS, sound.TESTS_CELLS)},
            lambda folder: label_tests(folder / "tests.csv"),
        ),
        "GeoJSON": Target({"a.geojson": edited([sound.GEOJSON]) | edited_json([sound.GEOJSON])}, _annotation),
        "annotation XML": Target(
            {"a.xml": edited([sound.ASAP, sound.IMAGESCOPE, sound.SEDEEN, sound.NDPVIEW])}, _annotation
        ),
        "PNG mask": Target({"a.png": edited([_png("L"), _png("RGBA"), _png("P")])}, _annotation),
        "settings": Target(
            {"config.toml": edited([toml]), "training.toml": edited([sound.TRAINING]),
             "phantoms.toml": edited([sound.PHANTOMS])},
            _settings,
        ),
        "weights": _weights(),
        "run folder": _run_folder(),
    }  # fmt: skip


def _manifest(folder: Path) -> None:
    manifest = read_manifest(folder / "manifest.csv")
    raise_problems(manifest, manifest.problems)
    write_manifest(manifest, folder / "again.csv")


def _png(mode: str) -> bytes:
    file = io.BytesIO()
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[6:12, 8:20] = 255
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


_FRAME = SlideFrame(Size(512, 384), glass=GlassFrame((256.0, 192.0), (250.0, 250.0)))


def _annotation(folder: Path) -> None:
    """Read the one annotation file in a folder, and raster it."""
    (file,) = folder.iterdir()
    read_annotation(file, slide=folder / "slide.svs").mask(Size(64, 48), 8.0, _FRAME)


def _settings(folder: Path) -> None:
    """Read whichever settings are there; what they refuse last is raised."""
    for file in folder.iterdir():
        try:
            if file.name == "config.toml":
                load_config(file=file)
            elif file.name == "training.toml":
                load_training("slides", file=file)
            else:
                load_cohort(file)
        finally:
            file.unlink()


def _weights() -> Target:
    bundled = trained_folder("bundled")
    roles: tuple[Role, ...] = ("tumour_cnn", "tile_cnn", "aggregator")
    small = [f"{role}/card.json" for role in roles] + ["domain.json", "patients.json"]

    def prepare(folder: Path) -> None:
        for name in small:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(bundled / name, folder / name)

    def parse(folder: Path) -> None:
        cards: dict[str, Card] = {role: read_card(folder / role, role) for role in roles}
        read_domain(folder, cards)
        patients_used(folder)
        read_rules(folder, {})

    files = {name: _json_files([(bundled / name).read_bytes()]) for name in small}
    return Target(files | {"decision_rules.json": _json_files([sound.RULES])}, parse, prepare)


def _json_files(sounds: Sequence[bytes]) -> Files:
    return edited(sounds) | edited_json(sounds)


def _run_folder() -> Target:
    """A run of a dozen slides, each file of which is broken, evaluated."""
    rng = np.random.default_rng(0)
    slides = [
        MadeUpSlide(f"s{i}", f"p{i}", "positive" if i % 2 else "negative", "3+" if i % 2 else "0",
                    probability=round(float(rng.uniform(0.1, 0.9)), 6), scores=rng.uniform(0, 3, (6, 6)))
        for i in range(12)
    ]  # fmt: skip
    names = ["run.json", "predictions.csv", "failures.csv", "slides/s3/prediction.json", "slides/s3/tiles.h5"]
    files: dict[str, Files] = {}

    def prepare(folder: Path) -> None:
        write_run(folder / "run", slides)
        write_labels(folder / "manifest.csv", slides)

    def parse(folder: Path) -> None:
        run = open_run(folder / "run")
        run.result("s3")
        run.tiles("s3")
        evaluate(Question(folder / "run", folder / "manifest.csv"))

    with TemporaryDirectory() as scratch:
        prepare(Path(scratch))
        for name in names:
            content = (Path(scratch) / "run" / name).read_bytes()
            files[f"run/{name}"] = _json_files([content]) if name.endswith(".json") else edited([content])
    return Target(files, parse, prepare)


def lines(tally: Tally) -> Iterator[str]:
    """The part's table."""
    yield f"broken files to parsers: {tally.total()}"
    yield from tally.lines()
