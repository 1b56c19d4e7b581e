"""Patches that a tumour network learns from as lossless pictures, for a machine that has a GPU and no slides.

The 27 793 patches of the bundled network are 834 MB of pixels at its pixel size, and 111 MB here: of each set what its
windows see, without what is only enlarged or mirrored, as sheets of WebP.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from he2her2.datasets import PatchSet, read_patch_set
from he2her2.geometry import Rgb
from he2her2.models import InputSpec
from he2her2.training.tumour.patch_sets import Patches, PatchFile, at_network_size, mirrored

_COLUMNS, _ROWS = 64, 40  # of a sheet
_FIELDS = ("labels", "patients", "sources", "slack", "split")
_DESCRIPTION = "patches.npz"


class _Kind(NamedTuple):
    """Patches of one source as they are stored.

    Attributes:
        pixels: (n, s, s, 3).
        mpp: µm per px where they are those of the set's file; 0 for the network's.
    """

    pixels: Rgb
    mpp: float


def pack(patches: Patches, files: Sequence[PatchFile], spec: InputSpec, folder: Path) -> None:
    """Write patches as sheets.

    Args:
        patches: Of a training.
        files: The patch sets among them.
        spec: Input of the network.
        folder: Made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = [read_patch_set(file.path, file.mpp, otherwise=spec.mpp) for file in files]
    sets = {found.name: found for found in opened}
    np.savez_compressed(folder / _DESCRIPTION, **{field: getattr(patches, field) for field in _FIELDS})
    for source in np.unique(patches.sources):
        kind = _stored(patches.take(patches.sources == source), sets.get(source), spec)
        n, side = kind.pixels.shape[:2]
        for number, start in enumerate(range(0, n, _COLUMNS * _ROWS)):
            some = kind.pixels[start : start + _COLUMNS * _ROWS]
            file = folder / f"{source}_{number:02d}_{len(some)}_{side}_{kind.mpp:g}.webp"
            Image.fromarray(_sheet(some)).save(file, lossless=True, quality=100, method=4)


def unpack(folder: Path, spec: InputSpec) -> Patches:
    """Read patches back: the same pixels wherever a window may lie."""
    with np.load(folder / _DESCRIPTION) as stored:
        fields = {field: stored[field] for field in _FIELDS}
    whole = spec.network_px + 2 * int(fields["slack"].max())
    pixels: Rgb = np.empty((len(fields["labels"]), whole, whole, 3), np.uint8)
    for source in np.unique(fields["sources"]):
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(_tiles_of, sorted(folder.glob(f"{source}_*.webp"))))
        found = np.concatenate([part.pixels for part in parts])
        if parts[0].mpp:
            found, _ = at_network_size(iter(found), found.shape[1], parts[0].mpp, spec)
        pixels[fields["sources"] == source] = mirrored(mirrored(found, spec.network_px), whole)
    return Patches(pixels, **fields)


def _stored(patches: Patches, found: PatchSet | None, spec: InputSpec) -> _Kind:
    """The least pixels that give patches of one source back."""
    if found is not None and found.mpp > spec.mpp * spec.side_px / spec.network_px:
        return _Kind(found.pixels(slice(None)), found.mpp)
    pixels = _middle(patches.pixels, spec.network_px + 2 * int(patches.slack.max()))
    for side in range(spec.network_px // 2, pixels.shape[1]):
        if np.array_equal(mirrored(_middle(pixels, side), pixels.shape[1]), pixels):
            return _Kind(_middle(pixels, side), 0)
    return _Kind(pixels, 0)


def _middle(pixels: Rgb, side: int) -> Rgb:
    off = (pixels.shape[1] - side) // 2
    return pixels[:, off : off + side, off : off + side]


def _sheet(pixels: Rgb) -> Rgb:
    """(n, s, s, 3) side by side in rows: (r s, 64 s, 3)."""
    n, side = pixels.shape[:2]
    rows = -(-n // _COLUMNS)
    full: Rgb = np.zeros((rows * _COLUMNS, side, side, 3), np.uint8)
    full[:n] = pixels
    return full.reshape(rows, _COLUMNS, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * side, -1, 3)


def _tiles_of(file: Path) -> _Kind:
    """The patches of a sheet."""
    *_, n, side, mpp = file.stem.split("_")
    s = int(side)
    sheet = np.asarray(Image.open(file).convert("RGB"))
    tiles = sheet.reshape(-1, s, _COLUMNS, s, 3).transpose(0, 2, 1, 3, 4).reshape(-1, s, s, 3)
    return _Kind(tiles[: int(n)], float(mpp))
