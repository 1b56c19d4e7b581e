"""`he2her2 ablate`: the six methods of Tables 3 and 4 (paper, 5.4), from manifests to tables, in one resumable folder.

Every step leaves its result in the run's folder and is not done again unless what it is made of has changed: tumour is
found on the training slides (`bags/`), the tile CNN learns from IHC (`tiles/`), six trainings on slides (`methods/`),
six verdicts on every test slide (`tests/`), tables (`tables/`, `report.md`).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from he2her2.atomic import atomic
from he2her2.errors import ConfigError
from he2her2.labels import Policy
from he2her2.manifest import SlideRow
from he2her2.models.card import UNTRAINED_NOTICE, Card
from he2her2.models.engines import Engine
from he2her2.models.initial import initial_weights
from he2her2.models.slide_model import load_cnn
from he2her2.models.weights import CARD_FILE, save_weights, sha256_of
from he2her2.models.zoo import CnnSpec, network
from he2her2.pipeline import Progress, silent
from he2her2.training.ablation_report import write_tables
from he2her2.training.bags import AnnotationsUse, BagRecipe, build_bags
from he2her2.training.cohorts import Study, StudyFiles, read_study
from he2her2.training.methods import METHODS, AblationSettings, Method
from he2her2.training.run_folder import fingerprint, open_run
from he2her2.training.settings import Hardware, digest
from he2her2.training.slide_module import KeptLogits
from he2her2.training.slide_start import SlideData
from he2her2.training.slides import train_slides
from he2her2.training.testing import decide_cohort, load_trained
from he2her2.training.tile_parts import TileData
from he2her2.training.tiles import train_tiles

_DONE = "done.txt"
_FOLDERS = ("bags", "tiles", "start", "methods", "tests", "tables")


@dataclass(frozen=True, slots=True)
class AblationData:
    """What an ablation is made of.

    Attributes:
        files: The manifests.
        tile_weights: Folder with a `tile_cnn/` that learned from IHC, in place of learning it.
        weights: Folder with the `tumour_cnn/` that finds tumour.
        annotations_use: What the annotations of H&E slides are for, in training and in testing.
        policy: Decides a status that a manifest does not state.
        notice: What every output must say.
        licence: Of the slides, for the cards.
    """

    files: StudyFiles
    tile_weights: Path | None = None
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
        return read_study(self.files, weights, self.policy)


def ablate(
    data: AblationData,
    out: Path,
    settings: AblationSettings,
    *,
    hardware: Hardware,
    command: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train the six methods, test them on every cohort, and write the paper's tables of them.

    Args:
        data: Slides and weights.
        out: Folder of the run; one that was stopped goes on.
        settings: How.
        hardware: What the trainings run on.
        command: The command line.
        overwrite: Replace another run in the folder.
        progress: Told how far a step is.
        say: Told, in a line, which step begins and what a user should see.

    Returns:
        The report.

    Raises:
        ManifestError: All that is wrong with manifests and training slides, before any training.
        ConfigError: Settings, weights or hardware that do not fit, or a run of other settings in the folder.
        WeightsError: The weights cannot be used.
        OutputError: The folder cannot be written, or holds something else.
    """
    study = data.read()
    tumour_cnn = _tumour_cnn(data, settings)
    _open(data, out, settings, hardware, command, overwrite=overwrite)
    spec = network(settings.config.networks.tile_cnn, "tile_cnn")
    assert isinstance(spec, CnnSpec)
    recipe = BagRecipe(spec.input, settings.config, tumour_cnn, data.annotations_use)
    rows = study.training_rows
    say(f"tumour on {len(rows)} training slides")
    build_bags(
        rows,
        recipe,
        out / "bags",
        policy=data.policy,
        on_bag=lambda n: progress("finding tumour tiles", n, len(rows)),
    )
    run = _Steps(data, out, settings, study, spec, recipe, hardware, command, progress, say)
    tile_weights = run.learn_tiles()
    run.gather_start(tile_weights)
    for method in sorted(METHODS, key=lambda method: not method.pretrained):  # those of one start share its logits
        run.train(method)
    trained = {
        method: load_trained(
            run.folder_of(method) / "weights",
            method.config(settings.config),
            [tile_weights] if method.pretrained else [],
        )
        for method in METHODS
    }
    results = []
    for cohort in study.tests:
        say(f"six methods decide on {len(cohort.rows)} slides of {cohort.name}")
        folder = out / "tests" / cohort.name
        results.append(decide_cohort(cohort, trained, recipe, folder, policy=data.policy, progress=progress))
    return write_tables(
        out,
        results,
        {method: run.folder_of(method) for method in METHODS},
        tile_run=run.tile_run,
        about=_about(study, settings),
        notice=data.notice,
    )


def _about(study: Study, settings: AblationSettings) -> str:
    """What was trained on what, in words."""
    ihc = f"{len(study.ihc_rows)} IHC slides" if study.ihc_rows else "given weights"
    networks, slides = settings.config.networks, settings.slides
    frozen = "; the tile CNN is frozen there, only MLPs learn" if slides.freeze_cnn else ""
    return (
        f"Preset {settings.config.preset}: {networks.tile_cnn} from {ihc}, then {slides.epochs} epochs on "
        f"{len(study.training_rows)} H&E slides (train and val), {settings.config.selection.n_tiles} tiles a slide, "
        f"β = {settings.config.scoring.beta:g} in prediction{frozen}. All settings: `run.json`."
    )


