"""Commands on folders of weights: `import-weights` and `weights`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra
from he2her2.cli.option_groups import ThreadedSettings, grouped, refuse_idle_annotations

_BUNDLED_LOSE = (
    "the bundled weights were not trained to be adapted: on phantoms of their own site it cost 7 of 40 right answers, "
    "and won as much as it cost elsewhere; train your own with --set training.move_norms=true"
)

weights = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Complete a folder of weights.")


@weights.command("domain")
def store_domain(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of predict over the training slides.")],
    *,
    folder: Annotated[Path, typer.Option("--weights", help="Folder of these weights.", show_default=False)],
    described: Annotated[str, typer.Option("--slides", help="The slides, in words.", show_default=False)] = "",
) -> None:
    """Store what training slides look like, so that predict says when a slide is unlike them."""
    from he2her2.domain import fit_domain
    from he2her2.errors import EvaluationError
    from he2her2.evaluation import check_weights
    from he2her2.models import hashes_of, weights_in, write_domain
    from he2her2.results import open_run

    opened, folder = [open_run(run) for run in runs], weights_in(folder)
    cards, *_ = [check_weights(run, folder) for run in opened]
    found = (run.result(slide_id) for run in opened for slide_id in run.predictions)
    results = [result for result in found if result is not None]
    words = described or f"{len(results)} slides of run {', '.join(run.name for run in opened)}"
    try:
        rows = [result.domain_features for result in results]
        domain = fit_domain(rows, words, hashes_of(cards), textures=[result.texture for result in results])
    except ValueError as error:
        raise EvaluationError(f"{runs[0]}: {error}") from None
    write_domain(folder, domain)
    likenesses = [domain.likeness(result.domain_features, result.texture) for result in results]
    unlike = sum(likeness is not None and likeness.unlike for likeness in likenesses)
    say(f"{folder / 'domain.json'}: {words}; {unlike} of these {len(results)} are beyond the limit themselves")


@weights.command("join")
def join_networks(
    *,
    tumour_cnn: Annotated[
        str, typer.Option(help="Folder of weights, or of a training, that holds it; or bundled.", show_default=False)
    ],
    tile_cnn: Annotated[
        str, typer.Option(help="The same of the tile CNN; or bundled, or bundled-ihc.", show_default=False)
    ],
    aggregator: Annotated[str | None, typer.Option(help="The same of the aggregator.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder of weights.", show_default=False)],
) -> None:
    """Join networks of several trainings in one folder of weights, with one record of all their patients."""
    from he2her2.models import Role, join_weights, trained_folder

    given: dict[Role, str | None] = {"tumour_cnn": tumour_cnn, "tile_cnn": tile_cnn, "aggregator": aggregator}
    networks = {role: trained_folder(text) for role, text in given.items() if text is not None}
    record = join_weights(networks, out)
    n_train, n_val = len(record["training_patients"]), len(record["validation_patients"])
    say(f"{out}: {', '.join(networks)}; on record are {n_train} patients of training and {n_val} of validation")
    for network in record.get("networks_without_record", ()):
        say(f"  caution  the patients of {network} are not on record: evaluate cannot say that none of them is tested")
    say("  note     decision rules and domain are not taken over: they hold for the networks they were chosen with")


@weights.command("adapt")
@grouped
def adapt_to_slides(  # noqa: PLR0913  # a command's options
    what: o.What,
    *,
    folder: Annotated[
        str, typer.Option("--weights", help="Weights to start from: a folder, best trained with training.move_norms.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder of weights.", show_default=False)],
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of these slides in the batch norms' statistics; 0 leaves them.")
    ] = 1.0,
    threshold: Annotated[
        Literal["keep", "share", "valley", "prior-shift"],
        typer.Option(
            help="keep: that of the weights; share: as many positive as --share says; valley: between two groups of "
            "scores; prior-shift: by the share that EM finds, if nothing but the share differs from the training."
        ),
    ] = "keep",
    share: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Share of positive patients among the slides.", show_default=False),
    ] = None,
    mpp: o.Mpp = None,
    annotations: o.Annotations = None,
    annotations_use: o.AnnotationsUseOption = "intersect",
    annotation_class: o.AnnotationClasses = None,
    settings: ThreadedSettings,
) -> None:
    """Adapt weights to another laboratory by its slides, whose status nobody needs to know.

    The tile CNN's batch norms are moved to these slides' tiles, and a threshold is chosen on their scores. The patients
    are recorded as used: the new weights are to be tested on others.
    """
    require_extra("train", "torch")
    from he2her2.cli.progress import WorkProgress
    from he2her2.cli.runs import say_notes
    from he2her2.cli.slides import as_trained
    from he2her2.cohort import find_slides
    from he2her2.models import BUNDLED, trained_folder
    from he2her2.training.slides.adaptation import Adaptation, adapt_weights

    source = trained_folder(folder)
    config, notes = as_trained(settings, folder)
    sources = find_slides(what, mpp=mpp, annotations=annotations)
    refuse_idle_annotations(sources)
    lose = (_BUNDLED_LOSE,) if folder == BUNDLED and alpha else ()
    say_notes((*notes, *lose, *sources.notes))
    asked = Adaptation(source, alpha, threshold, share, annotations_use, tuple(annotation_class or ()))
    with WorkProgress() as shown:
        found = adapt_weights(asked, sources.tasks, sources.patients, out, config, shown.progress)
    for failure in found.failures:
        say(f"LEFT OUT {failure}", error=True)
    norms = f"batch norms moved by {alpha:g} to {found.n_tiles} tiles" if alpha else "batch norms as they were"
    say(f"{out}: adapted to {found.n_slides} slides of {found.n_patients} patients; {norms}")
    shares = f"{found.share_after:.0%} of these patients positive, the given weights {found.share_before:.0%}"
    say(f"  threshold {found.threshold:.4g}: calls {shares}")
    say("  note      decision rules and domain are not taken over: choose and store them again on other patients")
    say("  note      how well the new weights do is not known: evaluate them on labelled patients, none of these")


@weights.command("encoder")
def export_encoder(
    name: Annotated[Literal["efficientnet-lite0"], typer.Argument(help="The encoder.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder of the encoder.", show_default=False)],
    mpp: Annotated[float, typer.Option(min=0.05, max=64, help="µm per px of its tiles.")] = 0.5,
    side_px: Annotated[int, typer.Option(min=32, max=1024, help="Side of its tiles in px.")] = 256,
) -> None:
    """Export a feature encoder of an installed package to a folder that runs without torch."""
    from he2her2.errors import OutputError
    from he2her2.models import export_lite0

    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out")
    card = export_lite0(out, mpp, side_px)
    say(f"{out}: {name}, {card.n_features} features of tiles of {side_px} px at {mpp:g} µm/px; licence {card.licence}")


def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint of the paper's authors.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights folder to fill.")] = Path("authors-weights"),
) -> None:
    """Import a checkpoint of the paper's authors: check every tensor, write safetensors, ONNX and a card."""
    require_extra("train", "torch")
    from he2her2.models.authors_files import AUTHORS_NAMES, AUTHORS_PRESET, import_authors_file, read_authors_file

    with working(f"importing {file.name}"):
        found = read_authors_file(file)
        cards = import_authors_file(found, out)
    hint = AUTHORS_NAMES.get(file.name)
    say(f"{file.name}: {found.kind.title}" + (f" (by its name, {hint})" if hint else ""))
    say(f"  SHA-256  {found.sha256}")
    for remark in found.remarks:
        say(f"  note     {remark}")
    for card in cards:
        say(f"  wrote    {out / card.role}: {card.network.name}")
    missing = [role for role in ("tumour_cnn", "tile_cnn") if not (out / role).is_dir()]
    for role in missing:
        say(f"  missing  {role}: import the file that holds it into {out} too")
    if not missing:
        rule = "" if (out / "aggregator").is_dir() else " --set networks.aggregator=mean"
        say(f"  run      he2her2 predict SLIDE --preset {AUTHORS_PRESET}{rule} --weights {out} --out RUN")
