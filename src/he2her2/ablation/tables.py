"""The paper's tables made of our own results: its layout, its rows beside ours, n and interval in every cell."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he2her2.ablation.methods import Method
from he2her2.ablation.results import FIGURES, Comparison, Line, Results
from he2her2.evaluation import TABLE_1, TABLE_1_ACCURACY, PaperAggregation
from he2her2.files import csv_text
from he2her2.labels import IhcScore
from he2her2.statistics import Estimate, exact_binomial

_TITLES: Mapping[PaperAggregation, str] = {
    "mlp": "MLP aggregation",
    "median": "Median aggregation",
    "mean": "Mean aggregation",
}
_HEADING = ("Method", "", *(f"{name[0].upper()}{name[1:]}" for name in FIGURES), "TP FP TN FN", "Note")
READING = (
    "Every cell: per cent [95 % interval], n. F1, precision and recall are support-weighted means over both classes, "
    "as in the paper; recall then equals plain accuracy. The paper's column accuracy is balanced in some rows and "
    "plain in others: what it printed stands beside the figure it was. Its rows are its decoded confusion matrices; "
    "the intervals are ours. AUC is not in the paper; a baseline only decides, so its AUC is its balanced accuracy."
)


def ablation_table(results: Results, lines: Sequence[Line]) -> str:
    """The six methods on one cohort, in the layout of Tables 3 and 4, the paper's rows below ours."""
    rows: list[Sequence[str]] = []
    for aggregation, title in _TITLES.items():
        rows.append([f"**{title}**", *[""] * (len(_HEADING) - 1)])
        rows += [_cells(line) for line in lines if line.method.aggregation == aggregation]
    beside = f" The paper's rows are those on {results.paper}." if results.paper else ""
    return f"{results.about}.{beside} {READING}\n\n{markdown(_HEADING, rows)}"


def proposed_table(cohorts: Sequence[Results], lines: Iterable[Line]) -> str:
    """Table 2: the proposed method on every cohort."""
    rows = [[line.cohort if line.source == "ours" else "", *_cells(line)[1:]] for line in lines if line.method.proposed]
    about = "; ".join(results.about for results in cohorts)
    return f"{about}. {READING}\n\n{markdown(('Cohort', *_HEADING[1:]), rows)}"


def tile_table(matrix: NDArray[np.int64], accuracy: Estimate, about: str) -> str:
    """Table 1: IHC tiles, columns are the true class as in the paper, whose counts stand in brackets.

    Args:
        matrix: (4, 4) row = truth, column = decision.
        accuracy: With its interval, tiles clustered by patient.
        about: Which tiles.
    """
    scores = [str(score) for score in IhcScore]
    rows = [
        [f"**{score}**", *(f"{ours} ({papers})" for ours, papers in zip(matrix[:, i], TABLE_1[:, i], strict=True))]
        for i, score in enumerate(scores)
    ]
    heading = ("Prediction", *(f"true {score}" for score in scores))
    n_paper = int(TABLE_1.sum())
    papers = exact_binomial(int(np.trace(TABLE_1)), n_paper)
    text = (
        f"Accuracy {cell(accuracy)}; the paper's {cell(papers)} (printed {TABLE_1_ACCURACY}; its interval takes "
        "tiles for independent, which those of one slide are not; ours does not). In brackets: the paper's tiles."
    )
    return f"{about}. {text}\n\n{markdown(heading, rows)}"


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """The proposed method against each other one, paired by slide."""
    rows = [
        [
            one.cohort,
            f"{_TITLES[one.method.aggregation]}, {one.method.title}",
            str(one.only_proposed),
            str(one.only_other),
            f"{one.exact:.3g}",
            f"{one.mid_p:.3g}",
            cell(one.difference),
        ]
        for one in comparisons
    ]
    heading = (
        "Cohort",
        "Against",
        "only proposed right",
        "only other right",
        "McNemar exact p",
        "mid-P",
        "Difference of plain accuracy",
    )
    text = "McNemar's test on the same slides, by patient; p-values are not corrected for the number of comparisons."
    return f"{text}\n\n{markdown(heading, rows)}"


