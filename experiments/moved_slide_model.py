"""The bundled slide model trained anew on moved batch norms (`training.move_norms`), beside the one that is bundled.

Both, and the same recipe once more without moving (`again`), decide on the same fresh phantoms: 40 of the two sites
that they learned from (bundled_slides.toml), and 60 of each of two other sites, stained as BCSS and as by many
laboratories (ladder/bcss.toml, mixed.toml), 24 more of which adapt them without labels (`he2her2 weights adapt`).
Tumour is what the bundled tumour CNN finds. At alpha 1 nothing of the learned statistics is left, so all networks that
share their other weights have one adapted tile CNN. At home "adapted" is moved to the 56 training slides.

The new weights ship only if at home no fewer slides are right and the AUC is not lower beyond noise, and at the other
sites together no fewer are right and the mean AUC is not lower, as they come and adapted.

Run: python -m experiments.moved_slide_model --work FOLDER [--before WEIGHTS]; what is done already is kept in FOLDER.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from experiments.domain_ladder import Judged, counts, figures, stouffer
from experiments.domain_networks import is_positive, run
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from he2her2.cohort import SlideEngine
from he2her2.config import Config, load_config
from he2her2.csv_files import write_csv
from he2her2.files import write_text
from he2her2.labels import Her2Status
from he2her2.manifest import Split, read_manifest, write_manifest
from he2her2.method import decide_on, score_tiles
from he2her2.models import CNNS, Aggregator, Engine, load_aggregator, load_cnn, trained_folder
from he2her2.results import Failure
from he2her2.statistics import delong_difference, holm, mcnemar
from he2her2.training.slides.bags import LabelledSlide, TumourTiler
from he2her2.training.slides.data import load_texture_encoder

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "moved_slide_model.md"
COHORTS = {
    "her2sc": "phantoms_he_her2sc",
    "brca": "phantoms_he_brca",
    "her2sc-test": "phantoms_he_her2sc_test",
    "brca-test": "phantoms_he_brca_test",
    "bcss": "ladder/bcss",
    "mixed": "ladder/mixed",
}
HOME, FAR = "home", ("bcss", "mixed")
SITES = {HOME: "home: her2sc-like and brca-like", "bcss": "stained as BCSS", "mixed": "stained as by many"}
TABLES = {"learned": ("her2sc", "brca"), HOME: ("her2sc-test", "brca-test"), "bcss": ("bcss",), "mixed": ("mixed",)}
LEARNED: tuple[Split, ...] = ("train", "val")
WORDS: tuple[object, ...] = (
    *("--licence", "phantoms of this project: Apache-2.0", "--notice", "trained on phantoms: no clinical meaning"),
    *("--annotations-use", "ignore", "--accelerator", "cpu", "--threads", 1, "--resume"),
)


@dataclass(frozen=True)
class Model:
    """A tile CNN with an aggregator.

    Attributes:
        what: In words.
        cnn: "before", with its batch norms "moved" to the training slides, or "adapted" to the site.
        aggregator: Training that it comes from.
    """

    what: str
    cnn: str
    aggregator: str


BUNDLED = Model("bundled", "before", "before")
AGAIN = Model("the same recipe again", "before", "again")
MOVED = Model("on moved batch norms", "moved", "moved")
ADAPTED_BUNDLED = Model("bundled, adapted", "adapted", "before")
ADAPTED_AGAIN = Model("the same recipe again, adapted", "adapted", "again")
ADAPTED_MOVED = Model("on moved batch norms, adapted", "adapted", "moved")
MODELS = (BUNDLED, AGAIN, MOVED, ADAPTED_BUNDLED, ADAPTED_AGAIN, ADAPTED_MOVED)
PAIRS = (
    (MOVED, BUNDLED),
    (MOVED, AGAIN),
    (ADAPTED_BUNDLED, BUNDLED),
    (ADAPTED_MOVED, BUNDLED),
    (ADAPTED_MOVED, ADAPTED_BUNDLED),
    (ADAPTED_MOVED, ADAPTED_AGAIN),
)


def settings() -> Config:
    """Settings of the method."""
    return load_config(overrides=["runtime.threads=1"])


def draw(work: Path, cohort: str) -> None:
    """Draw a cohort, as far as it is not there."""
    out = work / cohort
    if not (out / "manifest.csv").exists():
        run("phantom", out, "--config", HERE / f"{COHORTS[cohort]}.toml", "--threads", 1)


def table_of(work: Path, name: str) -> Path:
    """Manifest of one or two cohorts, without annotations: nothing may know the true tumour."""
    file = work / f"{name}.csv"
    rows = []
    for cohort in TABLES[name]:
        with (work / cohort / "manifest.csv").open(encoding="utf-8", newline="") as found:
            rows += [row | {"path": f"{cohort}/{row['path']}", "annotations": ""} for row in csv.DictReader(found)]
    write_csv(file, tuple(rows[0]), (tuple(row.values()) for row in rows))
    return file


def train(work: Path, name: str, before: str) -> Path:
    """Train the recipe of the bundled slide model, from its own tile CNN; "moved" moves batch norms first."""
    out, file = work / "nets" / name, work / "usable.csv"
    if not (out / "report.md").exists():
        usable = {slide.row.slide_id for split in LEARNED for slide in tiled(work, "learned", split, before, 56)}
        manifest = read_manifest(table_of(work, "learned"))
        write_manifest(replace(manifest, rows=tuple(row for row in manifest.rows if row.slide_id in usable)), file)
        moved = ("--set", "training.move_norms=true") if name == "moved" else ()
        recipe = ("--config", HERE / "bundled_slides.toml", "--weights", before, "--bags", work / "bags")
        run("train", "slides", "--manifest", file, *recipe, *WORDS, *moved, "--out", out)
    return out / "weights"


def adapt(work: Path, site: str, before: str) -> Path:
    """Adapt the weights to the slides of a site that do not test, without their labels."""
    out, file = work / "adapted" / site, work / f"{site}-unlabelled.csv"
    if not out.exists():
        rows = read_manifest(table_of(work, site)).select(split="train")
        cells = ((row.slide_id, row.path, row.patient_id, row.stain) for row in rows)
        write_csv(file, ("slide_id", "path", "patient_id", "stain"), cells)
        run("weights", "adapt", file, "--weights", before, "--threads", 1, "--out", out)
    return out


@dataclass(frozen=True)
class Site:
    """A site's test slides, their tiles and what the networks make of them.

    Attributes:
        work: Working folder.
        name: Of the site.
        before: Weights that are judged beside the new ones.
        most: Test slides of a site that they did not learn from, at most.
    """

    work: Path
    name: str
    before: str
    most: int

    def slides(self) -> list[LabelledSlide]:
        """Test slides with the tiles of the tumour that is found; kept."""
        return tiled(self.work, self.name, "test", self.before, self.most if self.name in FAR else 40)

    def judge(self, model: Model) -> Judged:
        """Calls of a model."""
        aggregator, engine = self._aggregator(model.aggregator), self._engine(model.cnn)
        truth = np.array([is_positive(slide.row) for slide in self.slides()])
        folder = self.work / "logits" / self.name / model.cnn
        scores = [probability(slide, engine, aggregator, folder) for slide in self.slides()]
        return Judged(truth, np.array(scores), settings().positive_from)

    def rivals(self) -> Iterator[tuple[str, Judged]]:
        """Trivial baselines, learned from the colours of the training slides' tissue."""
        learned, tested = tiled(self.work, "learned", "train", self.before, 56), self.slides()
        truth = np.array([is_positive(slide.row) for slide in tested])
        for name, width in (("mean red", 1), ("mean and spread of red, green and blue", 6)):
            rival = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
            rival.fit(colours(learned)[:, :width], [is_positive(slide.row) for slide in learned])
            yield name, Judged(truth, rival.predict_proba(colours(tested)[:, :width])[:, 1], 0.5)

    def _aggregator(self, name: str) -> Aggregator:
        folder = self.before if name == "before" else str(self.work / "nets" / name / "weights")
        return load_aggregator(folder, settings())

    def _engine(self, cnn: str) -> Engine:
        moved = self.work / "nets" / "moved" / "weights"
        adapted = moved if self.name == HOME else self.work / "adapted" / self.name
        folders = {"before": self.before, "moved": str(moved), "adapted": str(adapted)}
        return load_cnn(folders[cnn], "tile_cnn", settings(), "cpu")


