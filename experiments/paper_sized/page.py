"""Page of the study: every figure with its interval, beside trivial baselines, the control with its permutations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from experiments.paper_sized.design import MAX_RATE, ORDER, SIZES, STUDIES
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from he2her2.files import write_json, write_text
from he2her2.statistics import (
    BinaryCounts,
    Estimate,
    auc,
    auc_interval,
    balanced_accuracy,
    decision_interval,
    delong_difference,
    holm,
    mcnemar,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
_PERMUTATIONS = 10_000
_FIRST = "paper/mlp-pretrained"
_AGAINST = (
    "paper/mlp-from-scratch",
    "paper/median-pretrained",
    "paper/mean-pretrained",
    "finite/mlp-pretrained",
    "annealed/mlp-pretrained",
    "untouched/mean-pretrained",
    "colour",
)


_ALPHA = 0.05
_TITLES = {
    "paper/mlp-pretrained": "The proposed method (IHC first, β = 1000, the CNN free)",
    "paper/mlp-from-scratch": "Without IHC",
    "finite/mlp-pretrained": "IHC first, β = 1",
    "finite/mlp-from-scratch": "Without IHC, β = 1",
    "annealed/mlp-pretrained": "IHC first, β from 1 to 1000",
    "annealed/mlp-from-scratch": "Without IHC, β from 1 to 1000",
    "colour": "Mean colour alone",
}


@dataclass(frozen=True, eq=False)
class Decided:
    """Decisions of one training on one test cohort.

    Attributes:
        step: The training, such as "paper/mlp-pretrained"; or "colour".
        cohort: The test cohort.
        truth: (n,) bool.
        called: (n,) bool.
        probability: (n,).
        patients: (n,).
    """

    step: str
    cohort: str
    truth: NDArray[np.bool_]
    called: NDArray[np.bool_]
    probability: NDArray[np.float64]
    patients: NDArray[np.str_]

    @classmethod
    def of(cls, step: str, cohort: str, rows: Sequence[Mapping[str, Any]]) -> "Decided":
        """Decisions as the results hold them."""
        truth, called, probability, patients = (
            np.array([row[name] for row in rows]) for name in ("truth", "called", "probability", "patient")
        )
        return cls(step, cohort, truth, called, probability, patients)

    @property
    def counts(self) -> BinaryCounts:
        """Confusion matrix."""
        return BinaryCounts.of(self.truth, self.called)

    @property
    def auc(self) -> Estimate:
        """AUC with its interval."""
        return auc_interval(self.truth, self.probability, self.patients)

    @property
    def balanced(self) -> Estimate:
        """Balanced accuracy with its interval."""
        return decision_interval(balanced_accuracy, self.truth, self.called, self.patients)

    @property
    def constant(self) -> str:
        """Remark where every slide has the same call or the same probability."""
        if np.ptp(self.probability) < 1e-6:
            return "the same probability for every slide"
        return "the same call for every slide" if self.called.all() or not self.called.any() else ""

    def permuted(self) -> float:
        """Two-sided p-value of the AUC when the labels are shuffled among the slides."""
        rng = np.random.default_rng(0)
        found = abs(auc(self.truth, self.probability) - 0.5)
        shuffled = [abs(auc(rng.permutation(self.truth), self.probability) - 0.5) for _ in range(_PERMUTATIONS)]
        return (1 + sum(value >= found - 1e-12 for value in shuffled)) / (1 + _PERMUTATIONS)


def write_page(results: Mapping[str, Any]) -> None:
    """Write `experiments/results/paper_sized_SIZE.md`, and its figures as JSON beside it."""
    steps = results["steps"]
    decided = [*_all_decided(steps)]
    rows = [_row(one, steps) for one in decided]
    adjusted = holm([row["p"] for row in rows if row["study"] == "control"])
    for row, p in zip((row for row in rows if row["study"] == "control"), adjusted, strict=True):
        row["p_holm"] = p
    differences, moved = [*_differences(decided)], [*_moved(steps)]
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown of our own figures
    )
    template = environment.get_template("page.md.jinja")
    values = {
        "results": results,
        "size": SIZES[results["size"]],
        "max_rate": MAX_RATE,
        "studies": STUDIES,
        "rows": rows,
        "differences": differences,
        "moved": moved,
        "conclusion": [*_conclusion(rows, moved)],
        "left_out": {slide: why for step in steps.values() for slide, why in step.get("left_out", {}).items()},
        "missing": [step for step in ORDER if step not in steps],
        "short": [step for step in ("tiles", *ORDER) if not steps.get(step, {}).get("complete", True)],
    }
    name = f"paper_sized_{results['size']}"
    write_text(RESULTS / f"{name}.md", template.render(**values))
    kept = {name: _without_reports(found) for name, found in steps.items()}
    figures = {"rows": rows, "differences": differences, "steps": kept}
    write_json(RESULTS / f"{name}.json", {**{k: v for k, v in results.items() if k != "steps"}, **figures})


def _conclusion(rows: Sequence[Mapping[str, Any]], moved: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What came out, a sentence for each training of the MLP, and one for the control."""
    for step, title in _TITLES.items():
        found = [row for row in rows if row["step"] == step]
        if not found:
            continue
        figures = "; ".join(
            f"on {row['cohort']} AUC {_text(row['auc'])}" + (f" ({row['constant']})" if row["constant"] else "")
            for row in found
        )
        way = next((one for one in moved if one["step"] == step), None)
        yield f"**{title}**: {figures}." + ("" if way is None else f" {_in_words(way)}")
    control = [row for row in rows if row["study"] == "control"]
    if control:
        caught = [row["method"] or "mean colour" for row in control if row["p_holm"] < _ALPHA]
        least = min(row["p_holm"] for row in control)
        verdict = f"not clean: {', '.join(caught)}" if caught else "clean"
        if all(row["constant"] for row in control):
            verdict += ", as constants must be: no method there tells any two slides apart"
        yield f"**The control at signal 0 is {verdict}** (least adjusted p by shuffled labels {least:.2g})."


