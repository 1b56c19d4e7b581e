"""`he2her2 test tumour`: a tumour network against labelled pictures or annotated slides, beside trivial rivals."""

from dataclasses import dataclass
from pathlib import Path

from he2her2.config import Config
from he2her2.datasets import open_patch_set
from he2her2.errors import PatchError
from he2her2.evaluation.tumour.networks import open_networks
from he2her2.evaluation.tumour.patches import PatchTrial, evaluate_patches
from he2her2.evaluation.tumour.slides import SlideTrials, evaluate_slides
from he2her2.machine import usable_cores
from he2her2.method import tumour_threshold
from he2her2.models import Card
from he2her2.preprocessing import SHIFT_SHEET
from he2her2.timing import Progress, silent

_PATCHES = {".npz", ".npy", ".h5", ".hdf5"}
"""Endings of files that are no manifest; as patches an NPZ alone is read, and the others are told so."""


@dataclass(frozen=True, slots=True)
class TumourQuestion:
    """Networks to test, and data to test them on.

    Attributes:
        weights: Folders of weights, or trainings with folds; of several each patient is judged by one that has not
            seen him.
        data: Patch set (NPZ), or manifest with annotated slides.
        config: Of the method; `adaptive` and `runtime` are used.
        mpp: µm per px of a patch set.
        annotation_classes: Classes of the annotations that are tumour; by their names if empty.
        shifts: Go through the shift sheet.
    """

    weights: tuple[str, ...]
    data: Path
    config: Config
    mpp: float | None = None
    annotation_classes: tuple[str, ...] = ()
    shifts: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class TumourEvaluation:
    """Result of a test of a tumour network.

    Attributes:
        question: What was asked.
        card: Of the network; of several networks, of the first.
        n_networks: Networks under test.
        patches: On labelled pictures; of slides, on windows of them, None where all or none of these are tumour.
        slides: On whole slides; None for a patch set.
    """

    question: TumourQuestion
    card: Card
    n_networks: int
    patches: PatchTrial | None
    slides: SlideTrials | None

    @property
    def threshold(self) -> float:
        """Called tumour from this probability on."""
        return tumour_threshold(self.card, self.question.config.adaptive)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that a reader must know first, each once."""
        of_slides = self.slides.notices if self.slides else ()
        of_patches = self.patches.notices if self.patches else ()
        found = (self.card.notice, *of_slides, *of_patches)
        return tuple(dict.fromkeys(notice for notice in found if notice))


def is_patch_set(data: Path) -> bool:
    """True for a file or folder of patches, False for a manifest of slides."""
    return data.suffix.lower() in _PATCHES or data.is_dir()


def evaluate_tumour(question: TumourQuestion, progress: Progress = silent) -> TumourEvaluation:
    """Test a tumour network.

    Args:
        question: What to test, and on what.
        progress: Called with the stages of the work.

    Raises:
        He2Her2Error: Weights or data cannot be used, or no patient is left to judge.
    """
    config, data = question.config, question.data
    networks = open_networks(question.weights, config.runtime)
    threads = config.runtime.threads or usable_cores()
    slides, apart = None, None
    if is_patch_set(data):
        cases, apart = open_patch_set(data, question.mpp)
    elif question.mpp is not None:
        raise PatchError(f"{data}: --mpp is of a patch set; a manifest states the scale of slides in its column mpp")
    else:
        slides = evaluate_slides(
            data, networks, config, annotation_classes=question.annotation_classes, progress=progress
        )
        cases = slides.windows
    patches = None
    if slides is None or 0 < cases.tumour.sum() < len(cases):
        shifts = SHIFT_SHEET if question.shifts else ()
        patches = evaluate_patches(
            cases, networks, config.adaptive, shifts, to_learn=apart, threads=threads, progress=progress
        )
    return TumourEvaluation(question, networks[0].engine.card, len(networks), patches, slides)