@cache
def tiled(work: Path, name: str, split: Split, before: str, most: int) -> list[LabelledSlide]:
    """The first slides of a split with the tiles of the tumour that the tumour CNN finds; without those of too few."""
    config = settings()
    tumour_cnn, texture = load_cnn(before, "tumour_cnn", config, "cpu"), load_texture_encoder(trained_folder(before))
    tiler = TumourTiler(CNNS["strided-tile-cnn"].input, config, tumour_cnn, "ignore", (), texture)
    rows = {row.slide_id: row for row in read_manifest(table_of(work, name)).select(split=split)[:most]}
    found, ledger = [], tiler.ledger(work / "bags")
    for task, tiles in SlideEngine().run(tiler.tasks(list(rows.values())), tiler, ledger, stage="finding tumour tiles"):
        if isinstance(tiles, Failure):
            print(f"left out: {tiles}", flush=True)
        else:
            status = Her2Status.POSITIVE if is_positive(rows[task.slide_id]) else Her2Status.NEGATIVE
            found.append(LabelledSlide(rows[task.slide_id], status, tiles))
    return sorted(found, key=lambda slide: slide.row.slide_id)


def probability(slide: LabelledSlide, engine: Engine, aggregator: Aggregator, folder: Path) -> float:
    """Probability of a slide; its tiles' logits are kept."""
    file, config = folder / f"{slide.row.slide_id}.npy", settings()
    if not file.exists():
        with slide.open(config) as opened:
            _, logits = score_tiles(opened, slide.grid, engine, config.runtime, config.selection.n_tiles)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(file, logits)
    return decide_on(slide.row.slide_id, slide.grid, np.load(file), aggregator, config.positive_from).probability


