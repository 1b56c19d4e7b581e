"""Labelled patches at a network's pixel size, and patch sets brought to it.

Patches are small (12 kB at 64 px), so they are read once, at the network's pixel size, and kept in memory; nothing is
written. A patch wider than the network's window is kept whole: training crops it anew each time, and its probability is
the mean over windows that cover it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.datasets import read_patch_set
from he2her2.errors import PatchError
from he2her2.geometry import Rgb
from he2her2.models import InputSpec, resize

OTHER, INVASIVE = 0, 1

_TOO_NARROW = 0.98
_MIRRORED_TO = 0.7
_WIDEST_UM = 4096.0


@dataclass(frozen=True, slots=True)
class PatchFile:
    """A patch set as the user gives it.

    Attributes:
        path: NPZ.
        mpp: µm per px of its patches; none is the network's.
    """

    path: Path
    mpp: float | None = None


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class Patches:
    """Labelled patches.

    Attributes:
        pixels: (n, s, s, 3) uint8, of the network's pixel size, with the network's window in the middle; s is at least
            the network's side.
        labels: (n,) int64: 1 is invasive tumour, 0 is not.
        patients: (n,) patient of each, by `patient_key`; where nobody knows, a name of its own for each patch.
        sources: (n,) source of each: the patch set, or the slide's site.
        slack: (n,) int64: px by which a window may lie off the middle, in x and in y, and still be of the patch.
        split: (n,) "" where patients decide; "train" and "val" where the set itself states it, patients unknown.
    """

    pixels: Rgb
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    sources: NDArray[np.str_]
    slack: NDArray[np.int64]
    split: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) where the patient is known."""
        return np.asarray(self.split == "")

    def take(self, index: NDArray[Any]) -> "Patches":
        """The patches at `index` (positions or a bool mask), in its order."""
        arrays = (self.pixels, self.labels, self.patients, self.sources, self.slack, self.split)
        return Patches(*(array[index] for array in arrays))

    def windows(self, side: int, shift: NDArray[np.float64]) -> Rgb:
        """The network's window of each patch: (n, side, side, 3).

        Args:
            side: The network's side in px.
            shift: (n, 2) or (2,) in [-1, 1]: of x and y, in parts of each patch's slack.
        """
        n, whole = self.pixels.shape[:2]
        off = np.rint(np.broadcast_to(shift, (n, 2)) * self.slack[:, None]).astype(np.int64) + (whole - side) // 2
        if whole == side:
            return self.pixels
        windows = np.empty((n, side, side, 3), np.uint8)
        for window, patch, (x, y) in zip(windows, self.pixels, off, strict=True):
            window[:] = patch[y : y + side, x : x + side]
        return windows

    def in_words(self) -> str:
        """Number, patients, sources and classes of the patches."""
        sources = [f"{source}: {(self.sources == source).sum()}" for source in np.unique(self.sources)]
        patients = f"{len(np.unique(self.patients[self.known]))} patients" if self.known.any() else "unknown patients"
        unknown = f", {(~self.known).sum()} of them of unknown patients" if 0 < self.known.sum() < len(self) else ""
        share = f"{self.labels.mean():.0%} invasive"
        return f"{len(self)} patches of {patients}{unknown} ({', '.join(sources)}), {share}"


def concatenate(parts: Sequence[Patches]) -> Patches:
    """Patches of several sets as one, in their order; narrower ones are continued by their mirror image."""
    side = max(part.pixels.shape[1] for part in parts)
    return Patches(
        np.concatenate([mirrored(part.pixels, side) for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.patients for part in parts]),
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.slack for part in parts]),
        np.concatenate([part.split for part in parts]),
    )


def mirrored(pixels: Rgb, side: int) -> Rgb:
    """Continue (n, h, h, 3) pictures by their mirror image to (n, side, side, 3), the picture in the middle."""
    missing = side - pixels.shape[1]
    if missing <= 0:
        return pixels
    ends = (missing // 2, missing - missing // 2)
    return np.pad(pixels, ((0, 0), ends, ends, (0, 0)), mode="symmetric")


def patches_of_set(file: Path, spec: InputSpec, mpp: float | None = None) -> Patches:
    """Read a patch set for training: all of it, at the network's pixel size.

    Patches with a patient are kept apart by patient; those of patients of whom the set marks a patch as valid are left
    out, to test on. Where patients are unknown, valid patches train no network, and the others train every network. A
    patch whose label is of its centre has no slack.

    Args:
        file: NPZ, of `datasets.read_patch_set`.
        spec: Input of the network. Patches narrower than its field of view, but not below 0.7 of it, are continued by
            their mirror image.
        mpp: µm per px of the patches; none is what the file states, or else the network's.

    Raises:
        PatchError: It cannot be read or used; all problems in one message.
    """
    found = read_patch_set(file, mpp, otherwise=spec.mpp)
    if found.patients is not None and found.valid is not None:
        apart = ~np.isin(found.patients, found.patients[found.valid])
        if not apart.any():
            raise PatchError(f"{file}: valid marks patches of every patient, so that none is left to train on")
        found = found.take(np.flatnonzero(apart))
    field, wanted = found.side_px * found.mpp, spec.side_px * spec.mpp
    if field < _MIRRORED_TO * wanted or field > _WIDEST_UM:
        seen = f"its patches are {field:g} µm wide at {found.mpp:g} µm/px, the network sees {wanted:g} µm"
        raise PatchError(f"{file}: {seen}; check --patches-mpp")
    every = (found.pixels(slice(k, k + 1))[0] for k in range(len(found)))
    pixels, slack = at_network_size(every, found.side_px, found.mpp, spec)
    n = len(found)
    slack = slack if found.labelled_px == found.side_px else 0
    split = np.full(n, "", "<U5")
    if found.patients is None:
        split = np.where(np.zeros(n, np.bool_) if found.valid is None else found.valid, "val", "train").astype("<U5")
    patients = np.array([f"{found.name} {k}" for k in range(n)]) if found.patients is None else found.patients
    if found.patients is not None and len(np.unique(patients)) < 2:
        raise PatchError(f"{file}: all patches are of one patient; at least two are needed to keep them apart")
    return Patches(pixels, found.tumour.astype(np.int64), patients, np.full(n, found.name), np.full(n, slack), split)


def at_network_size(pictures: Iterator[Rgb], side: int, mpp: float, spec: InputSpec) -> tuple[Rgb, int]:
    """Bring patches to the network's pixel size, at least as wide as its window; also their slack.

    Args:
        pictures: Each (side, side, 3).
        side: Their side in px.
        mpp: Their µm per px.
        spec: Input of the network.
    """
    if side == spec.side_px and abs(mpp / spec.mpp - 1) < 1e-6:
        return resize(np.stack(list(pictures)), spec), 0
    px_um = spec.side_px * spec.mpp / spec.network_px
    exact = side * mpp / px_um
    wanted = spec.network_px
    if _TOO_NARROW * wanted <= exact < wanted + 2:
        whole, cut = wanted, min(wanted * px_um / mpp, side)
    else:  # an even margin on both sides
        whole = wanted + 2 * int((exact - wanted) // 2)
        cut = whole * px_um / mpp
    box = ((side - cut) / 2, (side - cut) / 2, (side + cut) / 2, (side + cut) / 2)
    small = [Image.fromarray(p).resize((whole, whole), Image.Resampling.BILINEAR, box=box) for p in pictures]
    pixels = np.stack([np.asarray(picture) for picture in small])
    return mirrored(pixels, wanted), max(0, (whole - wanted) // 2)