def gradient_records(histories: Mapping[Method, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """How much of each training's loss reached the tile CNN, from the training's figures of each epoch."""
    return [
        {
            "method": f"{_TITLES[method.aggregation]}, {method.title}",
            "epochs": len(epochs),
            "beta_first": epochs[0]["beta"],
            "beta_last": epochs[-1]["beta"],
            "tiles_with_gradient": float(np.mean([epoch["gradient_share"] for epoch in epochs])),
            "norm_at_scores": float(np.mean([epoch["gradient_at_scores"] for epoch in epochs])),
            "norm_at_logits": float(np.mean([epoch["gradient_at_logits"] for epoch in epochs])),
            "cnn_movement": epochs[-1]["cnn_movement"],
        }
        for method, epochs in histories.items()
    ]


def gradient_table(records: Iterable[Mapping[str, Any]]) -> str:
    """How joint the training was: the paper's depends on the gradient that soft-argmax hands back to the CNN."""
    rows = [
        [
            str(one["method"]),
            str(one["epochs"]),
            " to ".join(dict.fromkeys(f"{one[key]:g}" for key in ("beta_first", "beta_last"))),
            f"{100 * one['tiles_with_gradient']:.2f} %",
            f"{one['norm_at_scores']:.3g}",
            f"{one['norm_at_logits']:.3g}",
            f"{one['cnn_movement']:.3g}",
        ]
        for one in records
    ]
    text = (
        "Means over epochs of each training: of the selected tiles, how many got any gradient at their logits; the "
        "norm of the loss's gradient at their scores and at their logits; and how far the CNN's weights were from "
        "their start at the end, relative to their size (0: it never moved, only the aggregator learned)."
    )
    heading = ("Training", "Epochs", "β", "Tiles with gradient", "Norm at scores", "Norm at logits", "CNN moved by")
    return f"{text}\n\n{markdown(heading, rows)}"


def cell(estimate: Estimate | None, printed: str | None = None) -> str:
    """A figure in per cent with its interval and n.

    Example:
        >>> cell(exact_binomial(7, 8), "87.5")
        '87.5 [47.3, 99.7] n=8 (printed 87.5)'
    """
    if estimate is None:
        return ""
    value, low, high = (_percent(share) for share in (estimate.value, estimate.low, estimate.high))
    text = f"{value} [{low}, {high}] n={estimate.n}"
    return f"{text} (printed {printed})" if printed else text


def _percent(share: float) -> str:
    """In per cent with one decimal, halves up as in the paper.

    Example:
        >>> _percent(0.1225), _percent(float("nan"))
        ('12.3', 'undefined')
    """
    if np.isnan(share):
        return "undefined"
    return str(Decimal(f"{100 * share:.9f}").quantize(Decimal("0.1"), ROUND_HALF_UP))


def _cells(line: Line) -> list[str]:
    counts = line.counts
    source = line.source if line.source == "ours" else f"paper, {line.cohort}"
    return [
        line.method.title if line.source == "ours" else "",
        source,
        *(cell(line.estimates.get(name), line.printed.get(name)) for name in FIGURES),
        f"{counts.tp:.0f} {counts.fp:.0f} {counts.tn:.0f} {counts.fn:.0f}",
        line.note,
    ]


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    Example:
        >>> print(markdown(("a", "b"), [("1", "2")]))
        | a | b |
        |---|---|
        | 1 | 2 |
        <BLANKLINE>
    """
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, *rows)]
    lines.insert(1, "|" + "---|" * len(heading))
    return "\n".join(lines) + "\n"


def lines_csv(lines: Iterable[Line]) -> str:
    """Every row and figure as CSV, shares in [0, 1]."""
    return as_csv(map(_record, lines))


def comparisons_csv(comparisons: Iterable[Comparison]) -> str:
    """Every paired comparison as CSV."""
    return as_csv(
        {
            "cohort": one.cohort,
            "aggregation": one.method.aggregation,
            "pretrained": one.method.pretrained,
            "only_proposed_right": one.only_proposed,
            "only_other_right": one.only_other,
            "mcnemar_exact_p": one.exact,
            "mcnemar_mid_p": one.mid_p,
            **_columns("plain accuracy difference", one.difference, None),
        }
        for one in comparisons
    )


def as_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Records of the same columns as CSV."""
    rows = list(records)
    return csv_text([*rows[0]], rows) if rows else ""


def _record(line: Line) -> dict[str, Any]:
    counts = line.counts
    record: dict[str, Any] = {
        "cohort": line.cohort,
        "source": line.source,
        "aggregation": line.method.aggregation,
        "pretrained": line.method.pretrained,
        "n": round(counts.n),
        "positives": round(counts.positives),
        "tp": counts.tp,
        "fp": counts.fp,
        "tn": counts.tn,
        "fn": counts.fn,
    }
    for name in FIGURES:
        record |= _columns(name, line.estimates.get(name), line.printed.get(name, ""))
    return record | {"note": line.note}


def _columns(name: str, estimate: Estimate | None, printed: str | None) -> dict[str, Any]:
    key = name.replace(" ", "_")
    found = {key: "", f"{key}_low": "", f"{key}_high": "", f"{key}_n": "", f"{key}_interval": ""}
    if estimate is not None:
        found = {
            key: f"{estimate.value:.6g}",
            f"{key}_low": f"{estimate.low:.6g}",
            f"{key}_high": f"{estimate.high:.6g}",
            f"{key}_n": str(estimate.n),
            f"{key}_interval": estimate.method,
        }
    return found if printed is None else found | {f"{key}_printed": printed}
