"""Ways to keep a slide model at work in another laboratory: the ladder of paper 5.3, rung by rung, on phantoms.

Networks learn from slides of the site her2sc-like alone (experiments/reduced/train.toml, from the bundled IHC tile
CNN) and are tested on fresh slides of it and of three other sites (experiments/ladder/): brca-like, and two in stains
measured on real tissue (experiments/site_stains.py). Every other site has 24 more slides without labels to adapt to.
Rungs: strong augmentation of stain, colour and focus in the training of the tile CNN and of the aggregator;
normalisation of training and test slides; batch norms moved to the site's slides; a threshold chosen on their scores.

Tumour is the phantom's truth; selection takes 30 tiles. All that is done already is kept in the working folder.

Run: python -m experiments.domain_ladder [--work FOLDER] [--seeds 0 1]
The page has both seeds; the first alone takes an hour on two cores.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from experiments.domain_networks import (
    FAR,
    NETWORKS,
    SITES,
    Probabilities,
    Site,
    colour_rivals,
    draw,
    is_positive,
    normalise,
    score,
    train,
)
from numpy.typing import NDArray
from scipy.stats import norm

from he2her2.statistics import (
    Difference,
    Estimate,
    McNemar,
    auc_interval,
    balanced_accuracy,
    decision_interval,
    delong_difference,
    holm,
    mcnemar,
    share_by_em,
    threshold_at_prior,
    threshold_at_share,
    threshold_in_valley,
)

HERE = Path(__file__).resolve().parent
PREVALENCE = 0.45


@dataclass(frozen=True)
class Rung:
    """A row of the tables.

    Attributes:
        what: In words.
        network: Key of the scores: a network, with "@alpha" where its batch norms were moved.
        threshold: Rule of the threshold.
        alone: Not part of the ladder: one step by itself.
    """

    what: str
    network: str
    threshold: str = "0.5"
    alone: bool = False


RUNGS = (
    Rung("source only", "source"),
    Rung("+ augmentation, tile CNN", "augmented"),
    Rung("+ augmentation, aggregator", "augmented-twice"),
    Rung("+ Macenko", "macenko-augmented"),
    Rung("+ batch norms, alpha 0.5", "macenko-augmented@0.5"),
    Rung("+ threshold by share", "macenko-augmented@0.5", "share"),
    Rung("Reinhard", "reinhard", alone=True),
    Rung("Macenko", "macenko", alone=True),
    Rung("batch norms, alpha 0.5", "source@0.5", alone=True),
    Rung("batch norms, alpha 1", "source@1", alone=True),
    Rung("aggregator of moved batch norms", "moved", alone=True),
    Rung("the same, batch norms 0.5", "moved@0.5", alone=True),
    Rung("the same, batch norms 1", "moved@1", alone=True),
    Rung("the same, batch norms 1, threshold by share", "moved@1", "share", alone=True),
    Rung("the same, batch norms 1, threshold in the valley", "moved@1", "valley", alone=True),
    Rung("threshold by share", "source", "share", alone=True),
    Rung("threshold in the valley", "source", "valley", alone=True),
    Rung("threshold by EM for another share", "source", "prior-shift", alone=True),
    Rung("batch norms 0.5 and threshold by share", "source@0.5", "share", alone=True),
    Rung("augmentation and batch norms 0.5", "augmented@0.5", alone=True),
    Rung("augmentation and batch norms 1", "augmented@1", alone=True),
    Rung("augmentation and threshold by share", "augmented", "share", alone=True),
    Rung("augmentation, batch norms 0.5, threshold by share", "augmented@0.5", "share", alone=True),
)


@dataclass(frozen=True)
class Judged:
    """Calls of a rung on a site's test slides.

    Attributes:
        truth: (n,) bool.
        scores: (n,) probability.
        threshold: Positive from there on.
    """

    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    threshold: float

    @property
    def called(self) -> NDArray[np.bool_]:
        """(n,) called positive."""
        return self.scores >= self.threshold

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) called right."""
        return np.equal(self.called, self.truth)

    @property
    def auc(self) -> Estimate:
        """AUC with its interval."""
        return auc_interval(self.truth, self.scores)

    @property
    def balanced(self) -> Estimate:
        """Balanced accuracy with its interval."""
        return decision_interval(balanced_accuracy, self.truth, self.called)