def colours(slides: Sequence[LabelledSlide]) -> NDArray[np.float64]:
    """(n, 6) means and spreads of red, green and blue over the tissue."""
    return np.array([(*slide.tiles.appearance.mean, *slide.tiles.appearance.spread) for slide in slides])


def tables(work: Path, before: str, most: int) -> Iterator[str]:
    """Lines of the tables."""
    sites = {name: Site(work, name, before, most) for name in SITES}
    rivals = {name: dict(site.rivals()) for name, site in sites.items()}
    judged = {model: {name: site.judge(model) for name, site in sites.items()} for model in MODELS}
    columns = [f"{words}, n = {len(judged[BUNDLED][name].truth)}" for name, words in SITES.items()]
    yield f"| right; balanced accuracy; AUC | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(SITES)}"
    for rival in rivals[HOME]:
        yield f"| *{rival}* | {' | '.join(cell(rivals[name][rival]) for name in SITES)} |"
    for model, found in judged.items():
        yield f"| {model.what} | {' | '.join(cell(found[name]) for name in SITES)} |"
    yield ""
    yield "| first beside second: slides that only one has right (McNemar); AUC change (DeLong) | home | other sites |"
    yield "|---|---|---|"
    tests = [compared(judged[one], judged[two], names) for one, two in PAIRS for names in ((HOME,), FAR)]
    adjusted = iter(holm([p for test in tests for p in (test.p_right, test.p_area)]))
    shown = [test.words(next(adjusted), next(adjusted)) for test in tests]
    for k, (one, two) in enumerate(PAIRS):
        yield f"| {one.what} beside {two.what} | {shown[2 * k]} | {shown[2 * k + 1]} |"


def cell(judged: Judged) -> str:
    """Cell of a table."""
    return f"{int(judged.right.sum())}; {figures(judged)}"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same slides of some sites."""

    right: str
    p_right: float
    areas: tuple[float, ...]
    p_area: float

    def words(self, p_right: float, p_area: float) -> str:
        """Cell of the table, with corrected p-values."""
        areas = ", ".join(f"{area:+.3f}" for area in self.areas)
        return f"{self.right}, p = {self.p_right:.2g} ({p_right:.2g}); {areas}, p = {self.p_area:.2g} ({p_area:.2g})"


def compared(first: dict[str, Judged], second: dict[str, Judged], names: Sequence[str]) -> Comparison:
    """Compare two models; areas by site, joined by Stouffer."""
    test = mcnemar(*(np.concatenate([found[name].right for name in names]) for found in (first, second)))
    areas = [delong_difference(first[n].truth, first[n].scores, second[n].scores) for n in names]
    return Comparison(counts(test), test.exact, tuple(area.estimate.value for area in areas), stouffer(areas))


def main() -> None:
    """Draw, train, adapt, judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--before", default="bundled", help="weights to start from and to judge beside")
    parser.add_argument("--most", type=int, default=60, help="test slides of each other site at most")
    options = parser.parse_args()
    work = options.work.resolve()
    for cohort in COHORTS:
        draw(work, cohort)
    for name in ("moved", "again"):
        train(work, name, options.before)
    for name in FAR:
        adapt(work, name, options.before)
    page = (HERE / "ladder" / "moved.md").read_text("utf-8")
    write_text(RESULT, page + "\n".join(tables(work, options.before, options.most)) + "\n")


if __name__ == "__main__":
    main()
