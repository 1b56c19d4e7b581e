"""Slides of a manifest with their files of features: read when needed, kept while memory allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from he2her2.cohort import SlideEngine, SlideTask
from he2her2.errors import ConfigError, ExchangeError, ManifestError, few_of
from he2her2.exchange import StoredTiles, read_tiles_file, tiles_files
from he2her2.files import digest, sha256_of
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import SlideRow, check_consistent, files_of_slides, label_of, read_manifest
from he2her2.models import UNSTATED_ENCODER, WIDEST_RATIO, Bag, EncoderNote
from he2her2.results import Failure

_KEPT_BYTES = 4 << 30
_MOST_TOLD = 5
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSlide:
    """A labelled slide with its file of features.

    Attributes:
        row: Its line of the manifest.
        positive: Its label.
        path: The file.
        n_tiles: Tiles in it.
    """

    row: SlideRow
    positive: bool
    path: Path
    n_tiles: int


@dataclass(frozen=True, slots=True, eq=False)
class FeatureCohort:
    """The slides of a training on features.

    Attributes:
        slides: Those that have features.
        missing: The others, with the reason.
        encoder: What gave the features.
        n_features: Of a tile.
    """

    slides: tuple[FeatureSlide, ...]
    missing: tuple[Failure, ...]
    encoder: EncoderNote
    n_features: int
    _kept: dict[str, Bag] = field(default_factory=dict)

    def bag(self, slide: FeatureSlide) -> Bag:
        """The bag of a slide, of all its tiles."""
        slide_id = slide.row.slide_id
        if slide_id in self._kept:
            return self._kept[slide_id]
        bag = _bag_of(read_tiles_file(slide.path, slide.row.mpp))
        if sum(kept.features.nbytes for kept in self._kept.values()) + bag.features.nbytes <= _KEPT_BYTES:
            self._kept[slide_id] = bag
        return bag

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all files of features."""
        return digest({slide.row.slide_id: sha256_of(slide.path) for slide in self.slides})


def read_feature_cohort(manifest: Path, folder: Path, policy: Policy, *, places: bool = True) -> FeatureCohort:
    """Find the features of a manifest's labelled H&E slides; the slides themselves need not be there.

    Args:
        manifest: The manifest.
        folder: Of the files of features, of any program.
        policy: Derives a status that the manifest does not state.
        places: False takes files without coordinates, too, whose tiles then lie all in one place.

    Raises:
        ManifestError: The manifest cannot be used, or none of its slides has features.
        ConfigError: The files are of several encoders, or their tiles of several magnifications.
    """
    read = read_manifest(manifest)
    check_consistent(read, files=False)
    labels = {
        row.slide_id: label
        for row in read.select(stain="HE")
        if (label := label_of(row, "her2_status", policy)) in (Her2Status.POSITIVE, Her2Status.NEGATIVE)
    }
    rows = {row.slide_id: row for row in read.select(stain="HE") if row.slide_id in labels}
    named = tiles_files(folder)
    files = files_of_slides(named, {row.slide_id: row.path for row in read.rows})
    tasks = [
        SlideTask(slide_id, files.get(slide_id, folder / f"{slide_id}.h5"), rows[slide_id].mpp) for slide_id in rows
    ]
    found: dict[str, _Seen] = {}
    missing = []
    for task, outcome in SlideEngine().run(tasks, partial(_look, places=places), stage="features"):
        if isinstance(outcome, Failure):
            missing.append(outcome)
        else:
            found[task.slide_id] = outcome
    if not found:
        such = f", such as {next(iter(rows))}" if rows else ""
        such += "" if files else f"; its files are named such as {next(iter(named))}"
        why = [
            f"{failure.slide_id}: {failure.reason}; {failure.remedy}"
            for failure in missing
            if failure.slide_id in files
        ]
        none = f"{folder}: has features of none of the {len(rows)} labelled slides of {manifest}{such}"
        raise ManifestError([none, *why[:_MOST_TOLD]])
    tile_um = _one_magnification(folder, found)
    encoder, n_features = _one_encoder(folder, found)
    slides = (
        FeatureSlide(rows[name], labels[name] == Her2Status.POSITIVE, files[name], seen.n_tiles)
        for name, seen in found.items()
    )
    return FeatureCohort(tuple(slides), tuple(missing), replace(encoder, tile_um=tile_um), n_features)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Description of a file of features by itself."""

    encoder: EncoderNote
    n_tiles: int
    n_features: int
    tile_um: float | None


def _look(task: SlideTask, *, places: bool) -> _Seen:
    tiles = read_tiles_file(task.path, task.mpp)
    if places:
        _require_places(tiles)
    if tiles.features is None or not len(tiles):
        raise ExchangeError(task.slide_id, "its file holds no features", "extract them again")
    if max(float(tiles.features.max()), -float(tiles.features.min())) > _LARGEST:
        raise ExchangeError(task.slide_id, "a feature is beyond the numbers of 32 bits", "extract its features again")
    note = EncoderNote(tiles.encoder or UNSTATED_ENCODER, tiles.identity)
    return _Seen(note, len(tiles), tiles.features.shape[1], tiles.tile_um)


def _require_places(tiles: StoredTiles) -> None:
    """Raise where most tiles lie at a few places: what is neighbour of what is not known, and all are of all.

    Raises:
        ExchangeError: They do, or have no coordinates.
    """
    n_places = len(np.unique(tiles.places, axis=0))
    if 2 * n_places < len(tiles):
        found = f"its {len(tiles)} tiles lie at {n_places} places"
        raise ExchangeError(tiles.slide_id, found, "extract its coordinates again, or use an aggregator without places")


def _one_encoder(folder: Path, found: Mapping[str, _Seen]) -> tuple[EncoderNote, int]:
    """The encoder of all files.

    Raises:
        ConfigError: There are several.
    """
    kinds: dict[tuple[EncoderNote, int], str] = {}
    for slide_id, seen in found.items():
        kinds.setdefault((seen.encoder, seen.n_features), slide_id)
    if len(kinds) > 1:
        said = few_of([f"{slide_id} has {n} of {note.name}" for (note, n), slide_id in kinds.items()], 3, between="; ")
        raise ConfigError(f"{folder}: holds features of several encoders ({said}); keep one encoder a folder")
    (kind,) = kinds
    return kind


def _one_magnification(folder: Path, found: Mapping[str, _Seen]) -> float | None:
    """Width of the tiles of the slide in the middle; None where no file says it.

    Raises:
        ConfigError: Tiles of some slides show far more tissue than those of others.
    """
    wide = {slide_id: seen.tile_um for slide_id, seen in found.items() if seen.tile_um is not None}
    if not wide:
        return None
    least, most = min(wide, key=wide.__getitem__), max(wide, key=wide.__getitem__)
    if wide[most] > WIDEST_RATIO * wide[least]:
        raise ConfigError(
            f"{folder}: holds features of several magnifications (tiles of {least} are {wide[least]:.4g} µm wide, of "
            f"{most} {wide[most]:.4g} µm); keep one a folder"
        )
    return round(float(np.median([*wide.values()])), 3)


def _bag_of(tiles: StoredTiles) -> Bag:
    """Bag of a file; where the µm per px are unknown its places are in px, which keeps who is whose neighbour."""
    assert tiles.features is not None
    centres = tiles.centres_um
    if tiles.corners is None:
        centres = np.zeros((len(tiles), 2))
    elif centres is None:
        centres = tiles.corners.astype(np.float64) + (tiles.side or 0.0) / 2
    return Bag(tiles.features.astype(np.float32), centres, np.ones(len(tiles), np.bool_))
