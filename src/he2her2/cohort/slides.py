"""Prediction and segmentation of slides: the workers of `he2her2 predict` and `he2her2 segment`, and their tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from he2her2.cohort.engine import SlideTask
from he2her2.config import Config
from he2her2.models import SlideModel
from he2her2.pipeline import RegionUse, predict, segment
from he2her2.preprocessing import read_annotation
from he2her2.results.evidence import Evidence, prediction_evidence, segmentation_evidence
from he2her2.slides import open_slide, slide_id_of
from he2her2.timing import Progress, Watch, silent

_ANNOTATION_ENDINGS = (".geojson", ".json", ".xml", ".session.xml", ".png")


@dataclass(frozen=True, slots=True, eq=False)
class SlideWorker:
    """Predicts slides, or segments them only.

    Attributes:
        model: The networks.
        config: The settings.
        region_use: Purpose of annotated regions.
        masks_only: Stop at the masks, without scoring tiles.
        progress: Called with the stages of each slide.
    """

    model: SlideModel
    config: Config
    region_use: RegionUse = "intersect"
    masks_only: bool = False
    progress: Progress = silent

    def __call__(self, task: SlideTask) -> Evidence:
        """Evidence of one slide.

        Raises:
            SlideError: The slide cannot be predicted or segmented.
            AnnotationError: Its annotation file cannot be used.
        """
        watch = Watch(self.progress)
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            annotation = None if task.annotations is None else read_annotation(task.annotations)
            if self.masks_only:
                found = segment(
                    slide, self.model, self.config, annotation=annotation, region_use=self.region_use, watch=watch
                )
                return segmentation_evidence(slide, found, self.model, self.config, watch)
            prediction = predict(
                slide, self.model, self.config, annotation=annotation, region_use=self.region_use, watch=watch
            )
            return prediction_evidence(slide, prediction, self.model, self.config, watch)


def slide_tasks(paths: Sequence[Path], mpp: float | None = None, annotations: Path | None = None) -> list[SlideTask]:
    """Tasks of slide files.

    Args:
        paths: The slides.
        mpp: µm per level-0 px of all of them, over what their files say.
        annotations: Annotation file of a single slide, or a folder with a file of each slide's name.
    """
    tasks = [SlideTask(slide_id_of(path), path, mpp) for path in paths]
    return [replace(task, annotations=annotation_file(task.slide_id, annotations)) for task in tasks]


def annotation_file(slide_id: str, annotations: Path | None) -> Path | None:
    """The file given, or the file of the slide's name in the folder given, which may be missing."""
    if annotations is None or not annotations.is_dir():
        return annotations
    candidates = [annotations / f"{slide_id}{ending}" for ending in _ANNOTATION_ENDINGS]
    return next((file for file in candidates if file.exists()), candidates[0])
