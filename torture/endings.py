"""Endings of tried inputs, counted."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    """What became of an input."""

    REFUSED = "refused"
    """One line that says why; exit code 1 or 2."""

    ANSWERED = "answered"
    """The answer of the sound input, or another one with a word about it."""

    SILENT = "silent"
    """Another answer than that of the sound input, without a word."""

    CRASHED = "crashed"
    """A traceback, a signal, or something that is neither an answer nor a line."""

    HUNG = "hung"
    """Longer than the limit."""

    FLOODED = "flooded"
    """More memory than the limit."""

    LOST = "lost"
    """A result that was there is gone or changed, or something half is left."""


BROKEN = frozenset({Ending.CRASHED, Ending.HUNG, Ending.FLOODED, Ending.LOST})
"""Endings that must not be."""

_SHOWN = 10


@dataclass(slots=True)
class Tally:
    """Endings of the inputs of one part.

    Attributes:
        counts: Kind of input to the number of each ending.
        broken: A line for each ending that must not be.
    """

    counts: dict[str, Counter[Ending]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, kind: str, ending: Ending, words: str) -> None:
        """Count an input; `words` say which it was and what it brought about."""
        self.counts.setdefault(kind, Counter())[ending] += 1
        if ending in BROKEN:
            self.broken.append(f"{ending}: {kind}: {words}")

    def total(self, *endings: Ending) -> int:
        """Number of inputs, or of those with one of these endings."""
        return sum(counts[ending] for counts in self.counts.values() for ending in endings or Ending)

    def lines(self) -> Iterator[str]:
        """A table of the counts, and the first of the broken ones."""
        shown = [ending for ending in Ending if ending not in BROKEN - {Ending.CRASHED} or self.total(ending)]
        width = max(map(len, [*self.counts, "all"]))
        yield f"  {'':{width}}  {'tried':>8}" + "".join(f"  {ending:>8}" for ending in shown)
        for kind, counts in self.counts.items():
            yield f"  {kind:{width}}" + "".join(f"  {n:8d}" for n in _row(counts, shown))
        if len(self.counts) > 1:
            total = sum(self.counts.values(), Counter[Ending]())
            yield f"  {'all':{width}}" + "".join(f"  {n:8d}" for n in _row(total, shown))
        yield from (f"  {words}" for words in self.broken[:_SHOWN])
        if len(self.broken) > _SHOWN:
            yield f"  and {len(self.broken) - _SHOWN} more"


def _row(counts: Counter[Ending], shown: Iterable[Ending]) -> list[int]:
    return [counts.total(), *(counts[ending] for ending in shown)]
