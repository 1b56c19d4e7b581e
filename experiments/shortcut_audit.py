"""Does the shortcut audit cry where tissue size encodes the label, and stay silent where it does not?

1. Phantoms: two cohorts of small H&E slides at signal 0, predicted with untrained weights and evaluated by the
   command's own code. In one, positive slides carry more tissue; in the other, tissue does not know the label.
2. Simulation: how often the whole family of shortcuts alarms in cohorts without any, and how often it finds a tissue
   area that differs by so many standard deviations, or a relation that does not rise or fall: an inverted U of tissue
   area, tissue area and colour turned round (XOR), colour that varies more among the positives.

Run: python -m experiments.shortcut_audit [--slides 24] [--cohorts 300] [--out FOLDER]
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from he2her2.cohort import Ledger, SlideEngine, SlideWorker, find_slides
from he2her2.config import load_config
from he2her2.evaluation import Cases, Question, SlideProperties, evaluate
from he2her2.evaluation.audits.shortcuts import any_shape, candidates_of, permutation_p
from he2her2.evaluation.slide_properties import COLOUR, PROPERTIES
from he2her2.models import load_slide_model
from he2her2.phantom import make_spec, write_phantom
from he2her2.results import NetworkNote, plan_run
from he2her2.statistics import exact_binomial, holm

RESULTS = Path(__file__).resolve().parent / "results"
QUICK = ("selection.n_tiles=5", "adaptive.iterations=2", "adaptive.points=20")
SIZE_PX = (2048, 2048)
SHUFFLES = 399
GAPS = (0.0, 0.5, 1.0, 1.5)
KINDS = ("gap", "inverted U", "XOR with red", "colour variance")
"""Relations of the label: a gap in tissue area; and three that no linear test sees."""

SIZES = (30, 60, 120)


def draw_cohort(folder: Path, n: int, *, planted: bool, seed: int) -> Path:
    """Slides and manifest; where `planted`, the positives' tissue is larger."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        positive = k % 2 == 1
        extent = 0.45 + 0.12 * (positive if planted else rng.integers(2)) + rng.uniform(-0.06, 0.06)
        score = "3+" if positive else "0"
        spec = make_spec(
            seed=seed * 1000 + k, size_px=SIZE_PX, ihc_score=score, signal=0.0, tissue_extent=extent, foci=1
        )
        name = f"phantom-shortcut-{k:03d}"
        write_phantom(folder / "slides" / f"{name}.tif", spec)
        rows.append([name, f"slides/{name}.tif", name, "HE", score, spec.her2_status.value])
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        head = ["slide_id", "path", "patient_id", "stain", "ihc_score", "her2_status"]
        csv.writer(file).writerows([head, *rows])
    return folder / "manifest.csv"


def predicted(folder: Path) -> Path:
    """A predict run over the slides, with untrained weights."""
    config = load_config(overrides=QUICK)
    model = load_slide_model("untrained:0", config)
    run = plan_run(
        folder / "run",
        command=["experiments.shortcut_audit"],
        config=config,
        weights=[NetworkNote.of(card) for card in model.cards.values()],
        overrides={"verb": "predict"},
    )
    worker = SlideWorker(model, replace(config, runtime=replace(config.runtime, threads=1)))
    tasks = find_slides([folder / "slides"]).tasks
    for _, outcome in SlideEngine().run(tasks, worker, Ledger(run.slides, run.digest)):
        run.tables.add(outcome)
    run.write_description()
    run.tables.write()
    return folder / "run"


@dataclass(frozen=True)
class OnPhantoms:
    """Result of the audit on a phantom cohort.

    Attributes:
        planted: Whether tissue size encodes the label.
        slides: How many.
        alarm: Whether it alarmed.
        sentence: What it said.
        predicting: The shortcuts that it named.
        model: AUC of the untrained model, with its interval.
    """

    planted: bool
    slides: int
    alarm: bool
    sentence: str
    predicting: list[str]
    model: str


def on_phantoms(n: int, *, planted: bool, seed: int) -> OnPhantoms:
    """Draw a phantom cohort, predict and evaluate it."""
    with tempfile.TemporaryDirectory() as name:
        manifest = draw_cohort(Path(name), n, planted=planted, seed=seed)
        evaluation = evaluate(Question(predicted(Path(name)), manifest, weights="untrained:0"))
    audit = next(audit for audit in evaluation.audits if audit.name == "shortcuts")
    named = [str(row["shortcut"]) for row in audit.rows if row["predicts"]]
    model = evaluation.patients["AUC"].text()
    return OnPhantoms(planted, len(evaluation.joined.slides), audit.alarm, audit.sentence, named, model)


