"""Steps of the study, each a process of its own: its result is a JSON file, and a step that has one is not repeated."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any

import numpy as np
from experiments import gradient_at_beta as gradient
from experiments.paper_sized.design import LICENCE, NOTICE, SIZES, STUDIES, Size, manifest_of, settings_of, usable_of
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from he2her2.ablation.methods import METHODS, Method
from he2her2.cohort import SlideEngine
from he2her2.config import Config
from he2her2.csv_files import read_csv
from he2her2.files import read_json, write_json
from he2her2.labels import Her2Status
from he2her2.manifest import read_manifest, write_manifest
from he2her2.method import decide_on, score_tiles
from he2her2.models import Untrained, cnn_named, load_aggregator, load_cnn, load_engine, load_tensors, read_card
from he2her2.models.torch_modules import initial_weights
from he2her2.results import Failure
from he2her2.slides import map_tiles
from he2her2.training import Execution, Hardware
from he2her2.training.slides import SlideData, TumourTiler, build_bags
from he2her2.training.slides.bags import LabelledSlide
from he2her2.training.slides.train import train_slides
from he2her2.training.tiles import TileData
from he2her2.training.tiles.train import train_tiles

_GRADIENT_SLIDES = 8
_COLOUR_TILES = 200


@dataclass(frozen=True)
class Work:
    """Where and on what the study runs.

    Attributes:
        folder: Holds cohorts, tiles, trainings and results.
        size: Name of the sizes.
        hardware: Of the trainings.
        threads: Of each process.
        until: Time after which no epoch shall end, in seconds since 1970; None has no limit.
    """

    folder: Path
    size: str
    hardware: Hardware
    threads: int
    until: float | None = None

    @property
    def sizes(self) -> Size:
        """The sizes."""
        return SIZES[self.size]

    @property
    def tile_weights(self) -> Path:
        """Weights learned from IHC."""
        return self.folder / "tiles" / "weights"

    def result(self, step: str) -> Path:
        """File of a step's result."""
        return self.folder / "results" / f"{step.replace('/', '.')}.json"

    def is_done(self, step: str) -> bool:
        """True where a step has its result, and no training was cut short in it."""
        return self.result(step).is_file() and read_json(self.result(step)).get("complete", True)

    def execution(self) -> Execution:
        """Execution of a training."""
        return Execution(self.hardware, resume=True, until=self.until, say=lambda line: print(line, flush=True))

    def config(self, study: str = "paper") -> Config:
        """Settings of the method in a study."""
        return settings_of(self.sizes, STUDIES[study], self.threads).config

    def bags(self, cohort: str, *, split: str | None = None) -> list[LabelledSlide]:
        """Tumour tiles of a cohort's slides."""
        rows = [row for row in read_manifest(usable_of(self.folder, cohort)).rows if split in (None, row.split)]
        return build_bags(rows, self.tiler, self.folder / "bags" / cohort)

    @property
    def tiler(self) -> TumourTiler:
        """Cuts the true tumour of a slide into tiles."""
        config = self.config()
        return TumourTiler(cnn_named(config.networks.tile_cnn, "tile_cnn").input, config, None, "replace")


def run_step(work: Work, step: str) -> None:
    """Do a step and write its result."""
    start = time()
    found = _found_by(work, step)
    write_json(work.result(step), {**found, "seconds": time() - start})


def _found_by(work: Work, step: str) -> dict[str, Any]:
    kind, _, name = step.partition("/")
    if kind == "bags":
        return _cut_tumours(work, name)
    if kind == "tiles":
        return _learn_tiles(work)
    if kind == "gradient":
        return _gradient(work)
    if kind == "colour":
        return _by_colour(work)
    return _train_and_test(work, kind, next(method for method in METHODS if method.key == name))


