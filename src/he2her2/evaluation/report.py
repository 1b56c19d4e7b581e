"""Texts of an evaluation: `evaluation.md`, which reads like the results section of a paper, and the lines to print."""

from collections.abc import Sequence
from pathlib import Path

from he2her2 import __version__
from he2her2.evaluation.evaluation import Evaluation
from he2her2.evaluation.limitations import NOT_A_TEST, PROVENANCE_PARTLY_UNKNOWN, PROVENANCE_UNKNOWN
from he2her2.pages import render


def evaluation_page(e: Evaluation, plots: Sequence[str] = ()) -> str:
    """`evaluation.md` as Markdown.

    Args:
        e: The evaluation.
        plots: Names of the plots beside the page, in `plots/`.
    """
    methods = {figure.estimate.method for group in (e.patients, e.slides) for figure in group.figures.values()}
    return render(
        "evaluation.md",
        e=e,
        run=e.run.description,
        plots=plots,
        audits={audit.name: audit for audit in e.audits},
        methods=sorted(methods),
        stated=e.stated,
        version=__version__,
        trained_with_patients=NOT_A_TEST in e.notices,
        provenance_unknown=not {PROVENANCE_UNKNOWN, PROVENANCE_PARTLY_UNKNOWN}.isdisjoint(e.limitations),
    )


def evaluation_lines(e: Evaluation, page: Path, stored: Path | None = None) -> str:
    """Lines to print after an evaluation.

    Args:
        e: The evaluation.
        page: File of the page.
        stored: File of the rules that were kept beside the weights.
    """
    return render("evaluation.txt", e=e, page=page, stored=stored).rstrip("\n")