def _tumour_cnn(data: AblationData, settings: AblationSettings) -> Engine | None:
    if data.annotations_use == "replace":
        return None
    if data.weights is None:
        raise ConfigError("no tumour CNN: give --weights FOLDER with tumour_cnn/, or --annotations-use replace")
    return load_cnn(str(data.weights), "tumour_cnn", settings.config)


def _open(
    data: AblationData,
    out: Path,
    settings: AblationSettings,
    hardware: Hardware,
    command: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Check that the run may use its folder, and write `run.json` there."""
    files = data.files
    inputs: dict[str, Any] = {
        "ihc": fingerprint(files.ihc),
        "train": fingerprint(files.train),
        "tests": {name: fingerprint(path) for name, path in files.tests.items()},
        "annotations_use": data.annotations_use,
        "policy": data.policy.value,
        "notice": data.notice,
        "licence": data.licence,
        "tile_cnn": data.tile_weights and fingerprint(data.tile_weights / "tile_cnn" / CARD_FILE),
        "tumour_cnn": None,
    }
    if data.annotations_use != "replace" and data.weights is not None:
        inputs["tumour_cnn"] = fingerprint(data.weights / "tumour_cnn" / CARD_FILE)
    open_run(
        out,
        "ablation",
        command=command,
        config=settings.config,
        settings=settings.trainings,
        inputs=inputs,
        hardware=hardware,
        resume=True,
        overwrite=overwrite,
    )
    for name in _FOLDERS if overwrite else ():
        shutil.rmtree(out / name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps that train, each done once."""

    data: AblationData
    out: Path
    settings: AblationSettings
    study: Study
    spec: CnnSpec
    recipe: BagRecipe
    hardware: Hardware
    command: Sequence[str]
    progress: Progress
    say: Callable[[str], None]
    kept: KeptLogits = field(default_factory=KeptLogits)

    @property
    def start(self) -> Path:
        """Weights that slide training starts from."""
        return self.out / "start"

    @property
    def tile_run(self) -> Path | None:
        """The tile CNN's own training; none where its weights were given."""
        return self.out / "tiles" if self.data.tile_weights is None else None

    def folder_of(self, method: Method) -> Path:
        """A method's training."""
        return self.out / "methods" / method.key

    def learn_tiles(self) -> Path:
        """The folder with a tile CNN that learned from IHC: the one given, or that of its training."""
        if self.data.tile_weights is not None:
            return self.data.tile_weights
        ihc, folder = self.data.files.ihc, self.out / "tiles"
        assert ihc is not None, "a study without tile weights has IHC slides"

        def work() -> None:
            train_tiles(
                TileData(ihc, licence=self.data.licence, notice=self.data.notice),
                folder,
                self.settings.config,
                self.settings.tiles,
                hardware=self.hardware,
                command=self.command,
                resume=True,
                progress=self.progress,
                say=self.say,
            )

        self._once("tile CNN learns from IHC", folder, self._made_of(self.study.ihc_rows), work)
        return folder / "weights"

    def gather_start(self, tile_weights: Path) -> None:
        """Put the networks that slide training starts from into one folder."""
        _copy(tile_weights / "tile_cnn", self.start / "tile_cnn")
        if self.data.weights is not None and self.data.annotations_use != "replace":
            _copy(self.data.weights / "tumour_cnn", self.start / "tumour_cnn")

    def train(self, method: Method) -> None:
        """Train a method on slides; with a frozen CNN a baseline has nothing to learn and keeps its start."""
        data, settings = self.data, self.settings
        slides = SlideData(
            data.files.train,
            weights=self.start,
            pretrained=method.pretrained,
            annotations_use=data.annotations_use,
            policy=data.policy,
            notice=data.notice,
            licence=data.licence,
            bags=self.out / "bags",
        )

        def work() -> None:
            if settings.slides.freeze_cnn and method.aggregation != "mlp":
                self._keep_start(method)
                return
            train_slides(
                slides,
                self.folder_of(method),
                method.config(settings.config),
                settings.slides,
                hardware=self.hardware,
                command=self.command,
                resume=True,
                kept=self.kept,
                progress=self.progress,
                say=self.say,
            )

        made_of = self._made_of(self.study.training_rows, sha256_of(self.start / "tile_cnn" / CARD_FILE))
        self._once(f"{method.key} learns from slides", self.folder_of(method), made_of, work)

    def _keep_start(self, method: Method) -> None:
        """Write the tile CNN that a method would have started from as the one that it ends with."""
        folder = self.folder_of(method) / "weights" / "tile_cnn"
        if method.pretrained:
            _copy(self.start / "tile_cnn", folder)
            return
        seed = self.settings.slides.seed
        card = Card(self.spec, trained=False, notice=UNTRAINED_NOTICE, seed=seed)
        save_weights(folder, card, initial_weights(self.spec, seed))

    def _made_of(self, rows: Sequence[SlideRow], *more: str) -> str:
        """SHA-256 of the slides that a step looks at; all else is in `run.json`."""
        return digest([self.recipe.made_of(row) for row in rows], *more)

    def _once(self, title: str, folder: Path, made_of: str, work: Callable[[], None]) -> None:
        """Do a step unless its folder says that it is done, with these very slides; one that was stopped goes on."""
        mark = folder / _DONE
        if mark.is_file() and mark.read_text("utf-8").strip() == made_of:
            return
        if mark.is_file():
            shutil.rmtree(folder)
        self.say(title)
        work()
        with atomic(mark) as draft:
            draft.write_text(f"{made_of}\n", "utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy a network's folder, unless the same lies there already."""
    if (target / CARD_FILE).is_file() and sha256_of(target / CARD_FILE) == sha256_of(source / CARD_FILE):
        return
    with atomic(target) as draft:
        shutil.copytree(source, draft)