def judge(scored: Probabilities, site: Site, rung: Rung, share: float = PREVALENCE) -> Judged | None:
    """Calls of a rung; None where it does not exist, as a threshold by slides of the home site."""
    tested = site.of_split("test")
    found = scored(site, tested, rung.network)
    if found is None or (rung.threshold != "0.5" and site.name not in FAR):
        return None
    seen = [] if rung.threshold == "0.5" else scored(site, site.unlabelled, rung.network) or []
    truth = np.array([is_positive(row) for row in tested])
    return Judged(truth, np.array(found), threshold_by(rung.threshold, seen, share))


def threshold_by(rule: str, seen: Sequence[float], share: float) -> float:
    """Threshold by a rule, from the scores of slides without labels."""
    if rule == "share":
        return threshold_at_share(seen, share)
    if rule == "valley":
        return threshold_in_valley(seen)
    return threshold_at_prior(0.5, share_by_em(seen, 0.5)) if rule == "prior-shift" else 0.5


def rivals_on(work: Path, site: Site, seed: int) -> dict[str, Judged]:
    """Trivial baselines on a site."""
    tested = site.of_split("test")
    truth = np.array([is_positive(row) for row in tested])
    judged = {"always positive": Judged(truth, np.ones(len(truth)), 0.5)}
    for name, rival in colour_rivals(work).items():
        colours = [site.read(row, seed)[name] for row in tested]
        judged[name] = Judged(truth, rival.predict_proba(colours)[:, 1], 0.5)
    return judged


def figures(judged: Judged | None) -> str:
    """Cell of a table: balanced accuracy and AUC."""
    if judged is None:
        return "-"
    return f"{shown(judged.balanced)}; {shown(judged.auc)}"


def shown(estimate: Estimate) -> str:
    """A figure with its interval."""
    return f"{estimate.value:.2f} ({estimate.low:.2f}-{estimate.high:.2f})"


def tables(work: Path, seed: int) -> Iterator[str]:
    """Lines of the figures: rivals, ladder, single steps, and comparisons with the source alone."""
    sites = {name: Site(work, name) for name in SITES}
    yield f"| balanced accuracy; AUC | {' | '.join(SITES.values())} |"
    yield f"|---|{'---|' * len(SITES)}"
    rivals = {name: rivals_on(work, site, seed) for name, site in sites.items()}
    for rival in next(iter(rivals.values())):
        yield f"| *{rival}* | {' | '.join(figures(rivals[name][rival]) for name in SITES)} |"
    scored = Probabilities(work, seed)
    judged = {rung: {name: judge(scored, site, rung) for name, site in sites.items()} for rung in RUNGS}
    for alone in (False, True):
        yield f"| **{'one step alone, or two' if alone else 'the ladder'}** |{' |' * len(SITES)}"
        for rung in RUNGS:
            if rung.alone == alone and any(judged[rung].values()):
                yield f"| {rung.what} | {' | '.join(figures(judged[rung][name]) for name in SITES)} |"
    yield ""
    yield from compared(judged)