def _cut_tumours(work: Work, cohort: str) -> dict[str, Any]:
    """Cut the tumours of a cohort; a slide with too little tumour is left out, with its reason, and stops nothing."""
    manifest, tiler = read_manifest(manifest_of(work.folder, cohort)), work.tiler
    ledger = tiler.ledger(work.folder / "bags" / cohort)
    found = {task.slide_id: tiles for task, tiles in SlideEngine().run(tiler.tasks(manifest.rows), tiler, ledger)}
    left_out = {name: str(tiles) for name, tiles in found.items() if isinstance(tiles, Failure)}
    rows = tuple(row for row in manifest.rows if row.slide_id not in left_out)
    write_manifest(replace(manifest, rows=rows), usable_of(work.folder, cohort))
    tiles = {name: len(tiles.grid) for name, tiles in found.items() if not isinstance(tiles, Failure)}
    return {"tiles": tiles, "left_out": left_out}


def _learn_tiles(work: Work) -> dict[str, Any]:
    """Train the tile CNN on IHC."""
    settings = settings_of(work.sizes, STUDIES["paper"], work.threads)
    data = TileData(manifest_of(work.folder, "ihc"), licence=LICENCE, notice=NOTICE)
    out = work.folder / "tiles"
    report = train_tiles(data, out, settings.config, settings.tiles, work.execution())
    history = _history(out)
    confusion = {file.name: file.read_text("utf-8") for file in sorted(out.glob("*confusion*.csv"))}
    done = {"epochs": len(history), "complete": len(history) == settings.tiles.epochs}
    return {**done, "history": history, "report": report.read_text("utf-8"), "confusion": confusion}


def _train_and_test(work: Work, study: str, method: Method) -> dict[str, Any]:
    """Train a method on slides, decide on the test slides, and measure how far the CNN moved."""
    design, sizes = STUDIES[study], work.sizes
    settings = settings_of(sizes, design, work.threads)
    config = method.config(settings.config)
    found: dict[str, Any] = {"study": study, "method": method.key}
    weights = work.tile_weights
    if design.train is not None:
        out = work.folder / "trainings" / study / method.key
        data = SlideData(
            usable_of(work.folder, design.train),
            weights=work.tile_weights if method.pretrained else None,
            pretrained=method.pretrained,
            annotations_use="replace",
            notice=NOTICE,
            licence=LICENCE,
            bags=work.folder / "bags" / design.train,
        )
        train_slides(data, out, config, settings.slides, work.execution())
        weights = out / "weights"
        history = _history(out)
        found |= {"epochs": len(history), "complete": len(history) == sizes.epochs, "history": history}
        found |= {"movement": _movement(work, method, weights, config), "kept": _kept(history)}
    decisions = {cohort: list(_decide(work, cohort, weights, config)) for cohort in design.tests}
    return {**found, "decisions": decisions}


def _history(out: Path) -> list[dict[str, float]]:
    """Figures of each epoch of a training."""
    rows = read_csv(out / "logs" / "metrics.csv")
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def _kept(history: list[dict[str, float]]) -> int:
    """Number, from 0, of the epoch that the preset keeps: the first with the best validation accuracy."""
    return int(np.argmax([row["val_accuracy"] for row in history]))


def _decide(work: Work, cohort: str, weights: Path, config: Config) -> Iterator[dict[str, Any]]:
    """Decide on a cohort's slides as prediction does."""
    tile_cnn, aggregator = load_cnn(str(weights), "tile_cnn", config), load_aggregator(str(weights), config)
    for bag in work.bags(cohort):
        with bag.open(config) as slide:
            readable, logits = score_tiles(slide, bag.grid, tile_cnn, config.runtime, config.selection.n_tiles)
        decision = decide_on(bag.row.slide_id, bag.grid.take(readable), logits, aggregator, config.positive_from)
        yield {
            "slide": bag.row.slide_id,
            "patient": bag.row.patient_id,
            "truth": bag.status == Her2Status.POSITIVE,
            "called": decision.status == Her2Status.POSITIVE,
            "probability": decision.probability,
            "tiles": len(decision.grid),
            "mean_score": float(decision.scores.mean()),
            "classes": np.bincount(logits.argmax(axis=1), minlength=4).tolist(),
        }


