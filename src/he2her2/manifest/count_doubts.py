"""Tests of a table that do not go together: named line by line, or refused where that is the rule."""

from dataclasses import dataclass, field

from he2her2.labels import (
    Her2Status,
    IhcScore,
    Ish,
    IshCounts,
    IshResult,
    border_doubt,
    doubt_about,
    doubt_about_stated,
    parse_status,
)

_SHOWN = 5


@dataclass(slots=True)
class CountDoubts:
    """Doubts about the ISH counts of a table, and about a status that it states.

    Attributes:
        n_counts: Rows with a ratio and copies.
        lines: Doubts about them, a line of text each.
        n_both: Rows with counts that decide and a stated result.
        against: Lines of those that contradict each other.
        with_ihc: Lines of stated results that the counts contradict together with the IHC, in groups 2 to 4 only.
        n_rows: Rows with a ratio or copies.
        zeros: Lines of those that say 0, as tables write what was not done.
        borders: Lines of those whose ratio is of another ISH group than copies by CEP17.
        otherwise: Lines of a stated status that the tests contradict.
    """

    n_counts: int = 0
    lines: list[str] = field(default_factory=list)
    n_both: int = 0
    against: list[str] = field(default_factory=list)
    with_ihc: list[str] = field(default_factory=list)
    n_rows: int = 0
    zeros: list[str] = field(default_factory=list)
    borders: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)

    def beside(
        self,
        line: int,
        ihc: IhcScore | None,
        stated: Ish | None,
        counts: IshCounts | None,
        *,
        recounted: bool = False,
    ) -> str:
        """Doubt about a stated result beside counts, which is kept; empty where they go together."""
        if counts is None or not isinstance(stated, IshResult) or stated is IshResult.EQUIVOCAL:
            return ""
        self.n_both += counts.alone is not None
        if found := doubt_about_stated(ihc, counts, stated, recounted=recounted):
            lines = self.with_ihc if counts.alone is None else self.against
            lines.append(f"line {line}: {found}")
        return found

    def about(self, line: int, ish: Ish | None, cep17: float | None) -> str:
        """Doubt about a row's counts, which is kept; empty where they go together."""
        if not isinstance(ish, IshCounts):
            return ""
        self.n_rows += 1
        is_zero = 0 in (ish.ratio, ish.copies)
        self.n_counts += not is_zero and None not in (ish.ratio, ish.copies)
        if found := doubt_about(ish, cep17):
            (self.zeros if is_zero else self.lines).append(f"line {line}: {found}")
        elif found := border_doubt(ish, cep17):
            self.borders.append(f"line {line}: {found}")
        return found

    def stated_status(self, line: int, text: str, derived: Her2Status) -> str:
        """Doubt about a status that is stated beside tests, which is kept; empty where they agree or one is open."""
        try:
            stated = parse_status(text)
        except ValueError:  # words that are no status
            return ""
        if stated == derived or Her2Status.UNDETERMINED in (stated, derived):
            return ""
        found = f"stated {stated}, but the tests amount to {derived}"
        self.otherwise.append(f"line {line}: {found}")
        return found

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of most rows: then the columns are not what they are called."""
        found = []
        if 2 * len(self.zeros) > self.n_rows:
            share = f"{len(self.zeros)} of {self.n_rows} lines"
            found.append(f"ISH counts are 0 on {share}: leave them blank where it was not done ({self.zeros[0]})")
        if 2 * len(self.lines) > self.n_counts:
            share = f"{len(self.lines)} of {self.n_counts} lines"
            found.append(f"ISH ratio and copies do not go together on {share}: check which is which ({self.lines[0]})")
        if 2 * len(self.against) > self.n_both:
            share = f"{len(self.against)} of {self.n_both} lines"
            found.append(
                f"the stated ISH and its counts contradict each other on {share}: correct the table ({self.against[0]})"
            )
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """The first of them, and the number of the others."""
        lines = [*self.zeros, *self.lines, *self.borders, *self.against, *self.with_ihc, *self.otherwise]
        more = len(lines) - _SHOWN
        return (*(f"CAUTION {text}" for text in lines[:_SHOWN]), *((f"and {more} more such lines",) * (more > 0)))
