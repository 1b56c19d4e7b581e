"""Slides that a viewer shows: of a run, of a manifest or of a folder, each with what its run says of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Literal, TypeAlias

from he2her2.cohort import find_slides, is_pattern, is_table
from he2her2.errors import EvaluationError, He2Her2Error
from he2her2.files import url_of
from he2her2.manifest import SlideRow, named_as, names_of_patients, raise_problems, read_manifest
from he2her2.results import (
    FAILURES_FILE,
    PREDICTIONS_FILE,
    Failure,
    FileStamp,
    PredictedSlide,
    RunFolder,
    SlideResult,
    open_run,
    refuse_other_folder,
)
from he2her2.slides import slide_id_of, slides_in

State: TypeAlias = Literal["predicted", "segmented", "failed", "slide"]


@dataclass(frozen=True, slots=True)
class ViewedSlide:
    """A slide of the list.

    Attributes:
        slide_id: Its name.
        path: Its file, which need not be there any more.
        state: What its run made of it; "slide" without a run.
        mpp: µm per level-0 px, over what the file says: of a run those that it took.
        prediction: Its row of the predictions.
        failure: Why it has none.
        patient_id: Of the manifest, or of the run's own; "" without one.
        stain: Of the manifest; "" where it says nothing.
        partners: Names of the same patient's slides in the other stain.
        annotations: File of its annotated regions, of the manifest; None without one.
    """

    slide_id: str
    path: Path
    state: State
    mpp: float | None = None
    prediction: PredictedSlide | None = None
    failure: Failure | None = None
    patient_id: str = ""
    stain: str = ""
    partners: tuple[str, ...] = ()
    annotations: Path | None = None

    @property
    def margin(self) -> float:
        """Distance of the probability from the threshold, as a share of what it could be; NaN without one.

        Example:
            >>> from he2her2.labels import Her2Status
            >>> row = PredictedSlide("S1", Her2Status.NEGATIVE, 0.1, 0.2)
            >>> ViewedSlide("S1", Path("S1.svs"), "predicted", prediction=row).margin
            0.5
        """
        row = self.prediction
        if row is None:
            return math.nan
        if row.probability >= row.threshold:
            return (row.probability - row.threshold) / max(1 - row.threshold, 1e-9)
        return (row.threshold - row.probability) / max(row.threshold, 1e-9)

    @property
    def judged(self) -> tuple[str, float | None]:
        """The call and the probability that a reviewer judges; ("", None) without a result."""
        row = self.prediction
        if row is None:
            return "", None
        return row.call, row.probability


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Slides that a viewer may show; nothing else can be reached through it.

    Attributes:
        name: Of the run, or of what was given.
        slides: By name, in order.
        run: The run; None without one.
        notes: Lines for the user.
    """

    name: str
    slides: Mapping[str, ViewedSlide]
    run: RunFolder | None = None
    notes: tuple[str, ...] = field(default=())

    def result(self, slide_id: str) -> SlideResult | None:
        """A slide's result; None where there is none.

        Raises:
            EvaluationError: It is damaged.
        """
        return None if self.run is None else self.run.result(slide_id)

    def folder(self, slide_id: str) -> Path | None:
        """The folder of a slide's evidence; None where there is none."""
        return None if self.run is None else self.run.evidence(slide_id)

    @property
    def state(self) -> tuple[FileStamp | None, ...]:
        """Changes when the run's tables do, as while it goes on."""
        if self.run is None:
            return ()
        return tuple(FileStamp.of(self.run.path / name) for name in (PREDICTIONS_FILE, FAILURES_FILE))


def read_catalogue(what: Sequence[Path], *, manifest: Path | None = None, moved_to: Path | None = None) -> Catalogue:
    """Find what to show.

    Args:
        what: A run's folder; or slides, folders of slides, glob patterns and manifests, as `predict` takes them.
        manifest: Table of the run's slides, which pairs those of a patient and may name more, such as IHC.
        moved_to: Folder in which slides are looked up by name that are not where they were when the run was made.

    Raises:
        He2Her2Error: There is nothing to show, or it cannot be read.
    """
    tables = [] if manifest is None else [manifest]
    if len(what) == 1 and (what[0] / "run.json").is_file():
        found = _of_run(what[0])
    else:
        found = _of_files_or_refused(what)
        tables = tables or [item for item in what if is_table(item)]
    slides, rows = dict(found.slides), list[SlideRow]()
    for file in tables:
        table = read_manifest(file)
        raise_problems(table, table.problems)
        named = table if found.run is None else named_as(table, slides)
        found = replace(found, notes=(*found.notes, *named.notes[len(table.notes) :]))
        rows += named.rows
    slides = _with_manifest(slides, rows)
    if moved_to is not None:
        slides = _looked_up(slides, moved_to)
    if not slides:
        raise He2Her2Error(f"{found.name}: holds no slide to show")
    return replace(found, slides=slides)


