"""Memory: peak for a very large slide, and growth from ten slides to a hundred.

Each is measured in a process of its own, which runs `python -m benchmarks.memory KIND WORK [--quick]` and prints JSON.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shapely import box

from benchmarks.measuring import status_gb
from benchmarks.phantom_slide import phantom_slide
from benchmarks.results import Found, Setting, Table
from he2her2.cohort import SlideEngine, SlideWorker, find_slides
from he2her2.config import load_config
from he2her2.evaluation.plot_style import BLUE, Note, canvas, save
from he2her2.geometry import Size
from he2her2.models import load_slide_model
from he2her2.pipeline import predict
from he2her2.preprocessing import DrawnRegions, Region
from he2her2.results import Evidence, MadeOf, SlideFolders, SlideInputs, prediction_evidence
from he2her2.slides import open_slide
from he2her2.timing import Watch

LARGE = Size(100_000, 80_000)
SMALL = Size(6_144, 6_144)
SETTLED = 10
"""Slides before memory is compared; by then everything loaded once is loaded."""

QUICK = ("selection.n_tiles=5", "adaptive.iterations=2", "adaptive.points=20")


def measure(setting: Setting) -> Found:
    """Measure the peak of a large slide, GB, and the growth over many small ones."""
    large, many = (_in_process(kind, setting) for kind in ("large", "many"))
    now = many["gb"]
    early, late = now[SETTLED : 2 * SETTLED] or now[:1], now[-SETTLED:]
    growth = 100 * (max(late) / max(early) - 1)
    title = "Memory of a process that predicts (VmHWM, VmRSS)"
    rows: tuple[tuple[str | float, ...], ...] = (
        (f"peak, one slide of {large['size'][0]} x {large['size'][1]} px, {large['tiles']} tiles", large["peak_gb"]),
        (f"after {min(2 * SETTLED, len(now))} slides", max(early)),
        (f"after {len(now)} slides", max(late)),
    )
    plot(setting, now)
    figures = {"peak_gb": large["peak_gb"], "growth": growth}
    return Found(figures, (Table(title, ("what", "GB"), rows),), {"large": large, "many": many})


def plot(setting: Setting, held: list[float]) -> None:
    """Plot the memory after each slide."""
    with canvas("Memory over slides") as (figure, axes):
        axes.plot(range(1, len(held) + 1), [1000 * gb for gb in held], color=BLUE)
        axes.set(xlabel="slides predicted by one process", ylabel="MB held", ylim=(0, None))
        save(figure, Note(f"Resident memory after each of {len(held)} predictions."), setting.plots / "memory.png")


def _in_process(kind: str, setting: Setting) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(setting.work.absolute())]
    if setting.quick:
        command.append("--quick")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def predict_large(setting: Setting) -> dict[str, Any]:
    """Predict a large slide, the evidence included; an annotation limits it to about 10 000 tiles, to save time."""
    size = LARGE if not setting.quick else Size(2048, 2048)
    path = phantom_slide(setting, size)
    config = load_config(overrides=QUICK if setting.quick else ())
    model = load_slide_model("bundled" if not setting.quick else "untrained:0", config)
    side = setting.pick(100, 6) * 256
    drawn = DrawnRegions((Region(box(0, 0, side, side), "Tumor"),))
    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        found = predict(slide, model, config, annotation=drawn, region_use="intersect")
        evidence = prediction_evidence(slide, found, model, config, Watch())
        SlideFolders(Path(folder)).write("slide", MadeOf("", SlideInputs("")), evidence)
    return {"size": size, "tiles": len(found.grid), "peak_gb": status_gb("VmHWM")}


def predict_many(setting: Setting) -> dict[str, Any]:
    """Predict one slide after the other as `he2her2 predict FOLDER` does, and record the memory after each, GB."""
    config = load_config(overrides=(*QUICK, "adaptive.iterations=4", "adaptive.points=40"))
    model = load_slide_model("untrained:0", config)
    path = phantom_slide(setting, SMALL if not setting.quick else Size(2048, 2048))
    with tempfile.TemporaryDirectory() as folder:
        slides = SlideFolders(Path(folder))
        held = []
        for _, evidence in SlideEngine().run(
            find_slides([path]).tasks * setting.pick(100, 2), SlideWorker(model, config)
        ):
            assert isinstance(evidence, Evidence)
            slides.write(evidence.result.slide_id, MadeOf("", SlideInputs("")), evidence)
            held.append(status_gb("VmRSS"))
    return {"slides": len(held), "gb": held}


def main() -> None:
    """Measure in this process and print JSON."""
    kind, work, *quick = sys.argv[1:]
    setting = Setting(Path(work), quick=bool(quick), plots=Path(work))
    print(json.dumps({"large": predict_large, "many": predict_many}[kind](setting)))


if __name__ == "__main__":
    main()
