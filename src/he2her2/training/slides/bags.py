"""Tiles of labelled slides for slide training: found once, checked before training, kept on disk.

Positions are kept, and what the slide looks like; pixels are read from the slide each time they are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import h5py
import numpy as np

from he2her2.cohort import Ledger, SlideEngine, SlideTask, require_all
from he2her2.config import Config
from he2her2.errors import AnnotationError
from he2her2.files import atomic, digest
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import SlideRow, label_of
from he2her2.method import Appearance, cut_tumour, pace, require_readable, segment_slide, tissue_appearance
from he2her2.models import Encoder, Engine, InputSpec
from he2her2.results import MadeOf
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import Progress, silent

AnnotationsUse: TypeAlias = Literal["intersect", "replace", "ignore"]
"""Annotated regions limit the tumour that the network finds, replace it, or are not used."""

_BY_NAME = "by name"  # the classes of annotations that are tumour
_MADE_OF = "made_of"


@dataclass(frozen=True, slots=True, eq=False)
class TumourTiles:
    """Tiles of a slide's tumour.

    Attributes:
        grid: (n) the tiles, all of them readable, in raster order.
        appearance: Of the slide's tissue, for the domain of the weights.
    """

    grid: TileGrid
    appearance: Appearance


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSlide:
    """A slide of training or validation.

    Attributes:
        row: Its line of the manifest.
        status: Its label.
        tiles: Of its tumour.
    """

    row: SlideRow
    status: Her2Status
    tiles: TumourTiles

    @property
    def grid(self) -> TileGrid:
        """Its tiles (n), all of them readable, in raster order."""
        return self.tiles.grid

    @property
    def target(self) -> int:
        """Class for the aggregator: 0 negative, 1 positive."""
        return int(self.status == Her2Status.POSITIVE)

    def open(self, config: Config) -> Slide:
        """Open the slide."""
        return open_slide(self.row.path, mpp=self.row.mpp, backend=config.runtime.backend)


@dataclass(frozen=True, slots=True, eq=False)
class TumourTiler:
    """Worker that cuts the tumour of a slide into tiles, as prediction does.

    Attributes:
        tile: Input of the tile CNN.
        config: The settings.
        tumour_cnn: Finds the tumour; none is needed where annotations replace it.
        annotations_use: Use of the manifest's annotations.
        annotation_classes: Their classes that are tumour; by their names if empty.
        texture_encoder: The tumour CNN up to its last layer; without one the slides' texture is not kept.
    """

    tile: InputSpec
    config: Config
    tumour_cnn: Engine | None
    annotations_use: AnnotationsUse
    annotation_classes: tuple[str, ...] = ()
    texture_encoder: Encoder | None = None

    @property
    def configuration(self) -> str:
        """SHA-256 of all that a slide's tiles depend on, but for the slide's own files."""
        settings = self.config.method()
        return digest(
            {name: settings[name] for name in ("tissue", "quality", "adaptive", "tiling")},
            self.config.min_tiles,
            self.tile,
            None if self.tumour_cnn is None else self.tumour_cnn.card.summary,
            self.annotations_use,
            None if self.annotations_use == "ignore" else self.annotation_classes or _BY_NAME,
            None if self.texture_encoder is None else self.texture_encoder.identity,
        )

    def tasks(self, rows: Sequence[SlideRow]) -> list[SlideTask]:
        """Tasks of a manifest's rows."""
        ignored = self.annotations_use == "ignore"
        return [SlideTask(row.slide_id, row.path, row.mpp, None if ignored else row.annotations) for row in rows]

    def ledger(self, folder: Path) -> Ledger[TumourTiles, TumourTiles]:
        """Ledger of tiles that are kept in `folder`."""
        return Ledger(_GridStore(folder), self.configuration)

    def __call__(self, task: SlideTask) -> TumourTiles:
        """Tiles of a slide's tumour that can be decoded.

        Raises:
            SlideError: The slide gives none; the error names stage, reason and remedy.
            AnnotationError: Its annotation cannot be used, or is missing where annotations replace the tumour CNN.
        """
        config, tile = self.config, self.tile
        replaced = self.annotations_use == "replace"
        if replaced and task.annotations is None:
            raise AnnotationError("it has no annotations to replace the tumour CNN")
        annotation = task.read_annotation(self.annotation_classes)
        tumour_cnn = None if replaced else self.tumour_cnn
        with open_slide(task.path, mpp=task.mpp, backend=config.runtime.backend) as slide:
            segmentation = segment_slide(slide, tile, config, tumour_cnn=tumour_cnn, annotation=annotation)
            grid = cut_tumour(slide, segmentation, tile, config.tiling, config.selection).grid
            parts = list(map_tiles(slide, grid, lambda batch: batch.index, **pace(config.runtime)))
            readable = np.concatenate(parts) if parts else np.empty(0, np.int64)
            require_readable(slide, len(readable), len(grid), config.selection.n_tiles)
            appearance = tissue_appearance(
                slide,
                segmentation.thumbnail,
                segmentation.usable,
                segmentation.px_l0,
                self.texture_encoder,
                config.tiling,
                config.runtime,
            )
        return TumourTiles(grid.take(readable), appearance)