def _of_run(folder: Path) -> Catalogue:
    run = open_run(folder, needs_predictions=False)
    slides: dict[str, ViewedSlide] = {}
    for name, row in run.predictions.items():
        mpp = None if math.isnan(row.mpp) else row.mpp
        slides[name] = ViewedSlide(name, _file_of(run, name, Path(row.path)), "predicted", mpp, prediction=row)
    for name in run.segmented:
        slides.setdefault(name, _segmented(run, name))
    for name, failure in run.failures.items():
        slides.setdefault(name, ViewedSlide(name, Path(failure.path), "failed", failure=failure))
    of_patients = {name: replace(slides[name], patient_id=run.patient_id(name)) for name in sorted(slides)}
    return Catalogue(run.name, of_patients, run)


def _file_of(run: RunFolder, slide_id: str, stated: Path) -> Path:
    """A slide's file: by a path of the tables that holds from any working folder, or else by that of its result."""
    if stated.is_absolute() and stated.is_file():
        return stated
    try:
        result = run.result(slide_id)
    except EvaluationError:  # said where the slide is shown
        return stated
    found = stated if result is None else run.slide_file(result)
    return found if found.is_file() or not stated.is_file() else stated


def _segmented(run: RunFolder, slide_id: str) -> ViewedSlide:
    try:
        result = run.result(slide_id)
    except EvaluationError:  # said where the slide is shown
        result = None
    if result is None:
        return ViewedSlide(slide_id, Path(), "segmented")
    return ViewedSlide(slide_id, run.slide_file(result), "segmented", result.inputs.mpp)


def _of_files_or_refused(what: Sequence[Path]) -> Catalogue:
    try:
        return _of_files(what)
    except He2Her2Error:
        if len(what) == 1 and what[0].is_dir():
            refuse_other_folder(what[0])
        raise


def _of_files(what: Sequence[Path]) -> Catalogue:
    for item in what:
        if not (url_of(item) or item.exists() or is_pattern(item)):
            raise He2Her2Error(f"{item}: no such file or folder; give a run's folder, slides or a manifest")
    sources = find_slides(what, stain=None)
    slides = {
        name: ViewedSlide(name, task.path, "slide", task.mpp)
        for task in sources.tasks
        for name in [_unicode(task.slide_id)]
    }
    name = _unicode(what[0].resolve().name) if len(what) == 1 else f"{len(slides)} slides"
    return Catalogue(name, slides, notes=sources.notes)


def _unicode(name: str) -> str:
    """A name as the page can have it: bytes of a file's name that are no Unicode as escapes, as in our tables."""
    return name.encode("utf-8", "backslashreplace").decode()


def _with_manifest(slides: Mapping[str, ViewedSlide], rows: Sequence[SlideRow]) -> dict[str, ViewedSlide]:
    """The slides with patients, stains and partners; slides of other stains join those that are there."""
    found = dict(slides)
    written = names_of_patients(rows)
    shown_patients = {row.patient for row in rows if row.slide_id in slides}
    for row in rows:
        if row.slide_id in found:
            known = found[row.slide_id]
            mpp = known.mpp if row.mpp is None else row.mpp
            path = known.path if known.path.name else row.path
        elif row.patient in shown_patients:
            known, mpp, path = ViewedSlide(row.slide_id, row.path, "slide"), row.mpp, row.path
        else:
            continue
        found[row.slide_id] = replace(
            known,
            path=path,
            mpp=mpp,
            patient_id=written[row.patient],
            stain=row.stain or "",
            annotations=row.annotations,
        )
    by_patient: dict[str, list[ViewedSlide]] = {}
    for slide in found.values():
        if slide.patient_id and slide.stain:
            by_patient.setdefault(slide.patient_id, []).append(slide)
    for slide in list(found.values()):
        others = [one for one in by_patient.get(slide.patient_id, ()) if slide.stain and one.stain != slide.stain]
        found[slide.slide_id] = replace(slide, partners=tuple(one.slide_id for one in others))
    return found


def _looked_up(slides: Mapping[str, ViewedSlide], folder: Path) -> dict[str, ViewedSlide]:
    """The slides, where their file is missing with that of the same name in a folder, or of the slide's own name.

    Of several files of one name, as `site/1.svs` of several sites, the one whose folders are named alike counts.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder; check --slides")
    there = slides_in(folder)
    by_slide, by_file = {slide_id_of(path): path for path in there}, dict[str, list[Path]]()
    for path in there:
        by_file.setdefault(path.name, []).append(path)

    def found(slide: ViewedSlide) -> Path:
        otherwise = by_slide.get(slide.slide_id, slide.path)
        return max(by_file.get(slide.path.name, ()), key=partial(_n_alike, slide.path), default=otherwise)

    return {
        name: slide if slide.path.is_file() else replace(slide, path=found(slide)) for name, slide in slides.items()
    }


def _n_alike(one: Path, other: Path) -> int:
    """Number of names at the end of two paths that are the same."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
