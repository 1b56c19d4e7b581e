"""`he2her2 labels` and `split`: labels and splits of a cohort, before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say, say_json
from he2her2.cli.option_groups import grouped, refuse_idle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from he2her2.labels import GuidelineResult, IhcScore, Ish, Policy
    from he2her2.manifest import Manifest, Patient, Split

_LabelName: TypeAlias = Literal["her2_status", "ihc_score"]
_TestColumn: TypeAlias = Annotated[str | None, typer.Option(help="Column of TABLE.", show_default="by its usual names")]

_OF_TABLES = ("ihc_column", "ish_column", "ratio_column", "copies_column", "cep17_column", "faint_column")


@grouped
def labels(  # noqa: PLR0913  # a command's options
    table: Annotated[
        Path | None, typer.Argument(metavar="[TABLE]", help="CSV of tests to label.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Labelled CSV.", show_default=False)] = None,
    ihc: Annotated[str | None, typer.Option(help="IHC score: 0, 1+, 2+ or 3+.", show_default=False)] = None,
    ratio: Annotated[float | None, typer.Option(help="HER2/CEP17 ratio of ISH.", show_default=False)] = None,
    copies: Annotated[float | None, typer.Option(help="HER2 copies per cell.", show_default=False)] = None,
    ish: Annotated[
        str | None, typer.Option(help="ISH in words: positive, negative, equivocal.", show_default=False)
    ] = None,
    faint: Annotated[
        bool | None, typer.Option("--faint/--no-faint", help="Faint staining in an IHC 0.", show_default=False)
    ] = None,
    recounted: Annotated[
        bool, typer.Option("--recounted", help="The counts are of the recount that ISH groups 2 to 4 require.")
    ] = False,
    policy: o.PolicyOption = "guideline",
    ihc_column: _TestColumn = None,
    ish_column: _TestColumn = None,
    ratio_column: _TestColumn = None,
    copies_column: _TestColumn = None,
    cep17_column: _TestColumn = None,
    faint_column: _TestColumn = None,
    as_json: o.Json = False,
) -> None:
    """Derive HER2 status and stratum from IHC and ISH by ASCO/CAP 2018 (affirmed 2023), for one sample or a table."""
    from he2her2.labels import IshCounts, Policy, apply_guideline, doubt_about

    rule = Policy(policy)
    if table is None:
        refuse_idle("out", *_OF_TABLES, where="without a table")
        score, hybridisation = _tests(ihc, ish, ratio, copies)
        decision = apply_guideline(score, hybridisation, faint_staining=faint, recounted=recounted, policy=rule)
        doubt = doubt_about(hybridisation) if isinstance(hybridisation, IshCounts) else ""
        said = [*_in_words(decision), *([f"CAUTION    {doubt}"] if doubt else [])]
        if as_json:
            say_json(_as_json(decision) | {"doubt": doubt})
        else:
            say("\n".join(said))
        return
    refuse_idle("ihc", "ratio", "copies", "ish", "faint", "as_json", where="beside a table")
    from he2her2.files import check_output_file
    from he2her2.manifest import TestColumns, label_tests, write_labelled_table

    if out is None:
        raise typer.BadParameter("give --out for the labelled table")
    check_output_file(out, [table])
    columns = TestColumns(ihc_column, ish_column, ratio_column, copies_column, cep17_column, faint_column)
    labelled = label_tests(table, columns, policy=rule, recounted=recounted)
    write_labelled_table(labelled, out)
    decisions = [decision for _, decision, _ in labelled.rows]
    say("\n".join([*labelled.notes, *_counts(decisions), f"labelled table {out}"]))


def _tests(
    ihc: str | None, ish: str | None, ratio: float | None, copies: float | None
) -> "tuple[IhcScore | None, Ish | None]":
    """Parse the tests that the options give."""
    from he2her2.labels import IshCounts, parse_ihc, parse_ish

    counts = ratio is not None or copies is not None
    if ihc is None and ish is None and not counts:
        raise typer.BadParameter("give --ihc, --ish, or --ratio and --copies; or a table")
    if ish is not None and counts:
        raise typer.BadParameter("give --ish in words, or --ratio and --copies, not both")
    try:
        score = None if ihc is None else parse_ihc(ihc)
        if counts:
            return score, IshCounts(ratio, copies)
        return score, None if ish is None else parse_ish(ish)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _as_json(decision: "GuidelineResult") -> dict[str, object]:
    return {
        "ish_group": None if decision.group is None else decision.group.value,
        "her2_status": decision.status,
        "stratum": decision.stratum,
        "rule": decision.rule,
        "source": decision.source,
        "stratum_source": decision.stratum_source,
        "conflict": decision.conflict,
    }


def _in_words(decision: "GuidelineResult") -> list[str]:
    group = "none, ratio and copies were not both given" if decision.group is None else str(decision.group.value)
    lines = [
        f"ISH group  {group}",
        f"status     {decision.status}",
        f"stratum    {decision.stratum} ({decision.stratum_source})",
        f"rule       {decision.rule}",
        f"source     {decision.source}",
    ]
    return (
        lines + ["CONFLICT   IHC and ISH, each by itself, decide differently; look at both again"] * decision.conflict
    )


def _counts(decisions: "list[GuidelineResult]") -> list[str]:
    """Count statuses, strata and conflicts of a table."""
    from collections import Counter

    total = len(decisions)
    lines = [f"{total} rows"]
    for title, found in (
        ("status", Counter(str(decision.status) for decision in decisions)),
        ("stratum", Counter(str(decision.stratum) for decision in decisions)),
    ):
        lines += [f"  {title} {name}: {n}" for name, n in found.most_common()]
    conflicts = sum(decision.conflict for decision in decisions)
    return [*lines, f"  conflicts of IHC and ISH: {conflicts}"]


@grouped
def split(  # noqa: PLR0913  # a command's options
    file: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Manifest to split.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write; with --folds a folder of them.")],
    shares: Annotated[str, typer.Option(help="Shares of patients in train, val and test.")] = "0.6,0.2,0.2",
    folds: Annotated[int, typer.Option(min=0, help="Number of cross-validation folds, in place of shares.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions of the folds, each shuffled anew.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same gives the same split.")] = 0,
    by_site: Annotated[bool, typer.Option("--by-site", help="Keep the patients of a site on one side.")] = False,
    label: Annotated[_LabelName, typer.Option(help="Label for stratification.")] = "her2_status",
    policy: o.PolicyOption = "guideline",
) -> None:
    """Split a manifest by patient, stratified by label."""
    from he2her2.files import check_output_file
    from he2her2.labels import Policy
    from he2her2.manifest import (
        near_patients,
        patients_of,
        read_manifest,
        site_doubts,
        split_by_shares,
        split_in_folds,
    )

    if folds == 0:
        refuse_idle("repeats", where="without --folds")
        check_output_file(out, [file])
    else:
        refuse_idle("shares", where="beside --folds")
    read = read_manifest(file)
    rule = Policy(policy)
    cohort = patients_of(read, label, rule)
    if folds == 0:
        wanted = _shares(shares)
        plans = {out: split_by_shares(cohort.patients, wanted, seed=seed, by_site=by_site)}
    else:
        if folds == 1:
            raise typer.BadParameter("one fold leaves nothing to train on; give --folds 2 or more")
        found = split_in_folds(cohort.patients, folds, repeats=repeats, seed=seed, by_site=by_site)
        plans = {
            out / f"repeat-{r}-fold-{f}.csv": fold
            for r, repeat in enumerate(found, 1)
            for f, fold in enumerate(repeat, 1)
        }
        _check_folds(out, list(plans), file)
    for note in read.notes:
        say(note)
    doubts = site_doubts(read.rows, cohort.patients) if by_site else ()
    for doubt in (*near_patients(read.rows), *doubts):
        say(f"CAUTION {doubt}")
    if cohort.left_out:
        say(f"{len(cohort.left_out)} patients have no {label} and get no split")
    for path, plan in plans.items():
        _write_split(read, plan, path, cohort.patients, rule)


def _check_folds(out: Path, files: list[Path], manifest: Path) -> None:
    """Raise if folds would replace the manifest, or stand beside those of another split."""
    from he2her2.errors import OutputError
    from he2her2.files import check_output_file

    if others := sorted({*out.glob("repeat-*-fold-*.csv")} - {*files}):
        raise OutputError(f"{out}: holds folds of another split, such as {others[0].name}; choose another --out")
    for path in files:
        check_output_file(path, [manifest])


def _write_split(
    read: "Manifest", plan: "dict[str, Split]", path: Path, patients: "Sequence[Patient]", rule: "Policy"
) -> None:
    """Write one split and print its counts."""
    from he2her2.manifest import classes_missing, count_manifest, with_splits, write_manifest

    done = with_splits(read, plan)
    write_manifest(done, path)
    say(str(path))
    for part in count_manifest(done, rule):
        if part.name.startswith("split"):
            say(f"  {part}")
    for problem in classes_missing(patients, plan):
        say(f"  CAUTION {problem}")


def _shares(text: str) -> "dict[Split, float]":
    from he2her2.manifest import SPLITS

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(SPLITS) or not all(0 <= n < float("inf") for n in numbers) or not any(numbers):
        raise typer.BadParameter(f"--shares {text}: give three numbers for {', '.join(SPLITS)}, such as 0.6,0.2,0.2")
    return dict(zip(SPLITS, numbers, strict=True))