def _in_words(way: Mapping[str, Any]) -> str:
    """How far the CNN moved and what reached it."""
    return (
        f"Slide training changed the CNN's weights by {way['last']:.2g} of their norm and the MLP's by "
        f"{way['aggregator']:.2g}; {way['gradient_share']:.2%} of the selected tiles had any gradient."
    )


def _text(figure: Sequence[float]) -> str:
    value, low, high = figure
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _without_reports(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in ("report", "confusion")}


def _all_decided(steps: Mapping[str, Any]) -> Iterator[Decided]:
    for step in ("colour", *ORDER):
        for cohort, rows in steps.get(step, {}).get("decisions", {}).items():
            yield Decided.of(step, cohort, rows)


def _row(one: Decided, steps: Mapping[str, Any]) -> dict[str, Any]:
    """Row of the table of results."""
    study, _, method = one.step.partition("/")
    control = one.cohort == "control"
    counts, epochs = one.counts, steps[one.step].get("history", [])
    return {
        "study": "control" if control else study,
        "step": one.step,
        "method": method,
        "cohort": one.cohort,
        "n": len(one.truth),
        "positive": int(one.truth.sum()),
        "auc": _figure(one.auc),
        "balanced": _figure(one.balanced),
        "counts": [int(value) for value in (counts.tp, counts.fp, counts.tn, counts.fn)],
        "constant": one.constant,
        "epochs": len(epochs),
        "kept": steps[one.step].get("kept"),
        "p": one.permuted(),
    }


def _figure(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _differences(decided: Sequence[Decided]) -> Iterator[dict[str, Any]]:
    """The paper's method against each other one on the same slides, adjusted together in each cohort."""
    for cohort in STUDIES["paper"].tests:
        there = {one.step: one for one in decided if one.cohort == cohort}
        if _FIRST not in there:
            continue
        first = there[_FIRST]
        others = [there[step] for step in _AGAINST if step in there]
        found = [delong_difference(first.truth, first.probability, one.probability, first.patients) for one in others]
        adjusted = holm([one.p_value for one in found])
        for other, difference, p in zip(others, found, adjusted, strict=True):
            test = mcnemar(first.called == first.truth, other.called == other.truth, first.patients)
            calls = {"only_first": test.only_first, "only_other": test.only_second, "mcnemar": test.exact}
            yield {"cohort": cohort, "other": other.step, "auc": _figure(difference.estimate), "p_holm": p, **calls}


def _moved(steps: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """How far each training moved, and what reached the CNN."""
    for step in ORDER:
        if "movement" not in steps.get(step, {}):
            continue
        history = steps[step]["history"]
        means = {name: float(np.mean([row[name] for row in history])) for name in ("gradient_share", "train_loss")}
        ratio = [row["gradient_at_logits"] / row["gradient_at_scores"] for row in history if row["gradient_at_scores"]]
        ends = {"first": history[0]["cnn_movement"], "last": history[-1]["cnn_movement"]}
        heads = {"aggregator": history[-1]["aggregator_movement"], "ratio": float(np.mean(ratio)) if ratio else 0.0}
        yield {"step": step, "movement": steps[step]["movement"], **means, **ends, **heads, "last_row": history[-1]}
