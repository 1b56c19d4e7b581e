"""ISH counts of a table that do not go together: named line by line, or refused where they are the rule."""

from dataclasses import dataclass, field

from he2her2.labels import Ish, IshCounts, doubt_about

_SHOWN = 5


@dataclass(slots=True)
class CountDoubts:
    """Doubts about the ISH counts of a table.

    Attributes:
        n_counts: Rows with a ratio and copies.
        lines: Doubts about them, a line of text each.
    """

    n_counts: int = 0
    lines: list[str] = field(default_factory=list)

    def about(self, line: int, ish: Ish | None, cep17: float | None) -> str:
        """Doubt about a row's counts, which is kept; empty where they go together."""
        if not isinstance(ish, IshCounts) or ish.ratio is None or ish.copies is None:
            return ""
        self.n_counts += 1
        if found := doubt_about(ish, cep17):
            self.lines.append(f"line {line}: {found}")
        return found

    @property
    def problems(self) -> tuple[str, ...]:
        """One where most rows are doubtful: then the columns are not what they are called."""
        if 2 * len(self.lines) <= self.n_counts:
            return ()
        share = f"{len(self.lines)} of {self.n_counts} lines"
        return (f"ISH ratio and copies do not go together on {share}: check which is which ({self.lines[0]})",)

    @property
    def notes(self) -> tuple[str, ...]:
        """The first of them, and the number of the others."""
        more = len(self.lines) - _SHOWN
        return (*(f"CAUTION {text}" for text in self.lines[:_SHOWN]), *((f"and {more} more such lines",) * (more > 0)))
