"""Slides of a manifest with their files of features: read when needed, kept while memory allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from he2her2.cohort import SlideEngine, SlideTask
from he2her2.errors import ConfigError, ExchangeError, ManifestError
from he2her2.exchange import StoredTiles, read_tiles_file, tiles_files
from he2her2.files import digest, sha256_of
from he2her2.labels import Her2Status, Policy
from he2her2.manifest import SlideRow, label_of, raise_problems, read_manifest
from he2her2.models import Bag, EncoderNote
from he2her2.results import Failure

_KEPT_BYTES = 4 << 30


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


def read_feature_cohort(manifest: Path, folder: Path, policy: Policy) -> FeatureCohort:
    """Find the features of a manifest's labelled H&E slides; the slides themselves need not be there.

    Args:
        manifest: The manifest.
        folder: Of the files of features, of any program.
        policy: Derives a status that the manifest does not state.

    Raises:
        ManifestError: The manifest cannot be used, or none of its slides has features.
        ConfigError: The files are of several encoders.
    """
    read = read_manifest(manifest)
    raise_problems(read, read.problems)
    labels = {
        row.slide_id: label
        for row in read.select(stain="HE")
        if (label := label_of(row, "her2_status", policy)) in (Her2Status.POSITIVE, Her2Status.NEGATIVE)
    }
    rows = {row.slide_id: row for row in read.select(stain="HE") if row.slide_id in labels}
    files = tiles_files(folder)
    tasks = [
        SlideTask(slide_id, files.get(slide_id, folder / f"{slide_id}.h5"), rows[slide_id].mpp) for slide_id in rows
    ]
    found: dict[str, _Seen] = {}
    missing = []
    for task, outcome in SlideEngine().run(tasks, _look, stage="features"):
        if isinstance(outcome, Failure):
            missing.append(outcome)
        else:
            found[task.slide_id] = outcome
    if not found:
        named = f", such as {next(iter(rows))}" if rows else ""
        raise ManifestError([f"{folder}: has features of none of the {len(rows)} labelled slides of {manifest}{named}"])
    encoder, n_features = _one_encoder(folder, found)
    slides = (
        FeatureSlide(rows[name], labels[name] == Her2Status.POSITIVE, files[name], seen.n_tiles)
        for name, seen in found.items()
    )
    return FeatureCohort(tuple(slides), tuple(missing), encoder, n_features)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Description of a file of features by itself."""

    encoder: EncoderNote
    n_tiles: int
    n_features: int


def _look(task: SlideTask) -> _Seen:
    tiles = read_tiles_file(task.path)
    if tiles.features is None or not len(tiles):
        raise ExchangeError(task.slide_id, "its file holds no features", "extract them again")
    return _Seen(EncoderNote(tiles.encoder or "not stated", tiles.identity), len(tiles), tiles.features.shape[1])


def _one_encoder(folder: Path, found: Mapping[str, _Seen]) -> tuple[EncoderNote, int]:
    """The encoder of all files.

    Raises:
        ConfigError: There are several.
    """
    kinds: dict[tuple[EncoderNote, int], str] = {}
    for slide_id, seen in found.items():
        kinds.setdefault((seen.encoder, seen.n_features), slide_id)
    if len(kinds) > 1:
        said = "; ".join(f"{slide_id} has {n} of {note.name}" for (note, n), slide_id in list(kinds.items())[:3])
        raise ConfigError(f"{folder}: holds features of several encoders ({said}); keep one encoder a folder")
    (kind,) = kinds
    return kind


def _bag_of(tiles: StoredTiles) -> Bag:
    """Bag of a file; where the µm per px are unknown its places are in px, which keeps who is whose neighbour."""
    assert tiles.features is not None
    centres = tiles.centres_um
    if centres is None:
        centres = tiles.corners.astype(np.float64) + (tiles.side or 0.0) / 2
    return Bag(tiles.features.astype(np.float32), centres, np.ones(len(tiles), np.bool_))
