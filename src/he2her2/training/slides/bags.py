"""The bags of slide training: each labelled slide's tiles, found once, checked before training, kept on disk.

What is kept is coordinates; pixels are read from the slide each time they are needed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import h5py
import numpy as np

from he2her2.config import Config
from he2her2.errors import AnnotationError, ManifestError, SlideError
from he2her2.files import atomic, digest
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import SlideRow, label_of
from he2her2.method.inference import pace
from he2her2.method.segmentation import segment_slide
from he2her2.method.tiles import cut_tumour, require_readable
from he2her2.models.engines import Engine
from he2her2.models.zoo import InputSpec
from he2her2.preprocessing import read_annotation
from he2her2.slides import Slide, map_tiles, open_slide

AnnotationsUse: TypeAlias = Literal["intersect", "replace", "ignore"]
"""Annotated regions limit the tumour that the network finds, stand in its place, or are not looked at."""

_MADE_OF = "made_of"


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """One labelled slide as training sees it.

    Attributes:
        row: Its line of the manifest.
        status: What it is trained towards.
        grid: (n) its tiles, all of them readable, in raster order.
    """

    row: SlideRow
    status: Her2Status
    grid: TileGrid

    @property
    def target(self) -> int:
        """Its class as the aggregator counts: 0 negative, 1 positive."""
        return int(self.status == Her2Status.POSITIVE)

    def open(self, config: Config) -> Slide:
        """Open its slide."""
        return open_slide(self.row.path, mpp=self.row.mpp, backend=config.runtime.backend)


@dataclass(frozen=True, slots=True, eq=False)
class BagRecipe:
    """How bags are made.

    Attributes:
        tile: The tiles that are cut.
        config: The settings.
        tumour_cnn: Finds the tumour; none is needed where annotations replace it.
        annotations_use: What the manifest's annotations are for.
    """

    tile: InputSpec
    config: Config
    tumour_cnn: Engine | None
    annotations_use: AnnotationsUse

    def made_of(self, row: SlideRow) -> str:
        """SHA-256 of all that a slide's bag depends on."""
        settings = asdict(self.config)
        parts: dict[str, Any] = {name: settings[name] for name in ("tissue", "quality", "adaptive", "tiling")}
        annotations = None if self.annotations_use == "ignore" else row.annotations
        return digest(
            parts,
            self.config.min_tiles,
            asdict(self.tile),
            None if self.tumour_cnn is None else self.tumour_cnn.card.summary,
            self.annotations_use,
            row.mpp,
            _stamp(row.path),
            None if annotations is None else _stamp(annotations),
        )


def build_bags(
    rows: Sequence[SlideRow],
    recipe: BagRecipe,
    folder: Path,
    *,
    policy: Policy = Policy.GUIDELINE,
    on_bag: Callable[[int], None] = lambda _: None,
) -> list[Bag]:
    """Find the tiles of every slide; a slide whose bag lies in `folder` already, made of the same, is not looked at.

    Args:
        rows: Labelled slides.
        recipe: How.
        folder: Keeps a file `<slide_id>.h5` of each bag.
        policy: Decides a status that the manifest does not state.
        on_bag: Told how many are done.

    Raises:
        ManifestError: Slides of which there is no bag, all of them, each with its reason.
        OutputError: The folder cannot be written.
    """
    bags, problems = [], []
    for row in rows:
        status = label_of(row, "her2_status", policy)
        assert isinstance(status, Her2Status), f"{row.slide_id}: labels are checked before"
        try:
            bags.append(Bag(row, status, find_tiles(row, recipe, folder / f"{row.slide_id}.h5")))
        except (SlideError, AnnotationError) as error:
            problems.append(f"line {row.line}: {error}")
        on_bag(len(bags) + len(problems))
    if problems:
        raise ManifestError([f"{len(problems)} of {len(rows)} slides give no bag of tiles", *problems])
    return bags


def find_tiles(row: SlideRow, recipe: BagRecipe, file: Path) -> TileGrid:
    """The tiles of a slide's tumour, from `file` where that holds them, else found and written there.

    Raises:
        SlideError: The slide gives none; the error says at which stage, why, and what to do.
        AnnotationError: Its annotation cannot be used, or is missing where annotations replace the tumour CNN.
        OutputError: The file cannot be written.
    """
    made_of = recipe.made_of(row)
    kept = read_grid(file, made_of)
    if kept is not None:
        return kept
    if recipe.annotations_use == "replace" and row.annotations is None:
        raise AnnotationError(f"{row.slide_id}: has no annotations to replace the tumour CNN; give them, or intersect")
    with open_slide(row.path, mpp=row.mpp, backend=recipe.config.runtime.backend) as slide:
        grid = _cut_tumour(slide, row, recipe)
    with atomic(file) as draft:
        write_grid(draft, grid, row.slide_id, made_of)
    return grid


def _cut_tumour(slide: Slide, row: SlideRow, recipe: BagRecipe) -> TileGrid:
    """Segment, cut, and leave out what cannot be decoded."""
    config, tile = recipe.config, recipe.tile
    file = None if recipe.annotations_use == "ignore" else row.annotations
    annotation = None if file is None else read_annotation(file)
    tumour_cnn = None if recipe.annotations_use == "replace" else recipe.tumour_cnn
    segmentation = segment_slide(slide, tile, config, tumour_cnn=tumour_cnn, annotation=annotation)
    grid = cut_tumour(slide, segmentation, tile, config).grid
    parts = list(map_tiles(slide, grid, lambda batch: batch.index, **pace(config.runtime)))
    readable = np.concatenate(parts) if parts else np.empty(0, np.int64)
    require_readable(slide, len(readable), len(grid), config.selection.n_tiles)
    return grid.take(readable)


def write_grid(file: Path, grid: TileGrid, slide_id: str, made_of: str) -> None:
    """Write a grid as `coords` (n, 2) int64 level-0 px with the attributes that `tiles.h5` has."""
    with h5py.File(file, "w") as out:
        coords = out.create_dataset("coords", data=grid.origins_l0.astype(np.int64))
        coords.attrs.update(
            {
                "name": slide_id,
                "patch_size": grid.side_px,
                "patch_size_level0": round(grid.side_l0),
                "side_level0": grid.side_l0,
                "mpp": grid.mpp,
                _MADE_OF: made_of,
            }
        )


def read_grid(file: Path, made_of: str) -> TileGrid | None:
    """The grid that `write_grid` wrote; None where there is none, it is damaged, or made of something else."""
    try:
        with h5py.File(file) as found:
            coords = found["coords"]
            if coords.attrs[_MADE_OF] != made_of:
                return None
            attrs = coords.attrs
            return TileGrid(coords[:], float(attrs["side_level0"]), int(attrs["patch_size"]), float(attrs["mpp"]))
    except (OSError, KeyError):
        return None


def _stamp(file: Path) -> str:
    """What tells that a file is no longer the one it was."""
    if not file.exists():
        return json.dumps([str(file), None])
    stat = file.stat()
    return json.dumps([str(file.absolute()), stat.st_size, stat.st_mtime_ns])
