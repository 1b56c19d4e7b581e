"""Labelled patches: what a patch is, and sets of them read from NPZ files.

Patches are small (12 kB at 64 px), so they are read once, at the network's pixel size, and kept in memory; nothing is
written. A patch wider than the network's window is kept whole: training crops it anew each time, and its probability is
the mean over windows that cover it.
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import PatchError
from he2her2.geometry import Rgb
from he2her2.manifest import names_nothing, patient_key
from he2her2.models import InputSpec, resize

OTHER, INVASIVE = 0, 1

_PICTURES = ("patch", "jpeg")
_LABELS = ("invasive", "tumour")
_READ = (*_PICTURES, "offset", *_LABELS, "patient", "valid")
_FORM = "patch (or jpeg and offset), invasive (or tumour), patient (or valid)"
_TOO_NARROW = 0.98
_MIRRORED_TO = 0.7
_LARGEST_SIDE_PX = 1024
_WIDEST_UM = 4096.0


@dataclass(frozen=True, slots=True)
class PatchSet:
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
        n_patients = len(np.unique(self.patients[self.known]))
        unknown = f", {(~self.known).sum()} of them of unknown patients" if not self.known.all() else ""
        share = f"{self.labels.mean():.0%} invasive"
        return f"{len(self)} patches of {n_patients} patients{unknown} ({', '.join(sources)}), {share}"


def concatenate(parts: Sequence[Patches]) -> Patches:
    """Patches of several sets as one, in their order; narrower ones are continued by their mirror image."""
    side = max(part.pixels.shape[1] for part in parts)
    return Patches(
        np.concatenate([_mirrored(part.pixels, side) for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.patients for part in parts]),
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.slack for part in parts]),
        np.concatenate([part.split for part in parts]),
    )


def _mirrored(pixels: Rgb, side: int) -> Rgb:
    """Continue (n, h, h, 3) pictures by their mirror image to (n, side, side, 3), the picture in the middle."""
    missing = side - pixels.shape[1]
    if missing <= 0:
        return pixels
    ends = (missing // 2, missing - missing // 2)
    return np.pad(pixels, ((0, 0), ends, ends, (0, 0)), mode="symmetric")


def read_patch_set(file: Path, spec: InputSpec, mpp: float | None = None) -> Patches:
    """Read a patch set.

    An NPZ with pictures, `patch` (n, h, h, 3) uint8, or `jpeg` (all files' bytes) and `offset` (n + 1); with labels,
    `invasive` or `tumour` (n,) of 0 and 1; and with `patient` (n,) or, where patients are unknown, `valid` (n,): the
    patches that no network may be trained on. Without either, they train only. Further arrays are ignored. The label is
    that of the patch's middle; a wide patch is taken to be of its label all over.

    Args:
        file: NPZ.
        spec: Input of the network. Patches narrower than its field of view, but not below 0.7 of it, are continued by
            their mirror image.
        mpp: µm per px of the patches; none is the network's.

    Raises:
        PatchError: It cannot be read or used; all problems in one message.
    """
    arrays = _read_npz(file)
    if problems := list(_problems(arrays)):
        raise PatchError(f"{file}: {'; '.join(problems)}")
    try:
        side, pictures = _pictures(arrays)
        _check_width(file, side, mpp or spec.mpp, spec)
        pixels, slack = _at_network_size(pictures, side, mpp or spec.mpp, spec)
    except (OSError, SyntaxError, ValueError):
        raise PatchError(f"{file}: a picture in it cannot be decoded; write the set again") from None
    labels = _first(arrays, _LABELS)
    assert labels is not None
    n = len(labels)
    stem = file.stem
    if "patient" in arrays:
        patients, split = [patient_key(name) for name in _names(arrays["patient"])], np.full(n, "", "<U5")
    else:
        patients = [f"{stem} {k}" for k in range(n)]
        split = np.where(arrays.get("valid", np.zeros(n, np.bool_)), "val", "train").astype("<U5")
    sources = np.full(n, stem)
    return Patches(pixels, labels.astype(np.int64), np.array(patients), sources, np.full(n, slack), split)


def _read_npz(file: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with file.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise PatchError(f"{file}: is a single array; give an NPZ with {_FORM}")
            return {name: found[name] for name in _READ if name in found}
    except OSError as error:
        raise PatchError(f"{file}: cannot be read ({error.strerror or error}); give an NPZ of patches") from None
    except (ValueError, BadZipFile, EOFError, zlib.error) as error:
        raise PatchError(f"{file}: is no NPZ of plain arrays ({error}); write it with numpy.savez") from None


def _first(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _problems(arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield all problems of a patch set but those of its pictures' width."""
    labels = _first(arrays, _LABELS)
    missing = [] if _first(arrays, _PICTURES) is not None else ["patch"]
    missing += [] if labels is not None else ["invasive"]
    if "jpeg" in arrays and "patch" not in arrays and "offset" not in arrays:
        missing.append("offset")
    if missing:
        yield f"has no array {', '.join(missing)}; it needs {_FORM}"
    lengths = {name: array.shape[:1] for name, array in arrays.items() if name not in ("jpeg", "offset")}
    if "offset" in arrays and "patch" not in arrays:
        lengths["offset"] = (arrays["offset"].size - 1,)
    if len(set(lengths.values())) > 1:
        yield f"its arrays differ in length ({', '.join(f'{name} {n}' for name, n in lengths.items())})"
    if "patch" in arrays:
        yield from _patch_problems(arrays["patch"])
    elif "jpeg" in arrays and "offset" in arrays:
        yield from _jpeg_problems(arrays["jpeg"], arrays["offset"])
    if labels is not None:
        yield from _label_problems(labels)
    if "patient" in arrays:
        yield from _patient_problems(arrays["patient"])
    elif "valid" in arrays and (arrays["valid"].ndim != 1 or arrays["valid"].dtype.kind not in "biu"):
        yield f"valid is {arrays['valid'].shape} {arrays['valid'].dtype} where (n,) bool is wanted"


def _label_problems(labels: NDArray[Any]) -> Iterator[str]:
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or not np.isin(labels, (OTHER, INVASIVE)).all():
        yield f"invasive is {labels.shape} {labels.dtype} where (n,) of 0 and 1 is wanted"
    elif not labels.size:
        yield "it is empty"


def _patient_problems(patients: NDArray[Any]) -> Iterator[str]:
    if patients.ndim != 1 or patients.dtype.kind not in "iuUS":
        yield f"patient is {patients.shape} {patients.dtype} where (n,) numbers or names are needed"
    elif unnamed := [i for i, name in enumerate(_names(patients)) if names_nothing(name)]:
        yield f"{len(unnamed)} patches have no patient, the first is patch {unnamed[0]}"
    elif len(np.unique(patients)) < 2:
        yield "all patches are of one patient; at least two are needed to keep training and validation apart"


def _names(patients: NDArray[Any]) -> list[str]:
    """The (n,) patients of a patch set as text."""
    if patients.dtype.kind == "S":
        patients = np.char.decode(patients, "utf-8", "replace")
    return [str(name) for name in patients.tolist()]


def _patch_problems(patch: NDArray[Any]) -> Iterator[str]:
    if patch.ndim != 4 or patch.dtype != np.uint8 or patch.shape[3:] != (3,) or patch.shape[1] != patch.shape[2]:
        yield f"patch is {patch.shape} {patch.dtype} where (n, h, h, 3) uint8 is wanted"


def _jpeg_problems(jpeg: NDArray[Any], offset: NDArray[Any]) -> Iterator[str]:
    if jpeg.ndim != 1 or jpeg.dtype != np.uint8:
        yield f"jpeg is {jpeg.shape} {jpeg.dtype} where the bytes of all files, (m,) uint8, are wanted"
    elif offset.ndim != 1 or offset.dtype.kind not in "iu" or offset.size < 2:
        yield f"offset is {offset.shape} {offset.dtype} where (n + 1,) positions in jpeg are wanted"
    elif offset[0] != 0 or offset[-1] != jpeg.size or (np.diff(offset.astype(np.int64)) <= 0).any():
        yield "offset does not cut jpeg into files, from its first byte to its last"


def _pictures(arrays: Mapping[str, NDArray[Any]]) -> tuple[int, Iterator[Rgb]]:
    """Side of a set's pictures, and the pictures one by one."""
    if "patch" in arrays:
        return arrays["patch"].shape[1], iter(arrays["patch"])
    jpeg, offset = arrays["jpeg"], arrays["offset"].astype(np.int64)
    first = Image.open(io.BytesIO(jpeg[: offset[1]].tobytes())).size[0]
    return first, (_decoded(jpeg[start:end], first) for start, end in pairwise(offset))


def _decoded(data: NDArray[np.uint8], side: int) -> Rgb:
    picture = Image.open(io.BytesIO(data.tobytes()))
    if picture.size != (side, side):
        raise ValueError(f"is {picture.size}")
    return np.asarray(picture.convert("RGB"))


def _check_width(file: Path, side: int, mpp: float, spec: InputSpec) -> None:
    field, wanted = side * mpp, spec.side_px * spec.mpp
    if field < _MIRRORED_TO * wanted or field > _WIDEST_UM or side > _LARGEST_SIDE_PX:
        found = f"its patches are {field:g} µm wide at {mpp:g} µm/px, the network sees {wanted:g} µm"
        raise PatchError(f"{file}: {found}; check --patches-mpp")


def _at_network_size(pictures: Iterator[Rgb], side: int, mpp: float, spec: InputSpec) -> tuple[Rgb, int]:
    """Patches at the network's pixel size, at least as wide as its window, and their slack.

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
    return _mirrored(pixels, wanted), max(0, (whole - wanted) // 2)
