"""One slide after the other: a failing slide becomes a row, never the end."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from he2her2.config import Config
from he2her2.errors import OutputError, SlideError
from he2her2.method.regions import annotation_file, regions_for
from he2her2.models.slide_model import SlideModel
from he2her2.pipeline import RegionUse, predict, segment
from he2her2.results import write_evidence, write_segmentation
from he2her2.results.run import Failure, Run
from he2her2.results.slide_result import Record, prediction_record, segmentation_record
from he2her2.slides import open_slide, slide_id_of
from he2her2.timing import Progress, Watch, silent


@dataclass(frozen=True, slots=True)
class SlideOptions:
    """What the user says of the slides beyond the settings.

    Attributes:
        mpp: µm per level-0 pixel, over what the files say.
        annotations: A file for one slide, or a folder with a file per slide.
        region_use: What the annotated regions are for.
    """

    mpp: float | None = None
    annotations: Path | None = None
    region_use: RegionUse = "intersect"

    def digest_parts(self) -> dict[str, object]:
        """What of it can change a result."""
        return {"mpp": self.mpp, "annotations": None if self.annotations is None else self.region_use}


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to each slide of a run, and with what."""

    run: Run
    model: SlideModel
    config: Config
    options: SlideOptions = SlideOptions()
    progress: Progress = silent

    def predict(self, path: Path) -> Record:
        """Predict one slide and write its evidence, unless this run has done so already.

        Raises:
            SlideError: The slide cannot be predicted.
            OutputError: Its folder cannot be written.
        """
        inputs = _inputs(path, self.options.annotations)
        done = self.run.finished(slide_id_of(path), inputs)
        if done is not None:
            return done
        watch = Watch()
        with open_slide(path, mpp=self.options.mpp, backend=self.config.runtime.backend) as slide:
            self.run.discard(slide.slide_id)
            regions = regions_for(slide, self.options.annotations)
            prediction = predict(
                slide,
                self.model,
                self.config,
                regions=regions,
                region_use=self.options.region_use,
                progress=self.progress,
                watch=watch,
            )
            record = prediction_record(slide, prediction, self.model, self.config)
            record |= {"run_digest": self.run.digest, "inputs": inputs, "seconds": round(watch.seconds, 2)}
            record |= {"timing": watch.as_record()}
            write_evidence(self.run.slide_folder(slide.slide_id), slide, prediction, record)
        return record

    def segment(self, path: Path) -> Record:
        """Write one slide's masks and maps.

        Raises:
            SlideError: The slide cannot be segmented.
            OutputError: Its folder cannot be written.
        """
        with open_slide(path, mpp=self.options.mpp, backend=self.config.runtime.backend) as slide:
            self.run.discard(slide.slide_id)
            regions = regions_for(slide, self.options.annotations)
            segmentation = segment(
                slide,
                self.model,
                self.config,
                regions=regions,
                region_use=self.options.region_use,
                progress=self.progress,
            )
            record = segmentation_record(slide, segmentation, self.config) | {"notices": list(self.model.notices)}
            write_segmentation(self.run.slide_folder(slide.slide_id), slide, segmentation, record)
        return record


def _inputs(path: Path, annotations: Path | None) -> dict[str, object]:
    """What tells that a slide or its annotation is no longer the file it was; less a file that is not there."""
    regions = annotation_file(slide_id_of(path), annotations)
    files = {"slide": path, "annotations": regions}
    stats = {name: file.stat() for name, file in files.items() if file is not None and file.is_file()}
    found: dict[str, object] = {
        name: {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for name, stat in stats.items()
    }
    return found | {"path": str(path.absolute())}


def each_slide(
    paths: Sequence[Path],
    process: Callable[[Path], Record],
    run: Run,
    on_slide: Callable[[Path, Record | Failure], None],
) -> None:
    """Process slides in sequence; the run's tables hold whatever was done, also when it is interrupted.

    Raises:
        OutputError: The run folder cannot be written any more.
    """
    run.write_description()
    try:
        for path in paths:
            result = _attempt(path, process, run.folder / "errors.log")
            if isinstance(result, Failure):
                run.failures.append(result)
            else:
                run.records.append(result)
            on_slide(path, result)
    finally:
        run.write_tables()


def _attempt(path: Path, process: Callable[[Path], Record], log: Path) -> Record | Failure:
    """Process one slide; whatever stops it but the run folder itself becomes a failure."""
    try:
        return process(path)
    except SlideError as error:
        return Failure.of(path, error)
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001  # a bug that one slide brings out must not cost the others
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{path}\n{traceback.format_exc()}\n")
        reason = f"{type(error).__name__}: {error}"
        return Failure(slide_id_of(path), str(path), "internal", reason, f"this is our bug; please report {log}")
