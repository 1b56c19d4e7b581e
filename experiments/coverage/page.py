"""The page of results: every study with what stands out in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.coverage.measuring import Row

INTENDED = (0.93, 0.97)


@dataclass(frozen=True)
class Part:
    """Findings of a study.

    Attributes:
        draws: Simulated cohorts a row.
        rows: Its rows.
    """

    draws: int
    rows: list[Row] = field(default_factory=list)


def as_markdown(parts: Mapping[str, Part], texts: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """The page.

    Args:
        parts: By the study's name, in order.
        texts: Heading of each study, and what its reader must know.
    """
    yield "# Do the intervals hold what they promise?\n"
    yield "Share of 95 % intervals that hold the truth, in simulated cohorts. Intended: 93-97 %; what is outside stands"
    yield "in **bold** and is explained. A share of 2 000 cohorts has a standard error of 0.5 points.\n"
    yield from _overview(parts, texts)
    for name, part in parts.items():
        heading, text = texts[name]
        drawn = "exact sums over every outcome" if not part.draws else f"{part.draws} cohorts a row"
        yield f"## {heading} ({drawn})\n"
        yield f"{text}\n"
        promise = name == "promises"
        yield f"| figure | method | cases | truth | {'kept' if promise else 'coverage'} | " + (
            "mean share lost |" if promise else "mean width |"
        )
        yield "|:--|:--|:--|:--|--:|--:|"
        for row in part.rows:
            n = row.names
            shown = f"{100 * row.coverage:.1f} %"
            shown = shown if promise or inside(row) else f"**{shown}**"
            yield f"| {n.figure} | {n.method} | {n.cases} | {n.truth} | {shown} | {row.width:.3f} |"
        yield ""


def _overview(parts: Mapping[str, Part], texts: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield "| study | rows | 93-97 % | above | below | lowest | highest |"
    yield "|:--|--:|--:|--:|--:|--:|--:|"
    for name, part in parts.items():
        rows = ours(part.rows)
        if name == "promises" or not rows:
            continue
        shares = [row.coverage for row in rows]
        above, below = sum(s > INTENDED[1] for s in shares), sum(s < INTENDED[0] for s in shares)
        yield (
            f"| {texts[name][0]} | {len(rows)} | {len(rows) - above - below} | {above} | {below} | "
            f"{100 * min(shares):.1f} % | {100 * max(shares):.1f} % |"
        )
    yield ""


def ours(rows: Sequence[Row]) -> list[Row]:
    """The rows of the methods in use."""
    return [row for row in rows if "for comparison" not in row.names.method and row.names.method != "Wilson"]


def inside(row: Row) -> bool:
    """True if a coverage is as intended."""
    return INTENDED[0] <= row.coverage <= INTENDED[1]
