"""IHC slides: the worker of `he2her2 score-ihc`."""

from dataclasses import dataclass

from he2her2.cohort.tasks import SlideTask
from he2her2.config import Config
from he2her2.method import IhcReading, read_ihc
from he2her2.models import Engine
from he2her2.slides import open_slide


@dataclass(frozen=True, slots=True, eq=False)
class IhcWorker:
    """Reads IHC slides.

    Attributes:
        tile_cnn: An IHC tile CNN.
        config: The settings.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
    """

    tile_cnn: Engine
    config: Config
    annotation_classes: tuple[str, ...] = ()

    def __call__(self, task: SlideTask) -> IhcReading:
        """Reading of one slide.

        Raises:
            SlideError: The slide cannot be read.
            AnnotationError: Its annotation file cannot be used.
        """
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            return read_ihc(slide, self.tile_cnn, self.config, task.read_annotation(self.annotation_classes))