def compared(judged: Mapping[Rung, Mapping[str, Judged | None]]) -> Iterator[str]:
    """Lines of the paired comparisons with the source alone: the far sites together, and the home site."""
    source = judged[RUNGS[0]]
    steps = [Step(rung, judged[rung], source) for rung in RUNGS[1:] if judged[rung][FAR[0]] is not None]
    adjusted = iter(holm([p for step in steps for p in (step.far_p, step.auc_p, step.home_p)]))
    yield (
        "| beside the source alone | far sites: slides right only with it; only without | p (Holm) | mean AUC change | "
        "p (Holm) | at home, right only with it; only without | p (Holm) |"
    )
    yield "|---|---|---|---|---|---|---|"
    for step in steps:
        far_p, auc_p, home_p = (next(adjusted) for _ in range(3))
        home = counts(step.home)
        same = step.rung.network == "source"
        area = "same | -" if same else f"{step.auc_change:+.2f} | {auc_p:.2g}"
        p_home = "-" if step.home is None else f"{home_p:.2g}"
        yield f"| {step.rung.what} | {counts(step.far)} | {far_p:.2g} | {area} | {home} | {p_home} |"


def counts(test: McNemar | None) -> str:
    """Slides that only one of two has right."""
    return "-" if test is None else f"{test.only_first}; {test.only_second}"


def stouffer(differences: Sequence[Difference]) -> float:
    """Two-sided p-value of several sites' differences together."""
    signed = [norm.isf(one.p_value / 2) * np.sign(one.estimate.value) for one in differences]
    return float(2 * norm.sf(abs(np.nansum(signed)) / np.sqrt(len(differences))))


class Step:
    """A rung beside the source alone: exact McNemar over far sites and at home, DeLong by site, joined by Stouffer."""

    def __init__(self, rung: Rung, found: Mapping[str, Judged | None], source: Mapping[str, Judged | None]) -> None:
        pairs = {name: (one, source[name]) for name, one in found.items() if one is not None}
        far = [(one, first) for name, (one, first) in pairs.items() if name in FAR and first is not None]
        self.rung = rung
        self.far = mcnemar(np.concatenate([one.right for one, _ in far]), np.concatenate([two.right for _, two in far]))
        self.far_p = self.far.exact
        areas = [delong_difference(one.truth, one.scores, first.scores) for one, first in far]
        self.auc_change = float(np.mean([area.estimate.value for area in areas]))
        self.auc_p = stouffer(areas)
        one, first = pairs.get("her2sc", (None, None))
        self.home = None if one is None or first is None else mcnemar(one.right, first.right)
        self.home_p = math.nan if self.home is None else self.home.exact


def wrong_shares(work: Path, seed: int) -> Iterator[str]:
    """Lines on the threshold by share where the share is not what was said."""
    yield "| balanced accuracy, share said to be | " + " | ".join(SITES[name] for name in FAR) + " |"
    yield f"|---|{'---|' * len(FAR)}"
    for network in ("source", "moved@1"):
        for share in (0.15, 0.3, PREVALENCE, 0.6):
            rung = Rung("", network, "share")
            cells = [judge(Probabilities(work, seed), Site(work, name), rung, share) for name in FAR]
            texts = ["-" if one is None else shown(one.balanced) for one in cells]
            yield f"| {network}, {share:g} | {' | '.join(texts)} |"


def page(work: Path, seeds: Sequence[int]) -> str:
    """The page of results."""
    n = min(len(Site(work, name).of_split("test")) for name in SITES)
    text = [(HERE / "ladder" / "page.md").read_text("utf-8").format(n=n)]
    for seed in seeds:
        text += [f"\n## Figures, training seed {seed}\n", *tables(work, seed)]
        text += [f"\n### Where the share is wrong, seed {seed}\n", *wrong_shares(work, seed)]
    return "\n".join(text) + "\n"


def main() -> None:
    """Draw, train, score, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("domain-ladder-run"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--site", choices=SITES, action="append", help="score these sites only, and write no page")
    options = parser.parse_args()
    draw(options.work)
    for kind in sorted({network.normalisation for network in NETWORKS} - {"none"}):
        normalise(options.work, kind)
    for seed in options.seeds:
        for network in NETWORKS:
            train(options.work, network, seed)
        for name in options.site or SITES:
            score(options.work, Site(options.work, name), seed)
    if not options.site:
        (HERE / "results" / "domain_ladder.md").write_text(page(options.work, options.seeds), "utf-8")


if __name__ == "__main__":
    main()
