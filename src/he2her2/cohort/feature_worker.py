"""Features of slides: the worker of `he2her2 features`, and the files that it fills."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from he2her2.cohort.tasks import SlideTask
from he2her2.config import Config
from he2her2.errors import AnnotationError, ExchangeError, SlideOpenError, TilingError
from he2her2.exchange import StoredTiles, made_of_trident, read_tiles_file, write_trident
from he2her2.files import digest
from he2her2.geometry import TileGrid
from he2her2.method import cut_region, encode, require_readable, segment_slide
from he2her2.models import Encoder, Engine
from he2her2.preprocessing import TooFewTilesError
from he2her2.results import FileStamp, MadeOf
from he2her2.slides import Slide, open_slide
from he2her2.timing import Progress, Watch, silent
from he2her2.units import is_close_mpp

_SETTINGS = ("tissue", "quality", "adaptive", "tiling", "normalisation")  # that decide where tiles are cut

_SAME_SIZE = 0.01  # share by which programs may differ on the size of one slide

FeatureRegion: TypeAlias = Literal["tumour", "tissue", "annotated"]
"""Where tiles are cut: in the tumour that is found, in all usable tissue, or in annotated tumour."""


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A slide's file of features.

    Attributes:
        path: The file.
        n_tiles: Tiles in it.
        kept: True where it was there already.
    """

    path: Path
    n_tiles: int
    kept: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FeatureWorker:
    """Cuts slides into tiles and gives the features of these.

    Attributes:
        encoder: Gives the features.
        config: The settings; tiles overlap only where `tiling.min_tiles` asks for it.
        tumour_cnn: Finds the tumour; None where the region is another.
        region: Where tiles are cut.
        annotation_classes: Classes of annotations that are tumour; by their names if empty.
        coords: Files of coordinates of other programs, by slide, in place of cutting.
        progress: Called with the stages of each slide.
    """

    encoder: Encoder
    config: Config
    tumour_cnn: Engine | None
    region: FeatureRegion = "tumour"
    annotation_classes: tuple[str, ...] = ()
    coords: Mapping[str, Path] | None = None
    progress: Progress = silent

    @property
    def configuration(self) -> str:
        """SHA-256 of all that a slide's features depend on, but for the slide's own files."""
        precision = self.config.runtime.precision
        rounded = () if precision == "full" else (precision,)
        if self.coords is not None:
            return digest(self.encoder.identity, "coords", *rounded)
        settings = self.config.method()
        return digest(
            self.encoder.identity,
            {name: settings[name] for name in _SETTINGS if name in settings},
            None if self.tumour_cnn is None else self.tumour_cnn.card.summary,
            self.region,
            self.annotation_classes,
            *rounded,
        )

    def __call__(self, task: SlideTask) -> StoredTiles:
        """Tiles of one slide with their features.

        Raises:
            SlideError: The slide gives none.
            AnnotationError: Its annotation cannot be used.
        """
        watch = Watch(self.progress)
        with open_slide(task.path, mpp=task.mpp, backend=self.config.runtime.backend) as slide:
            if self.coords is None:
                grid, overlap_px = self._cut(slide, task, watch)
            else:
                grid, overlap_px = self._given(slide, task.slide_id, self.coords), 0
            readable, features = encode(
                slide,
                grid,
                self.encoder,
                self.config.runtime,
                lambda n_done: watch.progress("tiles", n_done, len(grid)),
                partial(watch.streamed, "tiles"),
            )
            require_readable(slide, len(readable), len(grid), n_needed=1)
            return StoredTiles(
                task.slide_id,
                grid.origins_l0[readable].astype(np.int64),
                side=grid.side_l0,
                side_px=grid.side_px,
                mpp_l0=slide.mpp,
                features=features,
                encoder=self.encoder.card.name,
                identity=self.encoder.identity,
                size_l0=slide.size_l0,
                overlap_px=overlap_px,
            )

    def _cut(self, slide: Slide, task: SlideTask, watch: Watch) -> tuple[TileGrid, int]:
        """Tiles that lie wholly in the region, and how far they overlap in px."""
        tile, tiling = self.encoder.card.input, self.config.tiling
        annotation = None if self.region == "tissue" else task.read_annotation(self.annotation_classes)
        if self.region == "annotated" and annotation is None:
            raise AnnotationError("it has no annotations to cut; pass --annotations, or --region tumour")
        segmentation = segment_slide(
            slide, tile, self.config, tumour_cnn=self.tumour_cnn, annotation=annotation, watch=watch
        )
        try:
            cut = cut_region(slide, segmentation, segmentation.tumour, tile, tiling, tiling.least_tiles(None))
        except TooFewTilesError as error:
            found = f"{error.found} tiles fit into its {self.region} at the densest overlap, {error.needed} are needed"
            remedy = "--region tissue" if self.region == "tumour" else "a slide with more of it"
            raise TilingError(slide.slide_id, found, f"use {remedy}") from None
        return cut.grid, tile.side_px - cut.stride_mask * tiling.mask_downsample

    def _given(self, slide: Slide, slide_id: str, coords: Mapping[str, Path]) -> TileGrid:
        """Tiles of the slide's file of coordinates, which must be of the encoder's scale."""
        if slide_id not in coords:
            raise ExchangeError(slide_id, "no file of coordinates has its name", "check --coords")
        tile = self.encoder.card.input
        given = read_tiles_file(coords[slide_id], slide.mpp)
        if given.size_l0 is not None and not np.allclose(given.size_l0, slide.size_l0, rtol=_SAME_SIZE):
            found = "its coordinates are of a slide of {} x {} px, and it has {} x {}"
            found = found.format(*given.size_l0, *slide.size_l0)
            raise ExchangeError(slide_id, found, "give the coordinates of this slide, cut at its own level 0")
        grid = given.grid(tile.side_px)
        if not is_close_mpp(grid.mpp, tile.mpp):
            wide, wanted = grid.side_px * grid.mpp, tile.side_px * tile.mpp
            found = f"its tiles are {wide:.4g} µm wide where the encoder {self.encoder.card.name} sees {wanted:.4g} µm"
            raise ExchangeError(slide_id, found, "cut coordinates for this encoder, or change its card")
        if not len(grid):
            raise ExchangeError(slide_id, "its file of coordinates is empty", "cut its tiles again")
        centres = grid.origins_l0 + grid.side_l0 / 2
        outside = int(((centres < 0) | (centres > np.array(slide.size_l0))).any(axis=1).sum())
        if outside:
            found = (
                f"{outside} of its {len(grid)} tiles lie outside the slide of {slide.size_l0.w} x {slide.size_l0.h} px"
            )
            raise ExchangeError(slide_id, found, "its coordinates are of another slide, or of another level")
        return grid


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Files of features in TRIDENT's layout, `<slide_id>.h5` in one folder.

    Attributes:
        folder: The folder.
        coords: Files of coordinates that slides are cut by; None where the program cuts them.
        overwrite: Replace the file of another slide of the same name.
    """

    folder: Path
    coords: Mapping[str, Path] | None = None
    overwrite: bool = False

    def read(self, slide_id: str, made_of: MadeOf) -> FeatureFile | None:
        """A slide's file; None where there is none, or it is made of something else.

        Raises:
            SlideOpenError: There is the file of another slide of the same name.
        """
        path, here = self._file(slide_id), made_of.inputs
        if not path.is_file():
            return None
        found, slide = made_of_trident(path)
        is_here = slide in ("", _written(here.path))
        there = here if is_here else replace(here, path=slide)
        is_same = found == self._digest(slide_id, replace(made_of, inputs=there))
        if is_same and (is_here or here.is_moved(there)):
            with suppress(ExchangeError):
                return FeatureFile(path, len(read_tiles_file(path)), kept=True)
        if is_here or self.overwrite:
            return None
        reason = f"the folder holds the features of another slide of this name, {slide}"
        raise SlideOpenError(slide_id, reason, "rename the slide, choose another --out, or --overwrite")

    def write(self, slide_id: str, made_of: MadeOf, product: StoredTiles) -> FeatureFile:
        """Write a slide's file."""
        file, digest_of_it = self._file(slide_id), self._digest(slide_id, made_of)
        return FeatureFile(write_trident(file, product, digest_of_it, _written(made_of.inputs.path)), len(product))

    def discard(self, slide_id: str) -> None:
        """Remove a slide's file."""
        self._file(slide_id).unlink(missing_ok=True)

    def _digest(self, slide_id: str, made_of: MadeOf) -> str:
        """SHA-256 of all that a slide's file depends on."""
        if self.coords is None:
            return digest(made_of)
        file = self.coords.get(slide_id)
        return digest(made_of, None if file is None else FileStamp.of(file))

    def _file(self, slide_id: str) -> Path:
        return self.folder / f"{slide_id}.h5"


def _written(path: str) -> str:
    """A path as HDF5 takes it: a file's name need not be Unicode."""
    return path.encode("utf-8", "backslashreplace").decode()
