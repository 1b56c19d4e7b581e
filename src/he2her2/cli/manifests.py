"""`he2her2 manifest`: make manifests of public cohorts, check them, find leaks between them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, working
from he2her2.cli.option_groups import grouped, refuse_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from he2her2.datasets import CohortLabels, SlideName

manifest = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make and check manifests; find leaks between them.",
)


@manifest.command("check")
def check_manifest(
    file: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest to check.", show_default=False)],
    *,
    policy: o.PolicyOption = "guideline",
) -> None:
    """Find all problems of a manifest; count its slides, patients and labels."""
    from he2her2.labels import Policy
    from he2her2.manifest import (
        check_consistent,
        contradictions,
        count_manifest,
        differing_patients,
        near_patients,
        near_sites,
        read_manifest,
    )

    read = read_manifest(file)
    check_consistent(read)
    for note in read.notes:
        say(note)
    for part in count_manifest(read, Policy(policy)):
        say(str(part))
    for doubt in (*contradictions(read), *differing_patients(read), *near_patients(read.rows), *near_sites(read.rows)):
        say(f"CAUTION {doubt}")


@dataclass(frozen=True)
class _CohortOptions:
    """Table of a public cohort's labels, and the slides that it is matched with."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest; without --slides a table of labels.")]
    slides: Annotated[
        Path | None, typer.Option(help="Folder of slides, searched with the folders below it.", show_default=False)
    ] = None
    conflicts: Annotated[Path | None, typer.Option(help="Log of conflicts.", show_default="beside --out")] = None
    split: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option("--split", help="Split of every slide.", show_default=False),
    ] = None
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="OURS=NAME", help="Name of a column in the table.")
    ] = None

    def __post_init__(self) -> None:
        """Refuse options on slides where there are none."""
        if self.slides is None:
            refuse_idle("split", "pattern", where="without --slides")

    def columns(self, aliases: "Mapping[str, object]") -> dict[str, str | None]:
        """The names that --column gives to our columns."""
        found: dict[str, str | None] = {}
        for text in self.column or []:
            ours, _, theirs = text.partition("=")
            if ours not in aliases or not theirs:
                one_of = ", ".join(aliases)
                raise typer.BadParameter(f"--column {text}: give one of {one_of}, '=' and the column's name")
            found[ours] = theirs
        return found

    def write(self, cohort: "CohortLabels", slide_name: "Callable[[Path], SlideName | str]") -> None:
        """Print the count of patients; write the conflicts, and the manifest or the labels."""
        from he2her2.datasets import match_slides, write_conflicts, write_labels
        from he2her2.files import check_output_file
        from he2her2.manifest import write_manifest

        check_output_file(self.out)
        say("\n".join((cohort.name, *cohort.notes, *cohort.funnel())))
        log = self.conflicts or self.out.with_name(f"{self.out.stem}-conflicts.csv")
        match = None
        if self.slides is not None:
            match = match_slides(cohort.patients, self.slides, slide_name, self.out, split=self.split)
        write_conflicts(cohort.conflicts, log)
        say(f"conflicts and their resolution: {len(cohort.conflicts)}, in {log}")
        if match is None:
            write_labels(cohort.patients, self.out)
            say(f"labels {self.out}")
        else:
            write_manifest(match.manifest)
            say("\n".join((*match.lines(), f"manifest {self.out}")))


_Prefix = Annotated[str, typer.Option(help="Prefix of each case in the patient's name.")]


@manifest.command("tcga-brca")
@grouped
def tcga_brca(
    *,
    clinical: Annotated[Path, typer.Option(help="Clinical table, CSV or TSV.", show_default=False)],
    cohort: _CohortOptions,
    policy: o.PolicyOption = "guideline",
    strict: Annotated[bool, typer.Option("--strict", help="Leave out every patient with a conflict.")] = False,
) -> None:
    """TCGA-BRCA: reconcile status, IHC and FISH of its clinical table; find slides by barcode."""
    from he2her2.datasets import TCGA_COLUMNS, read_tcga_brca, tcga_slide_name
    from he2her2.labels import Policy

    columns = cohort.columns(TCGA_COLUMNS)
    cohort.write(read_tcga_brca(clinical, columns=columns, policy=Policy(policy), strict=strict), tcga_slide_name)


@manifest.command("herohe")
@grouped
def herohe(
    *,
    table: Annotated[Path, typer.Option(help="Table of cases and HER2 status.", show_default=False)],
    cohort: _CohortOptions,
    prefix: _Prefix = "herohe",
) -> None:
    """HEROHE: case numbers with HER2 status, and MIRAX slides named by case."""
    from he2her2.datasets import HEROHE_COLUMNS, herohe_slide_name, read_herohe

    cohort.write(read_herohe(table, prefix=prefix, columns=cohort.columns(HEROHE_COLUMNS)), herohe_slide_name)


@manifest.command("her2sc")
@grouped
def her2sc(
    *,
    table: Annotated[Path, typer.Option(help="Ground truth: cases and IHC scores.", show_default=False)],
    cohort: _CohortOptions,
    pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression of slide names: (?P<case>..), (?P<stain>..); (?i) ignores letter case."),
    ] = None,
    prefix: _Prefix = "her2sc",
    policy: o.PolicyOption = "guideline",
) -> None:
    """HER2 Scoring Contest: IHC scores by case, H&E and IHC slides (NDPI)."""
    from he2her2.datasets import HER2SC_COLUMNS, her2sc_slide_namer, read_her2sc
    from he2her2.labels import Policy

    columns = cohort.columns(HER2SC_COLUMNS)
    found = read_her2sc(table, prefix=prefix, policy=Policy(policy), columns=columns)
    cohort.write(found, her2sc_slide_namer(pattern))


@manifest.command("leaks")
def leaks(
    files: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests, all used together.")],
    *,
    run: Annotated[
        Path | None,
        typer.Option(help="Run or weights folder; none of its patients may be tested.", show_default=False),
    ] = None,
) -> None:
    """Find patients, files and tissue that training and test share; exit code 2 if there are any."""
    from he2her2.cohort import NOT_LOOKED_FOR, refuse_chosen_with, refuse_leaks
    from he2her2.manifest import check_consistent, read_manifest

    read = [read_manifest(file) for file in files]
    for one in read:
        check_consistent(one)
    with working("comparing slides"):
        warnings = refuse_leaks(read)
    rows = [row for one in read for row in one.rows]
    if run is not None:
        tested = [row for row in rows if row.split == "test"] or rows
        warnings += refuse_chosen_with(tested, run)
    for line in warnings:
        say(f"CAUTION {line}")
    n = len({row.path for row in rows})
    say(f"no leak found between the sides of {n} slides in {len(read)} manifest{'s' * (len(read) > 1)}")
    say(f"  looked for: patients, files and the same tissue on two sides; not looked for: {NOT_LOOKED_FOR}")