@dataclass(frozen=True)
class AlarmRate:
    """False alarms of the family of shortcuts in simulated cohorts.

    Attributes:
        kind: Relation between label and properties.
        n: Patients of a cohort.
        gap: How far the classes' tissue areas lie apart, in standard deviations of their logarithm.
        cohorts: How many cohorts.
        alarms: In how many of them it alarmed.
        linear: In how many it would have alarmed by the linear tests alone.
    """

    kind: str
    n: int
    gap: float
    cohorts: int
    alarms: int
    linear: int

    @property
    def row(self) -> str:
        """Of the page's table."""
        area = f"{stats.norm.cdf(self.gap / np.sqrt(2)):.2f}" if self.kind == "gap" else ""
        share = exact_binomial(self.alarms, self.cohorts).percent(1)
        what = f"gap {self.gap}" if self.kind == "gap" else self.kind
        return f"| {what} | {self.n} | {area} | {self.linear} | {self.alarms} of {self.cohorts} | {share} |"


def alarm_rate(kind: str, n: int, gap: float, cohorts: int) -> AlarmRate:
    """Simulate cohorts and count alarms."""
    alarms = np.array([_alarms(kind, n, gap, seed) for seed in range(cohorts)])
    return AlarmRate(kind, n, gap, cohorts, *alarms.sum(axis=0).tolist())


def _related(kind: str, values: dict[str, NDArray[np.float64]], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The label, related to the properties, which may be changed in place."""
    area, red = (np.argsort(np.argsort(values[name])) / len(truth) - 0.5 for name in ("tissue_mm2", "red"))
    if kind == "inverted U":
        return np.asarray(np.abs(area) < np.quantile(np.abs(area), 0.4))
    if kind == "XOR with red":
        return np.asarray((area > 0) ^ (red > 0))
    if kind == "colour variance":
        for name in COLOUR:
            values[name] = np.exp(np.log(values[name]) * np.where(truth, 3, 1))
    return truth


def _alarms(kind: str, n: int, gap: float, seed: int) -> tuple[bool, bool]:
    """Alarm of the whole audit, and of its linear tests alone."""
    rng = np.random.default_rng((seed, n, int(10 * gap), KINDS.index(kind)))
    truth = rng.permutation(n) < 0.4 * n
    ids, unknown = np.array([str(k) for k in range(n)]), np.full(n, -1)
    values = {name: np.exp(rng.normal(size=n)) for name in PROPERTIES}
    values["pen_share"] = np.where(rng.random(n) < 0.8, 0.0, rng.random(n))
    values["tissue_mm2"] = np.exp(rng.normal(size=n) + gap * truth)
    values["tile_count"] = 100 * values["tissue_mm2"] * np.exp(0.1 * rng.normal(size=n))
    truth = _related(kind, values, truth)
    cases = Cases(
        "patient", ids, ids, rng.choice(["a", "b", "c"], n), truth, rng.random(n), truth, unknown, unknown, 0.5
    )
    labels = np.stack([truth, *(rng.permutation(truth) for _ in range(SHUFFLES))])
    properties = SlideProperties(ids, values)
    linear = [permutation_p(columns, labels) for columns in candidates_of(cases, properties).values()]
    bent = any_shape(cases, properties, labels, rng)
    assert bent is not None
    by_line = min(holm(linear)) < 0.05
    return by_line or bent.p < 0.01, by_line


def as_markdown(phantoms: Sequence[OnPhantoms], rates: Sequence[AlarmRate]) -> Iterator[str]:
    """The page of results."""
    yield "# The shortcut audit on phantoms and in simulation\n"
    yield "## Phantom cohorts without any HER2 signal\n"
    for found in phantoms:
        kind = "Tissue size encodes the label" if found.planted else "Tissue size does not know the label"
        verdict = "ALARM" if found.alarm else "silent"
        yield f"{kind}: {verdict}. {found.sentence} (AUC of the untrained model: {found.model}.)\n"
    yield "## How often the family of shortcuts alarms\n"
    yield "Tissue area (and with it the tile count) differs by so many standard deviations of its logarithm; at 0 every"
    yield "alarm is false, and 5 % are allowed. The other relations do not rise or fall: the label is positive in the"
    yield "middle of tissue area; where tissue area and red lie on different sides of their middles; or where red,"
    yield "green and blue have three times the standard deviation (of their logarithms).\n"
    yield "| relation | patients | AUC of the gap | alarms of linear tests alone | alarms | share (95 % interval) |"
    yield "|:--|--:|--:|--:|--:|--:|"
    yield from (rate.row for rate in rates)


def main() -> None:
    """Run both parts and write their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=24)
    parser.add_argument("--cohorts", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    few = max(1, arguments.cohorts // 5)
    rates = [alarm_rate("gap", n, gap, arguments.cohorts if gap == 0 else few) for gap in GAPS for n in SIZES]
    rates += [alarm_rate(kind, n, 0.0, few) for kind in KINDS[1:] for n in SIZES]
    phantoms = [on_phantoms(arguments.slides, planted=planted, seed=40 + planted) for planted in (True, False)]
    text = "\n".join(as_markdown(phantoms, rates)) + "\n"
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "shortcut_audit.md").write_text(text, "utf-8")
    found = {"phantoms": [asdict(one) for one in phantoms], "rates": [asdict(rate) for rate in rates]}
    (arguments.out / "shortcut_audit.json").write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