def _movement(work: Work, method: Method, weights: Path, config: Config) -> dict[str, float]:
    """Relative change of the CNN's weights by slide training, for each layer and in all."""
    folder = weights / "tile_cnn"
    after = load_tensors(folder, read_card(folder, "tile_cnn"))
    start = work.tile_weights / "tile_cnn"
    if method.pretrained:
        before: Mapping[str, NDArray[np.float32]] = load_tensors(start, read_card(start, "tile_cnn"))
    else:
        before = initial_weights(cnn_named(config.networks.tile_cnn, "tile_cnn"), 0)
    layers: dict[str, list[str]] = {"all": [*before]}
    for name in before:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return {layer: _relative_change(before, after, names) for layer, names in layers.items()}


def _relative_change(
    before: Mapping[str, NDArray[np.float32]], after: Mapping[str, NDArray[np.float32]], names: list[str]
) -> float:
    change = sum(float(np.square(after[name].astype(float) - before[name]).sum()) for name in names)
    return float(np.sqrt(change / sum(float(np.square(before[name].astype(float)).sum()) for name in names)))


def _gradient(work: Work) -> dict[str, Any]:
    """Gradient that reaches the paper's CNN at each β, as learned from IHC and as drawn at random."""
    config = work.config()
    bags = work.bags("train", split="train")
    statuses = [[bag for bag in bags if bag.target == target] for target in (0, 1)]
    bags = [bag for pair in zip(*statuses, strict=False) for bag in pair][:_GRADIENT_SLIDES]
    spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    rows = []
    for name, source in (("from IHC", work.tile_weights / "tile_cnn"), ("random", Untrained(spec, 0))):
        logits = list(gradient.score(bags, load_engine(source, "tile_cnn"), config))
        rows += [
            {"tile CNN": name, "beta": beta, **gradient.measure(bags, logits, config, beta)} for beta in gradient.BETAS
        ]
    return {"rows": rows, "slides": len(bags)}


def _by_colour(work: Work) -> dict[str, Any]:
    """Baseline without any network: mean and spread of red, green and blue over tumour tiles, logistic regression."""
    found: dict[str, Any] = {}
    for study in ("paper", "control"):
        design = STUDIES[study]
        assert design.train is not None
        learned = [(bag, _colours(bag, work.config())) for bag in work.bags(design.train)]
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit([colours for _, colours in learned], [bag.target for bag, _ in learned])
        for cohort in design.tests:
            bags = work.bags(cohort)
            positive = model.predict_proba([_colours(bag, work.config()) for bag in bags])[:, 1].tolist()
            found[cohort] = [
                {
                    "slide": bag.row.slide_id,
                    "patient": bag.row.patient_id,
                    "truth": bool(bag.target),
                    "called": probability >= 0.5,
                    "probability": probability,
                }
                for bag, probability in zip(bags, positive, strict=True)
            ]
    return {"decisions": found}


def _colours(bag: LabelledSlide, config: Config) -> list[float]:
    """Mean and standard deviation of each channel over tiles spread through the tumour."""
    grid = bag.grid.take(np.unique(np.linspace(0, len(bag.grid) - 1, _COLOUR_TILES).astype(np.int64)))
    with bag.open(config) as slide:
        pixels = list(map_tiles(slide, grid, lambda batch: batch.pixels.reshape(-1, 3).astype(np.float32)))
    every = np.concatenate(pixels)
    return [*every.mean(axis=0).tolist(), *every.std(axis=0).tolist()]


def in_time(work: Work, seconds: float) -> Work:
    """The same with that much less time, which what follows a training takes."""
    return work if work.until is None else replace(work, until=work.until - seconds)
