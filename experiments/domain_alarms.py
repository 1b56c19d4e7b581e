"""Share of slides that `predict` says are unlike the training slides: of known sites, of a site left out, of others.

Runs of `predict` with one and the same weights, each named SITE or "SITE, which slides". Three questions:

- **Slides left out, of sites that are known**: a tenth of the slides of each run at a time, all others say what is like
  them. Whatever is said of those left out is a false alarm.
- **A site left out**: the slides of all other sites say what is like them. If the site differs in nothing but its
  laboratory, an alarm is false in what it stops, and true in what it says.
- **Other tissue**: slides of OTHER runs, with all sites known.

Left out means left out of what is compared with: of some slides the networks learned, and their names say so.
The phantoms of the page: 50 and 26 of phantoms_he_her2sc.toml and phantoms_he_brca.toml, which the slide model learned
from, 24 and 16 of their _test.toml, 30 each of ladder/bcss.toml and ladder/mixed.toml; `he2her2 predict FOLDER/slides`.

Run: python -m experiments.domain_alarms NAME=RUN ... [--other NAME=RUN ...]
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from he2her2.domain import Domain, Likeness, fit_domain
from he2her2.files import write_text
from he2her2.results import SlideResult, open_run
from he2her2.statistics import exact_binomial

RESULTS = Path(__file__).parent / "results"
PARTS = 10
TEXTURE_BEGINS = "tissue"  # the words of an alarm by texture; those by colour and scores begin with the feature

Slides: TypeAlias = Mapping[str, Sequence[SlideResult]]
"""Slides by the name of their run."""

Said: TypeAlias = Iterator[tuple[str, list[Likeness]]]
"""Likeness of slides, by the name of their run."""


def read(pairs: Sequence[str]) -> tuple[dict[str, list[SlideResult]], int]:
    """The slides of each NAME=RUN that have a result, and the number of those that have none."""
    found: dict[str, list[SlideResult]] = {}
    planned = 0
    for pair in pairs:
        name, _, folder = pair.partition("=")
        run = open_run(Path(folder))
        planned += len(run.planned)
        results = (run.result(slide_id) for slide_id in run.predictions)
        found[name] = [result for result in results if result is not None]
    return found, planned - sum(map(len, found.values()))


def domain_of(slides: Sequence[SlideResult]) -> Domain:
    """Domain fitted to slides."""
    rows, textures = [slide.domain_features for slide in slides], [slide.texture for slide in slides]
    return fit_domain(rows, "", {}, textures=textures)


def likenesses(domain: Domain, slides: Sequence[SlideResult]) -> list[Likeness]:
    """Likeness of each slide to a domain."""
    found = [domain.likeness(slide.domain_features, slide.texture) for slide in slides]
    return [likeness for likeness in found if likeness is not None]


def site_of(name: str) -> str:
    """Site of a run.

    Example:
        >>> site_of("brca-like, fresh")
        'brca-like'
    """
    return name.partition(",")[0]


def of_known_sites(runs: Slides) -> Said:
    """Yield each run with the likeness of its slides to all others, a tenth of every run left out at a time."""
    said: dict[str, list[Likeness]] = {name: [] for name in runs}
    for part in range(PARTS):
        known = [slide for slides in runs.values() for k, slide in enumerate(slides) if k % PARTS != part]
        domain = domain_of(known)
        for name, slides in runs.items():
            said[name] += likenesses(domain, slides[part::PARTS])
    yield from said.items()


def of_a_site_left_out(runs: Slides) -> Said:
    """Yield each run with the likeness of its slides to those of all other sites."""
    for name, slides in runs.items():
        others = [slide for other, kept in runs.items() if site_of(other) != site_of(name) for slide in kept]
        yield name, likenesses(domain_of(others), slides)


def table(said: Iterable[tuple[str, Sequence[Likeness]]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| slides | n | said to be unlike (95 %) | distance, in limits: median | unlike by |"
    yield "|:--|--:|--:|--:|:--|"
    for name, found in said:
        alarms = [likeness.words for likeness in found if likeness.unlike]
        share = exact_binomial(len(alarms), len(found))
        times = np.array([likeness.distance / likeness.limit for likeness in found])
        first = sorted({words.split()[0] for words in alarms})
        told = ", ".join("texture" if word == TEXTURE_BEGINS else word for word in first) or "-"
        yield (
            f"| {name} | {len(found)} | {len(alarms)} ({share.low:.0%} to {share.high:.0%}) "
            f"| {np.median(times):.2f} (at most {times.max():.2f}) | {told} |"
        )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=RUN")
    asked = parser.parse_args()
    runs, without = read(asked.runs)
    others, _ = read(asked.other)
    every = [slide for slides in runs.values() for slide in slides]
    lines = [
        "# Share of slides that are said to be unlike the training slides",
        "",
        "Written by `python -m experiments.domain_alarms`, of runs with the bundled weights. The limit is meant for",
        "one in a thousand slides of the same kind by colour and scores; by texture it lies half as far again as the",
        f"farthest training slide. {without} of {len(every) + without} slides have too little tumour and are left out.",
        "",
        "## Slides left out, of sites that are known: false alarms",
        "",
        *table(of_known_sites(runs)),
        "",
        "## A site left out",
        "",
        *table(of_a_site_left_out(runs)),
        "",
        "## Other tissue, all sites known",
        "",
        *table((name, likenesses(domain_of(every), slides)) for name, slides in others.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    write_text(RESULTS / "domain_alarms.md", text)


if __name__ == "__main__":
    main()
