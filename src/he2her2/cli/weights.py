"""`import-weights`: the checkpoints of the paper's authors."""

from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli.console import say, working
from he2her2.cli.extras import require_extra


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
