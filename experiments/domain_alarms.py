"""How often `predict` says that a slide is unlike the training slides, where it is like them and where it is not.

Runs of `predict` with one and the same weights, each over the slides of one site. Three questions:

- **Fresh slides of the same sites**: a tenth of each site's slides at a time is left out, all others say what is like
  them. Whatever is said of those left out is a false alarm.
- **A site left out**: the slides of all other sites say what is like them. If the site differs in nothing but its
  laboratory, an alarm is false in what it stops, and true in what it says: nothing is known of the weights there.
- **Other tissue**: slides of OTHER runs, with all sites known.

Phantoms: 50, 26, 24 and 16 of phantoms_he_{her2sc,brca}.toml and their _test.toml, 30 each of ladder/{bcss,mixed}.toml;
`he2her2 predict SITE/slides --out RUN`. Slides with too little tumour have no scores and are left out.

Run: python -m experiments.domain_alarms SITE=RUN ... [--other NAME=RUN ...]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from he2her2.domain import Domain, Likeness, fit_domain
from he2her2.files import write_text
from he2her2.results import SlideResult, open_run
from he2her2.statistics import exact_binomial

RESULTS = Path(__file__).parent / "results"
PARTS = 10


def read(pairs: Sequence[str]) -> dict[str, list[SlideResult]]:
    """The slides of each NAME=RUN that have colour, scores and texture; several runs of one name are one."""
    found: dict[str, list[SlideResult]] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        run = open_run(Path(folder))
        results = (run.result(slide_id) for slide_id in run.predictions)
        found.setdefault(name, []).extend(result for result in results if result is not None)
    return found


def domain_of(slides: Sequence[SlideResult]) -> Domain:
    """What is like these slides."""
    rows, textures = [slide.domain_features for slide in slides], [slide.texture for slide in slides]
    return fit_domain(rows, "", {}, textures=textures)


def judged(domain: Domain, slides: Sequence[SlideResult]) -> list[Likeness]:
    """How like each slide is."""
    found = [domain.likeness(slide.domain_features, slide.texture) for slide in slides]
    return [likeness for likeness in found if likeness is not None]


def of_the_same_sites(sites: Mapping[str, Sequence[SlideResult]]) -> Iterator[tuple[str, list[Likeness]]]:
    """Yield each site with what is said of its slides by all others, a tenth of every site left out at a time."""
    said: dict[str, list[Likeness]] = {name: [] for name in sites}
    for part in range(PARTS):
        known = [slide for slides in sites.values() for k, slide in enumerate(slides) if k % PARTS != part]
        domain = domain_of(known)
        for name, slides in sites.items():
            said[name] += judged(domain, slides[part::PARTS])
    yield from said.items()


def of_a_site_left_out(sites: Mapping[str, Sequence[SlideResult]]) -> Iterator[tuple[str, list[Likeness]]]:
    """Yield each site with what is said of its slides by those of all others."""
    for name, slides in sites.items():
        domain = domain_of([slide for other, others in sites.items() if other != name for slide in others])
        yield name, judged(domain, slides)


def row(name: str, said: Sequence[Likeness]) -> str:
    """A row of a table."""
    unlike, n = sum(likeness.unlike for likeness in said), len(said)
    share = exact_binomial(unlike, n)
    times = np.array([likeness.distance / likeness.limit for likeness in said])
    words = sorted({likeness.words.split(" where")[0].split(" ")[0] for likeness in said if likeness.unlike})
    why = {"tissue": "texture"}
    told = ", ".join(why.get(word, word) for word in words) or "-"
    alarms = f"{unlike} ({share.low:.0%} to {share.high:.0%})"
    return f"| {name} | {n} | {alarms} | {np.median(times):.2f} (at most {times.max():.2f}) | {told} |"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", nargs="+", metavar="SITE=RUN")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=RUN")
    asked = parser.parse_args()
    sites, others = read(asked.sites), read(asked.other)
    domain = domain_of([slide for slides in sites.values() for slide in slides])
    head = ["| slides | n | said to be unlike (95 %) | distance, in limits: median | by |", "|:--|--:|--:|--:|:--|"]
    lines = [
        "# How often a slide is said to be unlike the training slides",
        "",
        "Written by `python -m experiments.domain_alarms`, of runs with the bundled weights. The limit is meant for",
        "one in a thousand slides of the same kind by colour and scores; by texture it lies half as far again as the",
        "farthest training slide. Phantoms of four sites; slides with too little tumour (8 of 176) are left out.",
        "",
        "## Fresh slides of sites that are known: false alarms",
        "",
        *head,
        *(row(name, said) for name, said in of_the_same_sites(sites)),
        "",
        "## A site left out",
        "",
        *head,
        *(row(name, said) for name, said in of_a_site_left_out(sites)),
    ]
    if others:
        lines += ["", "## Other tissue, all sites known", "", *head]
        lines += [row(name, judged(domain, slides)) for name, slides in others.items()]
    text = "\n".join(lines) + "\n"
    print(text)
    write_text(RESULTS / "domain_alarms.md", text)


if __name__ == "__main__":
    main()
