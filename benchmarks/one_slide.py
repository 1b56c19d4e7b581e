"""Time of one slide: the stages of `predict` as it measures them itself, and the work of its threads."""

import statistics
import tempfile
from pathlib import Path

from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table
from he2her2.config import load_config
from he2her2.geometry import Size
from he2her2.models import SlideModel, load_slide_model
from he2her2.pipeline import predict
from he2her2.results import MadeOf, SlideFolders, SlideInputs, prediction_evidence
from he2her2.slides import open_slide
from he2her2.timing import Watch

SIDE_PX = 24_576
QUICK = ("selection.n_tiles=5", "adaptive.iterations=2", "adaptive.points=20")


def measure(setting: Setting) -> Found:
    """Measure the median seconds of each stage: default preset, bundled weights, all cores."""
    side = SIDE_PX if not setting.quick else 2048
    path = phantom_slide(setting, Size(side, side))
    overrides = QUICK if setting.quick else ()
    with (watch := Watch()).stage("load networks"):
        model = load_slide_model("bundled" if not setting.quick else "untrained:0", load_config(overrides=overrides))
    watches = [once(path, model, overrides) for _ in range(setting.pick(3, 1))]
    stages = {"load networks": watch.stages["load networks"]}
    stages |= {name: statistics.median(each.stages[name] for each in watches) for name in watches[0].stages}
    total = sum(stages.values())
    streams = watches[-1].streams
    n_tiles = streams["tiles"].tiles
    by_stage = Table(
        f"One slide of {side} x {side} px, {n_tiles} tiles, preset default, bundled weights",
        ("stage", "s", "share"),
        (*((name, seconds, f"{seconds / total:.0%}") for name, seconds in stages.items()), ("all", total, "100%")),
    )
    header = ("stage", "tiles", "tiles/s", "CNN", "reading", "disk", "other")
    by_thread = Table(
        "What the threads did in the stages that stream tiles, as shares of their time",
        header,
        tuple(
            (name, times.tiles, times.rate, *(f"{times.shares[part]:.0%}" for part in header[3:]))
            for name, times in streams.items()
        ),
    )
    return Found({"slide_s": total}, (by_stage, by_thread), {"stages_s": [each.stages for each in watches]})


def once(path: Path, model: SlideModel, overrides: tuple[str, ...]) -> Watch:
    """Predict the slide and write its evidence."""
    config, watch = load_config(overrides=overrides), Watch()
    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        found = predict(slide, model, config, watch=watch)
        with watch.stage("evidence"):
            evidence = prediction_evidence(slide, found, model, config, watch)
            SlideFolders(Path(folder)).write("slide", MadeOf("", SlideInputs("")), evidence)
    return watch
