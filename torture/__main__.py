"""All tortures in full: `python -m torture [slides|parsers|kills|cohorts] [--n N] [--seed SEED] [--work FOLDER]`."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from torture.cohorts import lines as cohort_lines
from torture.cohorts import torture_cohorts
from torture.endings import Tally
from torture.kills import lines as kill_lines
from torture.kills import torture_kills
from torture.parsers import lines as parser_lines
from torture.parsers import torture_parsers
from torture.slides import lines as slide_lines
from torture.slides import torture_slides

FULL = {"slides": 2000, "parsers": 2000, "kills": 100, "cohorts": 100}
"""Number of inputs of each part."""

_REPORT_EVERY_S = 30


class Reporter:
    """Prints how far a part is, now and then."""

    def __init__(self, part: str, n: int) -> None:
        self._part, self._n, self._last = part, n, time.monotonic()

    def __call__(self, done: int, tally: Tally) -> None:
        """Print, if the last line was long ago."""
        if time.monotonic() - self._last > _REPORT_EVERY_S:
            self._last = time.monotonic()
            print(f"{self._part}: {done} of {self._n}, {len(tally.broken)} broken", flush=True)


def _run(part: str, n: int, work: Path, seed: int) -> tuple[Tally, Iterator[str]]:
    """One part: its endings, and its table."""
    report = Reporter(part, n)
    if part == "slides":
        tally, n_flipped = torture_slides(n, work, seed=seed, report=report)
        return tally, slide_lines(tally, n_flipped)
    if part == "parsers":
        tally = torture_parsers(n, work, first=seed, report=report)
        return tally, parser_lines(tally)
    if part == "cohorts":
        tally = torture_cohorts(n, work, seed=seed, report=report)
        return tally, cohort_lines(tally)
    tally = torture_kills(n, work, seed=seed, report=report)
    return tally, kill_lines(tally)


def main() -> None:
    """Run the parts asked for; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*FULL, []], default=[*FULL])
    parser.add_argument("--n", type=int, help="inputs of each part, instead of the full number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("torture-work"))
    asked = parser.parse_args()
    broken = 0
    for part in asked.parts:
        n = asked.n or FULL[part]
        tally, shown = _run(part, n, asked.work / part, asked.seed)
        print("\n".join(shown), flush=True)
        broken += len(tally.broken)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
