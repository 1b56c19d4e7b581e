"""`he2her2 score-ihc`: the staining of IHC slides."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, say_line
from he2her2.cli.option_groups import ThreadedSettings, grouped, refuse_idle_annotations
from he2her2.errors import He2Her2Error, few_of

if TYPE_CHECKING:
    from he2her2.method import IhcReading

_COLUMNS = (
    "slide_id", "ihc_score", "dab_density", "faint_share", "moderate_share", "intense_share", "membrane_share",
    "network_score", "network_majority", "tiles", "tissue_mm2", "measured", "problem",
)  # fmt: skip
_ALL, _ANNOTATED = "all tissue", "annotated tumour"
_ALL_COUNTS = "all tissue counts: stroma, carcinoma in situ, a control on the slide; give the tumour by --annotations"
_GOOD_FOR = (
    "Good for ordering slides of one laboratory by staining; no breast tissue stands behind it. On 14 cores of the "
    "oesophagus the stained share told HER2 status (4 positive, 10 negative) without error, as the network did; the "
    "IHC score was right on about half of them. Research use only."
)


@grouped
def score_ihc(
    what: o.What,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write.", show_default=False)] = None,
    weights: Annotated[str, typer.Option(help="Folder with an IHC tile_cnn/, or bundled.")] = "bundled-ihc-dab",
    mpp: o.Mpp = None,
    annotations: o.Annotations = None,
    annotation_class: o.AnnotationClasses = None,
    settings: ThreadedSettings,
) -> None:
    """Measure the HER2 staining of IHC (DAB) slides: shares of tissue by intensity, an IHC score, a network beside it.

    The score comes from colour, in the words of ASCO/CAP with area in place of cells: on 14 real cores no network of
    ours orders slides better. Give the tumour as annotations: else all tissue counts.
    """
    from he2her2.cli.progress import WorkProgress
    from he2her2.cohort import IhcWorker, SlideEngine, find_slides
    from he2her2.csv_files import write_csv
    from he2her2.files import check_output_file
    from he2her2.models import load_engine, trained_folder
    from he2her2.results import Failure

    if out is not None:
        check_output_file(out, what)
    config = settings.load()
    engine = load_engine(trained_folder(weights) / "tile_cnn", "tile_cnn", config.runtime.device)
    sources = find_slides(what, mpp=mpp, annotations=annotations, stain="IHC")
    refuse_idle_annotations(sources)
    worker = IhcWorker(engine, config, tuple(annotation_class or ()))
    for note in sources.notes:
        say_line(f"NOTE {note}")
    rows: list[dict[str, object]] = []
    failed = False
    with WorkProgress() as shown:
        for task, found in SlideEngine(shown.progress).run(sources.tasks, worker):
            if isinstance(found, Failure):
                if sources.single:
                    raise He2Her2Error(str(found))
                failed = True
                rows.append({"slide_id": task.slide_id, "problem": found.reason})
                say_line(f"{task.slide_id}: failed: {found.reason}; {found.remedy}")
            else:
                rows.append(_row(task.slide_id, found) | {"measured": _ALL if task.annotations is None else _ANNOTATED})
                say(_line(task.slide_id, found))
    if whole := [str(row["slide_id"]) for row in rows if row.get("measured") == _ALL]:
        say(f"CAUTION of {few_of(whole)} {_ALL_COUNTS}")
    if engine.card.notice:
        say(f"NOTICE: {engine.card.notice}")
    say(_GOOD_FOR)
    if out is not None:
        write_csv(out, _COLUMNS, rows)
        say(f"table {out}")
    if failed:
        raise typer.Exit(1)


def _row(slide_id: str, found: "IhcReading") -> dict[str, object]:
    brown = found.staining
    shares = (brown.density, brown.faint, brown.moderate, brown.intense, brown.membrane)
    measured = dict(zip(_COLUMNS[2:7], (f"{share:.4f}" for share in shares), strict=True))
    return (
        {"slide_id": slide_id, "ihc_score": str(brown.ihc_score)}
        | measured
        | {
            "network_score": f"{found.network_score:.3f}",
            "network_majority": str(found.network_majority),
            "tiles": found.n_tiles,
            "tissue_mm2": f"{found.tissue_mm2:.3f}",
            "problem": "",
        }
    )


def _line(slide_id: str, found: "IhcReading") -> str:
    brown = found.staining
    return (
        f"{slide_id}: IHC {brown.ihc_score} by colour (stained {brown.faint:.0%}, moderately {brown.moderate:.1%}, "
        f"intensely {brown.intense:.1%} of {found.tissue_mm2:.2f} mm²; mean DAB density {brown.density:.3f}); "
        f"network {found.network_majority}, mean {found.network_score:.2f}"
    )