def build_bags(
    rows: Sequence[SlideRow],
    tiler: TumourTiler,
    folder: Path,
    *,
    policy: Policy = Policy.GUIDELINE,
    progress: Progress = silent,
) -> list[LabelledSlide]:
    """Find the tiles of every slide; those that are in `folder` already, made of the same, are read from there.

    Args:
        rows: Labelled slides.
        tiler: Finds the tiles.
        folder: Keeps a file `<slide_id>.h5` of each slide.
        policy: Derives a status that the manifest does not state.
        progress: Called after every slide.

    Raises:
        ManifestError: All slides without tiles, each with its reason.
        OutputError: The folder cannot be written.
    """
    outcomes = SlideEngine(progress).run(tiler.tasks(rows), tiler, tiler.ledger(folder), stage="finding tumour tiles")
    found = require_all(rows, outcomes, "slides give no bag of tiles")
    return [LabelledSlide(row, _status_of(row, policy), tiles) for row, tiles in zip(rows, found, strict=True)]


def _status_of(row: SlideRow, policy: Policy) -> Her2Status:
    status = label_of(row, "her2_status", policy)
    assert isinstance(status, Her2Status), f"{row.slide_id}: labels are checked before"
    return status


@dataclass(frozen=True, slots=True)
class _GridStore:
    """Tiles on disk: `<slide_id>.h5` holds `coords` (n, 2) int64 level-0 px with the attributes of `tiles.h5`.

    What the slide looks like is in `colour` (2, 3), mean and spread of each channel, and `texture` (d,).

    Attributes:
        folder: Of the files.
    """

    folder: Path

    def read(self, slide_id: str, made_of: MadeOf) -> TumourTiles | None:
        """Tiles of a slide; None where there are none, or the file is damaged or made of something else."""
        try:
            with h5py.File(self._file(slide_id)) as found:
                coords = found["coords"]
                attrs = coords.attrs
                if attrs[_MADE_OF] != digest(made_of):
                    return None
                grid = TileGrid(coords[:], float(attrs["side_level0"]), int(attrs["patch_size"]), float(attrs["mpp"]))
                mean, spread = (tuple(channels) for channels in found["colour"][:].tolist())
                return TumourTiles(grid, Appearance(mean, spread, tuple(found["texture"][:].tolist())))
        except (OSError, KeyError):
            return None

    def write(self, slide_id: str, made_of: MadeOf, product: TumourTiles) -> TumourTiles:
        """Write the tiles of a slide."""
        grid, appearance = product.grid, product.appearance
        with atomic(self._file(slide_id)) as draft, h5py.File(draft, "w") as out:
            coords = out.create_dataset("coords", data=grid.origins_l0.astype(np.int64))
            coords.attrs.update(
                {
                    "name": slide_id,
                    "patch_size": grid.side_px,
                    "patch_size_level0": round(grid.side_l0),
                    "side_level0": grid.side_l0,
                    "mpp": grid.mpp,
                    _MADE_OF: digest(made_of),
                }
            )
            out.create_dataset("colour", data=np.array((appearance.mean, appearance.spread), np.float64))
            out.create_dataset("texture", data=np.array(appearance.texture, np.float64))
        return product

    def discard(self, slide_id: str) -> None:
        """Remove the tiles of a slide."""
        self._file(slide_id).unlink(missing_ok=True)

    def _file(self, slide_id: str) -> Path:
        return self.folder / f"{slide_id}.h5"
