"""The steps of an ablation that train, each done once: IHC tiles, H&E tiles where asked for, and slides, six times."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from he2her2.ablation.cohorts import Study, StudyFiles, read_study
from he2her2.ablation.methods import AblationSettings, Method
from he2her2.files import atomic, digest, sha256_of, write_text
from he2her2.labels import Policy
from he2her2.manifest import SlideRow
from he2her2.models import CARD_FILE, UNTRAINED_NOTICE, Card, CnnSpec, aggregator_for
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.training.run import Execution
from he2her2.training.settings import TileTraining
from he2her2.training.slides.bags import AnnotationsUse, TumourTiler
from he2her2.training.slides.data import SlideData
from he2her2.training.slides.module import KeptLogits
from he2her2.training.slides.train import train_slides
from he2her2.training.tiles.data import TileData
from he2her2.training.tiles.train import train_tiles

_DONE = "done.txt"


@dataclass(frozen=True, slots=True)
class AblationData:
    """What an ablation is made of.

    Attributes:
        files: The manifests.
        tile_weights: Folder with a `tile_cnn/` that learned from IHC, in place of learning it.
        adapt: Let every tile CNN learn H&E tiles, which inherit their slide's IHC score, before it learns from slides:
            a step of ours that the paper does not have.
        weights: Folder with the `tumour_cnn/` that finds tumour.
        annotations_use: What the annotations of H&E slides are for, in training and in testing.
        policy: Decides a status that a manifest does not state.
        notice: What every output must say.
        licence: Of the slides, for the cards.
    """

    files: StudyFiles
    tile_weights: Path | None = None
    adapt: bool = False
    weights: Path | None = None
    annotations_use: AnnotationsUse = "intersect"
    policy: Policy = Policy.GUIDELINE
    notice: str = ""
    licence: str = "not stated"

    def read(self) -> Study:
        """Read and check the manifests, together.

        Raises:
            ManifestError: All that is wrong with all of them.
        """
        weights = [folder for folder in (self.tile_weights, self.weights) if folder]
        return read_study(self.files, weights, self.policy, scored=self.adapt)


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that train, each done once; `execution` lets each go on where it was stopped."""

    data: AblationData
    out: Path
    settings: AblationSettings
    study: Study
    spec: CnnSpec
    recipe: TumourTiler
    execution: Execution
    kept: KeptLogits = field(default_factory=KeptLogits)

    @property
    def tile_run(self) -> Path | None:
        """The tile CNN's own training; none where its weights were given."""
        return self.out / "tiles" if self.data.tile_weights is None else None

    @property
    def tile_weights(self) -> Path:
        """Folder with the tile CNN that learned from IHC."""
        return self.data.tile_weights or self.out / "tiles" / "weights"

    def start_of(self, method: Method) -> Path:
        """Weights that a method's training on slides starts from."""
        return self.out / "start" / ("pretrained" if method.pretrained else "from-scratch")

    def folder_of(self, method: Method) -> Path:
        """A method's training."""
        return self.out / "methods" / method.key

    def learn_tiles(self) -> None:
        """Let the tile CNN learn from IHC, where it was not given."""
        ihc = self.data.files.ihc
        if self.data.tile_weights is None:
            assert ihc is not None, "a study without tile weights has IHC slides"
            data = TileData(ihc, licence=self.data.licence, notice=self.data.notice)
            self._learn_tiles("tile CNN learns from IHC", data, self.out / "tiles", self.settings.tiles)

    def prepare(self, method: Method) -> None:
        """Gather what a method's training on slides starts from."""
        start = self.start_of(method)
        if self.data.weights is not None and self.data.annotations_use != "replace":
            _copy(self.data.weights / "tumour_cnn", start / "tumour_cnn")
        if not self.data.adapt:
            if method.pretrained:
                _copy(self.tile_weights / "tile_cnn", start / "tile_cnn")
            start.mkdir(parents=True, exist_ok=True)
            return
        folder = self.out / "adapted" / start.name
        init = self.tile_weights if method.pretrained else None
        data = TileData(
            self.data.files.train, stain="HE", init=init, licence=self.data.licence, notice=self.data.notice
        )
        self._learn_tiles(f"tile CNN ({start.name}) learns from H&E tiles", data, folder, self.settings.adapt)
        _copy(folder / "weights" / "tile_cnn", start / "tile_cnn")

    def train(self, method: Method) -> None:
        """Train a method on slides; with a frozen CNN a baseline has nothing to learn and keeps its start."""
        data, settings, start = self.data, self.settings, self.start_of(method)
        slides = SlideData(
            data.files.train,
            weights=start,
            pretrained=self._has_start(method),
            annotations_use=data.annotations_use,
            policy=data.policy,
            notice=data.notice,
            licence=data.licence,
            bags=self.out / "bags",
        )

        def work() -> None:
            if settings.slides.freeze_cnn and not aggregator_for(method.config(settings.config)).has_weights:
                self._keep_start(method)
                return
            train_slides(
                slides,
                self.folder_of(method),
                method.config(settings.config),
                settings.slides,
                self.execution,
                kept=self.kept,
            )

        card = start / "tile_cnn" / CARD_FILE
        made_of = self._made_of(self.study.training_rows, sha256_of(card) if self._has_start(method) else "random")
        self._once(f"{method.key} learns from slides", self.folder_of(method), made_of, work)

    def _has_start(self, method: Method) -> bool:
        """Whether a method's tile CNN has learned anything before it learns from slides."""
        return method.pretrained or self.data.adapt

    def _learn_tiles(self, title: str, data: TileData, folder: Path, settings: TileTraining) -> None:
        rows = self.study.ihc_rows if data.stain == "IHC" else self.study.training_rows
        init = "random" if data.init is None else sha256_of(data.init / "tile_cnn" / CARD_FILE)

        def work() -> None:
            train_tiles(data, folder, self.settings.config, settings, self.execution)

        self._once(title, folder, self._made_of(rows, init), work)

    def _keep_start(self, method: Method) -> None:
        """Write the tile CNN that a method would have started from as the one that it ends with."""
        folder = self.folder_of(method) / "weights" / "tile_cnn"
        if self._has_start(method):
            _copy(self.start_of(method) / "tile_cnn", folder)
            return
        seed = self.settings.slides.seed
        card = Card(self.spec, trained=False, notice=UNTRAINED_NOTICE, seed=seed)
        save_weights(folder, card, initial_weights(self.spec, seed))

    def _made_of(self, rows: Sequence[SlideRow], *more: str) -> str:
        """SHA-256 of the slides that a step looks at; all else is in `run.json`."""
        inputs = [asdict(task.inputs) for task in self.recipe.tasks(rows)]
        return digest(self.recipe.configuration, inputs, *more)

    def _once(self, title: str, folder: Path, made_of: str, work: Callable[[], None]) -> None:
        """Do a step unless its folder says that it is done, with these very slides; one that was stopped goes on."""
        mark = folder / _DONE
        if mark.is_file() and mark.read_text("utf-8").strip() == made_of:
            return
        if mark.is_file():
            shutil.rmtree(folder)
        self.execution.say(title)
        work()
        write_text(mark, f"{made_of}\n")


def _copy(source: Path, target: Path) -> None:
    """Copy a network's folder, unless the same lies there already."""
    if (target / CARD_FILE).is_file() and sha256_of(target / CARD_FILE) == sha256_of(source / CARD_FILE):
        return
    with atomic(target) as draft:
        shutil.copytree(source, draft)
