"""`he2her2 ablate`: the six methods of Tables 3 and 4 (paper, 5.4), from manifests to tables, in one resumable folder.

Every step leaves its result in the run's folder and is not done again unless its inputs have changed: tumour tiles of
the training slides (`bags/`), the tile CNN on IHC (`tiles/`) and, where asked for, on H&E tiles (`adapted/`), six
trainings on slides (`methods/`), six verdicts on every test slide (`tests/`), tables (`tables/`, `report.md`).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from he2her2.ablation.manifests import AblationData, Study
from he2her2.ablation.methods import METHODS, AblationSettings, Method
from he2her2.ablation.tables import write_ablation
from he2her2.ablation.verdicts import decide_cohort, load_trained
from he2her2.cohort import SlideTask, annotation_lines
from he2her2.files import atomic, digest, sha256_of, write_text
from he2her2.models import CARD_FILE, UNTRAINED_NOTICE, Card, CnnSpec, aggregator_for, cnn_named
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.training import Execution, TileTraining, begin_run
from he2her2.training.slides import SlideData, TumourTiler, build_bags, load_texture_encoder, load_tumour_cnn
from he2her2.training.slides.train import KeptLogits, train_slides
from he2her2.training.tiles import TileData
from he2her2.training.tiles.train import train_tiles

__all__ = ["run_ablation"]

_BEGUN, _DONE = "begun.txt", "done.txt"


def run_ablation(data: AblationData, out: Path, settings: AblationSettings, execution: Execution) -> Path:
    """Train the six methods, test them on every cohort, and write the paper's tables for them.

    Args:
        data: Slides and weights.
        out: Folder of the run; a stopped run goes on.
        settings: Of the method and of all trainings.
        execution: Hardware and messages; `resume` is taken for granted.

    Returns:
        The report.

    Raises:
        ManifestError: All problems of manifests and training slides, before any training.
        ConfigError: Settings, weights or hardware that do not fit, or a run of other settings in the folder.
        WeightsError: The weights cannot be used.
        OutputError: The folder cannot be written, or holds something else.
    """
    study = data.read()
    config = settings.config
    tumour_cnn = load_tumour_cnn(data.weights, data.annotations_use, config)
    execution = replace(execution, resume=True)
    begin_run(out, "ablation", execution, config=config, settings=settings.trainings, inputs=data.inputs)
    spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    texture = None if tumour_cnn is None else load_texture_encoder(data.weights)
    tiler = TumourTiler(spec.input, config, tumour_cnn, data.annotations_use, data.annotation_classes, texture)
    tests = tiler.tasks([row for cohort in study.tests for row in cohort.rows])
    for line in annotation_lines(tests, data.annotation_classes):
        execution.say(f"tests: {line}")
    execution.say(f"tumour on {len(study.training_rows)} training slides")
    build_bags(study.training_rows, tiler, out / "bags", policy=data.policy, progress=execution.progress)
    run = _Trainings(data, out, settings, study, spec, tiler, replace(execution, overwrite=False))
    run.train_tile_cnn()
    for method in sorted(METHODS, key=lambda method: not method.pretrained):  # those of one start share its logits
        run.prepare(method)
        run.train(method)
    trained = {
        method: load_trained(
            run.folder_of(method) / "weights",
            method.config(config),
            [run.tile_weights] if method.pretrained else [],
        )
        for method in METHODS
    }
    results = []
    for cohort in study.tests:
        execution.say(f"six methods decide on {len(cohort.rows)} slides of {cohort.name}")
        folder = out / "tests" / cohort.name
        results.append(decide_cohort(cohort, trained, tiler, folder, policy=data.policy, progress=execution.progress))
    folders = {method: run.folder_of(method) for method in METHODS}
    about = _about(data, study, settings)
    return write_ablation(out, results, folders, tile_run=run.tile_run, about=about, notice=data.notice)


def _about(data: AblationData, study: Study, settings: AblationSettings) -> str:
    """Training data and settings in words."""
    ihc = f"{len(study.ihc_rows)} IHC slides" if study.ihc_rows else "given weights"
    adapted = " then H&E tiles by their slide's score (not in the paper)," if data.adapt else ""
    networks, slides = settings.config.networks, settings.slides
    frozen = "; the tile CNN is frozen there, only MLPs are trained" if slides.freeze_cnn else ""
    return (
        f"Preset {settings.config.preset}: {networks.tile_cnn} from {ihc},{adapted} then {slides.epochs} epochs on "
        f"{len(study.training_rows)} H&E slides (train and val), {settings.config.selection.n_tiles} tiles a slide, "
        f"β = {settings.config.scoring.beta:g} in prediction{frozen}. All settings: `run.json`."
    )


@dataclass(frozen=True, slots=True)
class _Trainings:
    """The trainings of an ablation, each done once and resumed where it was stopped."""

    data: AblationData
    out: Path
    settings: AblationSettings
    study: Study
    spec: CnnSpec
    tiler: TumourTiler
    execution: Execution
    kept: KeptLogits = field(default_factory=KeptLogits)

    @property
    def tile_run(self) -> Path | None:
        """Folder of the tile CNN's training; none where its weights were given."""
        return self.out / "tiles" if self.data.tile_weights is None else None

    @property
    def tile_weights(self) -> Path:
        """Folder with the tile CNN trained on IHC."""
        return self.data.tile_weights or self.out / "tiles" / "weights"

    def start_of(self, method: Method) -> Path:
        """Initial weights of a method's training on slides."""
        return self.out / "start" / ("pretrained" if method.pretrained else "from-scratch")

    def folder_of(self, method: Method) -> Path:
        """Folder of a method's training on slides."""
        return self.out / "methods" / method.key

    @property
    def _tile_data(self) -> TileData:
        data = self.data
        return TileData(
            data.files.train, licence=data.licence, notice=data.notice, annotation_classes=data.annotation_classes
        )

    def train_tile_cnn(self) -> None:
        """Train the tile CNN on IHC, where it was not given."""
        ihc = self.data.files.ihc
        if self.data.tile_weights is None:
            assert ihc is not None, "a study without tile weights has IHC slides"
            data = replace(self._tile_data, manifest=ihc)
            self._train_tiles("training the tile CNN on IHC", data, self.out / "tiles", self.settings.tiles)

    def prepare(self, method: Method) -> None:
        """Gather the initial weights of a method's training on slides."""
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
        data = replace(self._tile_data, stain="HE", init=init)
        self._train_tiles(f"training the tile CNN ({start.name}) on H&E tiles", data, folder, self.settings.adapt)
        _copy(folder / "weights" / "tile_cnn", start / "tile_cnn")

    def train(self, method: Method) -> None:
        """Train a method on slides; a baseline under a frozen CNN keeps its initial weights."""
        data, settings, start = self.data, self.settings, self.start_of(method)
        slides = SlideData(
            data.files.train,
            weights=start,
            pretrained=self._has_start(method),
            annotations_use=data.annotations_use,
            annotation_classes=data.annotation_classes,
            policy=data.policy,
            notice=data.notice,
            licence=data.licence,
            bags=self.out / "bags",
        )
        config, folder = method.config(settings.config), self.folder_of(method)

        def work() -> None:
            if settings.slides.freeze_cnn and not aggregator_for(config).has_weights:
                self._keep_start(method)
            else:
                train_slides(slides, folder, config, settings.slides, self.execution, kept=self.kept)

        card = start / "tile_cnn" / CARD_FILE
        initial = sha256_of(card) if self._has_start(method) else "random"
        tasks = self.tiler.tasks(self.study.training_rows)
        self._once(f"training {method.key} on slides", folder, tasks, initial, work)

    def _has_start(self, method: Method) -> bool:
        """True where a method's tile CNN was trained on tiles before."""
        return method.pretrained or self.data.adapt

    def _train_tiles(self, title: str, data: TileData, folder: Path, settings: TileTraining) -> None:
        rows = self.study.ihc_rows if data.stain == "IHC" else self.study.training_rows
        initial = "random" if data.init is None else sha256_of(data.init / "tile_cnn" / CARD_FILE)

        def work() -> None:
            train_tiles(data, folder, self.settings.config, settings, self.execution)

        self._once(title, folder, [*map(SlideTask.of_row, rows)], initial, work)

    def _keep_start(self, method: Method) -> None:
        """Write the initial tile CNN of a method as its trained one."""
        folder = self.folder_of(method) / "weights" / "tile_cnn"
        if self._has_start(method):
            _copy(self.start_of(method) / "tile_cnn", folder)
            return
        seed = self.settings.slides.seed
        card = Card(self.spec, trained=False, notice=UNTRAINED_NOTICE, seed=seed)
        save_weights(folder, card, initial_weights(self.spec, seed))

    def _once(
        self, title: str, folder: Path, tasks: Sequence[SlideTask], initial: str, work: Callable[[], None]
    ) -> None:
        """Do a step unless its folder says that it is done with these slides and weights; all else is in `run.json`.

        One that was begun with others is begun anew.
        """
        made_of = digest(self.tiler.configuration, [asdict(task.inputs) for task in tasks], initial)
        begun, done = folder / _BEGUN, folder / _DONE
        if _marked(done, made_of):
            return
        if folder.exists() and not _marked(begun, made_of):
            shutil.rmtree(folder)
        self.execution.say(title)
        write_text(begun, f"{made_of}\n")
        work()
        write_text(done, f"{made_of}\n")


def _marked(file: Path, made_of: str) -> bool:
    """True where a file says so."""
    return file.is_file() and file.read_text("utf-8").strip() == made_of


def _copy(source: Path, target: Path) -> None:
    """Copy a network's folder, unless the same is there already."""
    if (target / CARD_FILE).is_file() and sha256_of(target / CARD_FILE) == sha256_of(source / CARD_FILE):
        return
    with atomic(target) as draft:
        shutil.copytree(source, draft)
