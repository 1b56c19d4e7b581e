"""Mutated slides of six kinds through `predict` and `inspect`: refused or answered, and seldom silently wrong.

A flipped bit inside a JPEG, or a digit of a µm per pixel, cannot be noticed by anybody: such answers are counted as
silent, and those whose HER2 status is another one beside them.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tests.slide_files import SlideSpec, pyramid, write_slide

from he2her2.geometry import Rgb
from he2her2.method import MASKS
from he2her2.phantom import Painter, Window, make_spec
from torture.children import Children, Ended
from torture.damage import DAMAGES, Sound
from torture.endings import BROKEN, Ending, Tally

KINDS: Mapping[str, SlideSpec] = MappingProxyType({
    "JPEG": SlideSpec("jpeg", "aperio", tile=128),
    "JPEG 2000": SlideSpec("jpeg2000", "aperio", tile=128),
    "LZW": SlideSpec("lzw", "generic", tile=128, predictor=True),
    "deflate": SlideSpec("zlib", "generic", tile=128),
    "OME": SlideSpec("jpeg", "ome", tile=128),
    "BigTIFF": SlideSpec("jpeg", "subifd", tile=128, bigtiff=True, tables=True),
})  # fmt: skip
"""Kinds of slides by name."""

_SIDE = 1280
SETTINGS = ("--threads", 1, "--set", "selection.n_tiles=5", "--set", "networks.aggregator=mean",
            "--set", "adaptive.iterations=4")  # fmt: skip
"""Options of a prediction in half a second."""
_OPENSLIDE_EVERY, _INSPECT_EVERY = 5, 7
_EVIDENCE = {f"{name}.png" for name in (*MASKS, "tumour_map", "overlay")} | {"tumour_samples.csv"}  # of a failure
_ANSWER = ("status", "probability", "tile_score", "tiles", "quality", "colour", "area_mm2", "counts")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a prediction says.

    Attributes:
        said: Status, probability, colours, areas and counts.
        warnings: Sentences beside them.
    """

    said: Mapping[str, Any]
    warnings: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Answer":
        """The answer of `predict --json`.

        Raises:
            ValueError: It is none.
        """
        record = json.loads(text, parse_constant=_no_json)
        return cls({key: record[key] for key in _ANSWER}, frozenset(record["warnings"]))


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} in JSON")


def torture_slides(
    n: int, work: Path, *, seed: int = 0, report: Callable[[int, Tally], None] = lambda *_: None
) -> tuple[Tally, int]:
    """Predict and inspect mutated slides.

    Args:
        n: How many.
        work: Folder for slides and runs; those that broke something are kept in its folder `broken`.
        seed: Of the damages.
        report: Called after each slide with the number done and the endings so far.

    Returns:
        The endings by kind, and the number of silent answers whose status is another.
    """
    shutil.rmtree(work, ignore_errors=True)
    pixels = _phantom()
    sounds = {kind: _sound(work / "sound" / f"{kind}.tif", pixels, spec) for kind, spec in KINDS.items()}
    tally, n_flipped = Tally(), 0
    with Children(work / "output") as children:
        right = {kind: _answer_of_the_sound(children, work / "sound" / f"{kind}.tif") for kind in KINDS}
        for i in range(n):
            kind = list(KINDS)[i % len(KINDS)]
            rng = np.random.default_rng((seed, i))
            damage = list(DAMAGES)[rng.integers(len(DAMAGES))]
            slide = work / "slides" / f"slide{'.ome' * (kind == 'OME')}.tif"
            slide.parent.mkdir(exist_ok=True)
            slide.write_bytes(DAMAGES[damage](sounds[kind], rng))
            ending, words, flipped = _try(children, slide, i, right[kind])
            n_flipped += flipped
            tally.add(kind, ending, f"number {i} of seed {seed} ({damage}): {words}")
            if ending in BROKEN:
                (work / "broken").mkdir(exist_ok=True)
                shutil.copy(slide, work / "broken" / f"{seed}-{i}-{slide.name}")
            report(i + 1, tally)
    return tally, n_flipped


def _phantom() -> Rgb:
    """Pixels of a small phantom slide that is predicted as it is."""
    spec = make_spec(seed=8, ihc_score="3+", signal=1.0, size_px=(_SIDE, _SIDE))
    drawn: Rgb = Painter.of(spec).pixels(Window(0, 0, _SIDE, _SIDE, spec.mpp))[0][..., :3]
    return drawn


def _sound(path: Path, pixels: Rgb, spec: SlideSpec) -> Sound:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Sound.of(write_slide(path, pyramid(pixels, (1, 4, 16)), spec))


def _answer_of_the_sound(children: Children, slide: Path) -> Answer:
    ended = children.run("predict", slide, "--out", slide.parent / "run" / slide.stem, "--json", *SETTINGS)
    if ended.code != 0:
        raise AssertionError(f"{slide.name}: the sound slide is not predicted: {ended}")
    return Answer.of(ended.out)


def _try(children: Children, slide: Path, i: int, right: Answer) -> tuple[Ending, str, bool]:
    """The ending of one slide, in words too, and whether a status silently became another."""
    reader = ("--backend", "openslide") if i % _OPENSLIDE_EVERY == 0 else ()
    if i % _INSPECT_EVERY == 0:
        ended = children.run("inspect", slide, "--deep", *reader)
        return *plain_ending(ended), False
    run = slide.parent / "run"
    shutil.rmtree(run, ignore_errors=True)
    ended = children.run("predict", slide, "--out", run, "--json", *reader, *SETTINGS)
    ending, words = plain_ending(ended)
    left = [path.name for path in run.rglob("*") if path.is_file() and path.name not in _EVIDENCE]
    if ending == Ending.REFUSED and left:
        return Ending.LOST, f"refused, and left {', '.join(left)}", False
    if ending != Ending.ANSWERED:
        return ending, words, False
    try:
        answer = Answer.of(ended.out)
    except (ValueError, KeyError) as error:
        return Ending.CRASHED, f"its JSON: {error!r}", False
    if answer.said == right.said or answer.warnings - right.warnings:
        return Ending.ANSWERED, "", False
    return Ending.SILENT, "", answer.said["status"] != right.said["status"]


def plain_ending(ended: Ended) -> tuple[Ending, str]:
    """The ending of a command, whatever it answered."""
    said = " | ".join(ended.err.strip().splitlines()[-3:])
    if ended.hung:
        return Ending.HUNG, f"{ended.cpu_s:.0f} s of processor time, {ended.wall_s:.0f} s by the clock"
    if ended.flooded:
        return Ending.FLOODED, f"{ended.memory_bytes / 1e9:.1f} GB"
    if ended.signal is not None:
        return Ending.CRASHED, f"signal {ended.signal}; {said}"
    if ended.code == 0:
        return Ending.ANSWERED, ""
    lines = ended.err.splitlines()
    refused = ended.code in (1, 2) and len(lines) == 1 and lines[0].startswith("he2her2: ") and lines[0].isprintable()
    return (Ending.REFUSED, "") if refused else (Ending.CRASHED, f"exit code {ended.code}: {said}")


def lines(tally: Tally, n_flipped: int) -> Iterator[str]:
    """The part's table."""
    yield f"mutated slides: {tally.total()}"
    yield from tally.lines()
    yield f"  silent answers with another HER2 status: {n_flipped}"
