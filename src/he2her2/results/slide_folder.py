"""Folders of slides in a run, `slides/<slide_id>/`: each appears whole, its result with it, or not at all."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from he2her2.errors import OutputError, SlideOpenError
from he2her2.files import atomic, read_json, write_json
from he2her2.geometry import Size
from he2her2.method import MASKS, Findings, Segmentation
from he2her2.results.evidence import Evidence
from he2her2.results.geojson import write_geojson
from he2her2.results.heatmap import write_heatmap
from he2her2.results.made_of import FileStamp, MadeOf
from he2her2.results.notes import ProvenanceNote
from he2her2.results.overlay import Caption, draw_overlay, write_sheet
from he2her2.results.rasters import (
    SAMPLES_FILE,
    RasterFrame,
    SlideRasters,
    read_rasters,
    write_map,
    write_mask,
    write_samples,
)
from he2her2.results.slide_result import RESEARCH_USE_NOTICE, SlideResult, result_of_record, result_to_record
from he2her2.results.tables import Failure
from he2her2.results.tiles_h5 import TILES_FILE, ScoredTiles, read_tiles, write_tiles

PREDICTION = "prediction.json"
SEGMENTATION = "segmentation.json"
_OVERLAY = "overlay.png"


@dataclass(frozen=True, slots=True)
class SlideFolders:
    """The evidence of a run's slides, as a store of `cohort.Ledger`.

    Attributes:
        run: The run's folder.
        result_file: Name of the result: of predictions, or of segmentations.
        overwrite: Replace the result of another slide of the same name.
    """

    run: Path
    result_file: str = PREDICTION
    overwrite: bool = False

    def of(self, slide_id: str) -> Path:
        """The folder of a slide; in place of a run there may be a table of another tool's scores, which has none.

        Raises:
            ValueError: Its name leads elsewhere.
        """
        if self.run.is_file():
            return self.run / "slides"
        if slide_id in ("", ".", "..") or Path(slide_id).name != slide_id:
            raise ValueError(f"{slide_id!r} cannot name the folder of a slide")
        return self.run / "slides" / slide_id

    def read(self, slide_id: str, made_of: MadeOf) -> SlideResult | None:
        """The result of a slide; None where there is none, it is damaged, lacks a file or was made of something else.

        Raises:
            SlideOpenError: There is the result of another slide of the same name.
        """
        result = self.sound(slide_id)
        if result is None or not self._has_all_files(result):
            return None
        if result.made_of == made_of:
            return result
        there, here = result.inputs, made_of.inputs
        if here.is_moved(there):
            moved = replace(made_of, inputs=replace(here, path=there.path))
            return result if result.made_of == moved else None
        if there.path not in ("", here.path) and not self.overwrite:
            found = f"the run holds the result of another slide of this name, {there.path}"
            raise SlideOpenError(slide_id, found, "rename the slide, choose another --out, or --overwrite")
        return None

    def _has_all_files(self, result: SlideResult) -> bool:
        return all((self.of(result.slide_id) / name).is_file() for name in result.files) and not self.changed(result)

    def changed(self, result: SlideResult) -> tuple[str, ...]:
        """Names of files of a result's evidence that are of another size than when they were written."""
        stamps = {name: FileStamp.of(self.of(result.slide_id) / name) for name in result.files}
        return tuple(name for name, stamp in stamps.items() if stamp and stamp.bytes != result.files[name])

    def load(self, slide_id: str) -> SlideResult:
        """The result of a slide, whatever it was made of.

        Raises:
            OSError: Its file is missing or cannot be read.
            ValueError: It holds no result that this version reads; the message says why in one line.
        """
        return result_of_record(read_json(self.of(slide_id) / self.result_file))

    def sound(self, slide_id: str) -> SlideResult | None:
        """The result of a slide, whatever it was made of; None where there is none that can be read."""
        try:
            return self.load(slide_id)
        except (OSError, ValueError):
            return None

    def tiles(self, slide_id: str) -> ScoredTiles | None:
        """The scored tiles of a slide; None where there are none.

        Raises:
            ValueError: Their file is damaged.
        """
        file = self.of(slide_id) / TILES_FILE
        return read_tiles(file) if file.is_file() else None

    def rasters(self, slide_id: str) -> SlideRasters:
        """The masks and maps of a slide.

        Raises:
            ValueError: A file is damaged.
        """
        return read_rasters(self.of(slide_id))

    def write(self, slide_id: str, made_of: MadeOf, product: Evidence) -> SlideResult:
        """Write a slide's evidence, in place of earlier evidence of it.

        Raises:
            OutputError: The folder cannot be written, nothing of it is left; or it is none of ours.
        """
        self._require_free(slide_id)
        made_by = ProvenanceNote.here()
        result = replace(product.result, run_digest=made_of.configuration, inputs=made_of.inputs, provenance=made_by)
        with atomic(self.of(slide_id)) as draft:
            draft.mkdir()
            segmentation = product.segmentation
            _write_segmentation(draft, segmentation, result.frame, MASKS)
            if product.tiles is not None:
                size = Size(*segmentation.tumour.shape[::-1])
                write_heatmap(draft / "heatmap.ome.tif", product.tiles, size, result.frame)
                write_tiles(
                    draft / TILES_FILE,
                    product.tiles,
                    slide_id=slide_id,
                    size_l0=product.size_l0,
                    mpp_l0=result.slide.mpp,
                    overlap_px=product.overlap_px,
                )
            write_geojson(draft / "tiles.geojson", segmentation.tumour, result.frame, product.tiles)
            sheet = draw_overlay(segmentation, product.tiles, caption_of(result), product.photo)
            write_sheet(draft / _OVERLAY, sheet)
            result = replace(result, files={file.name: file.stat().st_size for file in sorted(draft.iterdir())})
            write_json(draft / self.result_file, result_to_record(result))
        return result

    def discard(self, slide_id: str) -> None:
        """Remove what an earlier command left of a slide."""
        if self._is_free(slide_id):
            shutil.rmtree(self.of(slide_id), ignore_errors=True)

    def _is_free(self, slide_id: str) -> bool:
        """False where a slide's folder holds something else than results, such as the pixels of an MRXS."""
        folder = self.of(slide_id)
        ours = any((folder / name).exists() for name in (_OVERLAY, PREDICTION, SEGMENTATION))
        return ours or not folder.is_dir() or not any(folder.iterdir())

    def _require_free(self, slide_id: str) -> None:
        """Raise `OutputError` where results would replace something else."""
        if not self._is_free(slide_id):
            found = f"{self.of(slide_id)}: holds something that is no result and is not replaced"
            raise OutputError(f"{found}; choose another --out")

    def sweep(self, slide_id: str) -> None:
        """Remove drafts of a slide whose worker is known to be dead, on whatever machine it was."""
        for draft in self.run.glob(f"slides/.draft-*.{escape(slide_id)}"):
            shutil.rmtree(draft, ignore_errors=True)

    def unfinished(self, slide_id: str) -> str:
        """Place in the run of what was found on a slide without a result; empty where there is none."""
        folder = self.of(slide_id)
        is_there = folder.is_dir() and not (folder / self.result_file).exists()
        return folder.relative_to(self.run).as_posix() if is_there else ""

    def write_unfinished(self, failure: Failure, findings: object) -> str:
        """Write what was found on a slide until it failed, in place of earlier evidence of it.

        Args:
            failure: Of the slide.
            findings: `method.Findings`.

        Returns:
            The folder's place in the run; empty where there is nothing to show.

        Raises:
            OutputError: The folder cannot be written, nothing of it is left; or it is none of ours.
        """
        if not isinstance(findings, Findings) or (segmentation := findings.so_far()) is None:
            return ""
        self._require_free(failure.slide_id)
        folder = self.of(failure.slide_id)
        frame = RasterFrame(segmentation.px_l0, segmentation.px_mpp, findings.bounds_l0)
        with atomic(folder) as draft:
            draft.mkdir()
            _write_segmentation(draft, segmentation, frame, findings.masks)
            words = (f"FAILED at {failure.stage}: {failure.reason}", failure.remedy)
            caption = Caption(failure.slide_id, words, (RESEARCH_USE_NOTICE,))
            write_sheet(draft / _OVERLAY, draw_overlay(segmentation, None, caption))
        return folder.relative_to(self.run).as_posix()


def _write_segmentation(folder: Path, segmentation: Segmentation, frame: RasterFrame, masks: Sequence[str]) -> None:
    for name in masks:
        write_mask(folder / f"{name}.png", getattr(segmentation, name), frame, name)
    if (sampling := segmentation.sampling) is not None:
        write_map(folder / "tumour_map.png", sampling.map, frame, "probability of invasive tumour")
        write_samples(folder / SAMPLES_FILE, sampling, frame)


def caption_of(result: SlideResult) -> Caption:
    """The words on the overlay of a result; that a slide is unlike the training slides stands above its call."""
    lines = [
        f"tissue {result.area_mm2.tissue:.2f} mm², tumour {result.area_mm2.tumour:.2f} mm²",
        f"pen {result.quality.pen_share:.1%}, blur {result.quality.blur_share:.1%}",
    ]
    if result.her2 is not None:
        lines.insert(0, result.her2.headline)
        lines.append(f"{result.counts.scored} tiles scored, {result.counts.selected} selected")
    if result.likeness is not None and result.likeness.unlike:
        lines.insert(0, result.likeness.warning.replace("unlike", "UNLIKE", 1))
    return Caption(result.slide_id, tuple(lines), (*result.notices, result.use))
