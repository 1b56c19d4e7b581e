"""Prediction and segmentation of slides: the worker of `he2her2 predict` and `he2her2 segment`."""

from dataclasses import asdict, dataclass, replace
from socket import gethostname

from he2her2.cohort.attempt import UnfinishedSlideError, error_stage
from he2her2.cohort.tasks import SlideTask
from he2her2.config import Config
from he2her2.domain import slide_features
from he2her2.errors import AnnotationError, SlideError, TilingError, TumourError, WeightsError
from he2her2.files import digest
from he2her2.method import Findings, Segmentation, find_tissue, tissue_appearance
from he2her2.models import SlideModel, load_slide_model
from he2her2.pipeline import RegionUse, predict, segment
from he2her2.results import Evidence, Failure, NetworkNote, SlideFolders, prediction_evidence, segmentation_evidence
from he2her2.slides import Slide, open_slide
from he2her2.timing import Progress, Watch, silent

_COLOUR_MPP = 8.0


@dataclass(frozen=True, slots=True)
class SlideWork:
    """Request for a `SlideWorker`: small and picklable, so that every process can open the networks for itself.

    Attributes:
        weights: Folder of weights, or a name for them.
        config: The settings.
        region_use: Purpose of annotated regions.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
        masks_only: Stop at the masks, without scoring tiles.
        folders: Takes what is found on a slide that is tried again, before each stage; None keeps nothing of it.
        networks: `networks_digest` of those that the run began with; empty takes any.
    """

    weights: str
    config: Config
    region_use: RegionUse = "intersect"
    annotation_classes: tuple[str, ...] = ()
    masks_only: bool = False
    folders: SlideFolders | None = None
    networks: str = ""

    def __call__(self, progress: Progress = silent, *, threads: int | None = None) -> "SlideWorker":
        """Open the networks.

        Args:
            progress: Called with the stages of each slide.
            threads: Of the worker; None for those of the settings.

        Raises:
            WeightsError: They cannot be opened, or were replaced since the run began, or are others on this machine.
        """
        config = self.config
        if threads is not None:
            config = replace(config, runtime=replace(config.runtime, threads=threads))
        model = load_slide_model(self.weights, config)
        if self.networks and networks_digest(model) != self.networks:
            found = f"{self.weights}: are other weights on {gethostname()} now than those that the run began with"
            raise WeightsError(f"{found}; keep them, the same on all machines, and give the command again")
        return replace(self, config=config).with_model(model, progress)

    def with_model(self, model: SlideModel, progress: Progress = silent) -> "SlideWorker":
        """The worker of networks that are open already."""
        return SlideWorker(
            model, self.config, self.region_use, self.annotation_classes, self.masks_only, self.folders, progress
        )


def networks_digest(model: SlideModel) -> str:
    """SHA-256 of all of the weights that can change a result."""
    notes = [asdict(NetworkNote.of(card)) for card in model.cards.values()]
    return digest(notes, asdict(model.rules) if model.rules else None)


@dataclass(frozen=True, slots=True, eq=False)
class SlideWorker:
    """Predicts slides, or segments them only.

    Attributes:
        model: The networks.
        config: The settings.
        region_use: Purpose of annotated regions.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
        masks_only: Stop at the masks, without scoring tiles.
        folders: Takes what is found on a slide that is tried again, before each stage; None keeps nothing of it.
        progress: Called with the stages of each slide.
    """

    model: SlideModel
    config: Config
    region_use: RegionUse = "intersect"
    annotation_classes: tuple[str, ...] = ()
    masks_only: bool = False
    folders: SlideFolders | None = None
    progress: Progress = silent

    def __call__(self, task: SlideTask) -> Evidence:
        """Evidence of one slide.

        Raises:
            UnfinishedSlideError: The slide cannot be predicted or segmented, or its annotation file cannot be used.
        """
        findings = Findings()
        try:
            evidence = self._evidence(task, findings)
            named = replace(evidence.result, slide_id=task.slide_id, path=task.source)  # not as its file is named
            return replace(evidence, result=named)
        except (SlideError, AnnotationError) as error:
            raise UnfinishedSlideError(error, findings) from error

    def _evidence(self, task: SlideTask, findings: Findings) -> Evidence:
        watch = Watch(self.progress)
        if task.again and self.folders is not None:
            watch = Watch(_StageKeeper(self.folders, task, findings, self.progress))
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            annotation = task.read_annotation(self.annotation_classes)
            do = segment if self.masks_only else predict
            try:
                found = do(
                    slide,
                    self.model,
                    self.config,
                    annotation=annotation,
                    region_use=self.region_use,
                    watch=watch,
                    findings=findings,
                )
            except (TumourError, TilingError) as error:
                raise error if self.masks_only else self._explained(slide, error) from None
            if isinstance(found, Segmentation):
                return segmentation_evidence(slide, found, self.model, self.config, watch)
            return prediction_evidence(slide, found, self.model, self.config, watch)

    def _explained(self, slide: Slide, error: TumourError | TilingError) -> SlideError:
        """The error, which begins with the slide's unlikeness to the training slides if it has one."""
        if self.model.domain is None:
            return error
        thumbnail = slide.thumbnail(_COLOUR_MPP)
        tissue, pen = find_tissue(thumbnail, self.config.tissue, self.config.quality)
        if not (tissue & ~pen).any():
            return error
        px_l0 = slide.size_l0.w / thumbnail.shape[1]
        encoder, tiling, runtime = self.model.texture_encoder, self.config.tiling, self.config.runtime
        look = tissue_appearance(slide, thumbnail, tissue & ~pen, px_l0, encoder, tiling, runtime)
        likeness = self.model.domain.likeness(slide_features(look.mean, look.spread), look.texture)
        if likeness is None or not likeness.unlike:
            return error
        return type(error)(error.slide_id, f"{likeness.warning}; {error.reason}", error.remedy)


@dataclass(slots=True)
class _StageKeeper:
    """Progress of a slide at which a worker has died: whatever was found is on disk before the next stage begins.

    Attributes:
        folders: Takes it.
        task: The slide.
        findings: On it, so far.
        progress: Told all that this is told.
    """

    folders: SlideFolders
    task: SlideTask
    findings: Findings
    progress: Progress
    _stage: str = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Write what was found if this is another stage."""
        if stage != self._stage:
            self._stage = stage
            self._write(error_stage(stage))
        self.progress(stage, done, total)

    def _write(self, stage: str) -> None:
        slide_id = self.task.slide_id
        reason, remedy = "its worker ended here", "the row in failures.csv says how"
        if not self.folders.write_unfinished(Failure(slide_id, self.task.source, stage, reason, remedy), self.findings):
            self.folders.discard(slide_id)  # what is there is of an earlier attempt
