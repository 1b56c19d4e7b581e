"""Patch sets: NPZ files of small labelled pictures of tissue, at their own scale, to test or train a tumour network.

Two layouts are read. `patch` (n, h, h, 3) uint8, `invasive` (n,) of 0 and 1 and, if known, `patient` (n,): the label is
of the whole patch, as in the IDC set. `jpeg` (all bytes), `offset` (n + 1) and `tumour` (n,): the label is of the
central third, as in PatchCamelyon; `patient` (n,) may be there, and `valid` (n,) bool marks the patches to test on,
which train no network.
"""

import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipInfo

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from he2her2.errors import PatchError
from he2her2.geometry import Rgb
from he2her2.manifest import names_nothing, patient_key
from he2her2.units import PLAUSIBLE_MPP

_WHOLE, _CENTRE = ("patch", "invasive"), ("jpeg", "offset", "tumour")
_OPTIONAL = ("patient", "valid", "mpp")
_LABELLED_CENTRE = 1 / 3
_LARGEST_SIDE = 4096
_LARGE_BYTES = 1 << 26
_LARGEST_RATIO = 256  # pictures of tissue hardly compress


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class PatchSet:
    """Labelled pictures of one size.

    Attributes:
        name: Of the file, without ending.
        mpp: µm per px.
        side_px: Side of a patch.
        labelled_px: Side of the central square that the label is of.
        tumour: (n,) bool.
        patients: (n,) patient of each, by `patient_key`; None where the file names none.
        pictures: (n, h, h, 3) uint8, or the bytes of n JPEGs.
        valid: (n,) bool: patches to test on; None where the file marks none.
    """

    name: str
    mpp: float
    side_px: int
    labelled_px: int
    tumour: NDArray[np.bool_]
    patients: NDArray[np.str_] | None
    pictures: Rgb | tuple[bytes, ...]
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.tumour)

    def take(self, index: NDArray[np.intp]) -> "PatchSet":
        """The patches at these positions, in their order."""
        chosen = (
            tuple(self.pictures[i] for i in index.tolist())
            if isinstance(self.pictures, tuple)
            else self.pictures[index]
        )
        patients = None if self.patients is None else self.patients[index]
        valid = None if self.valid is None else self.valid[index]
        return replace(self, tumour=self.tumour[index], patients=patients, valid=valid, pictures=chosen)

    def pixels(self, part: slice) -> Rgb:
        """Pixels of some patches, (m, h, h, 3).

        Raises:
            PatchError: One of them cannot be decoded, or is of another size.
        """
        if not isinstance(self.pictures, tuple):
            return self.pictures[part]
        shape, chosen = (self.side_px, self.side_px, 3), range(len(self))[part]
        pixels = np.empty((len(chosen), *shape), np.uint8)
        for out, i in zip(pixels, chosen, strict=True):
            picture = _decoded(self.pictures[i], f"{self.name}: patch {i}")
            if picture.shape != shape:
                raise PatchError(f"{self.name}: patch {i} is {picture.shape}, others are {shape}")
            out[:] = picture
        return pixels


def open_patch_set(file: Path, mpp: float | None = None) -> tuple[PatchSet, PatchSet | None]:
    """Open a patch set to test on, and its part that is there to learn from. Arguments are those of `read_patch_set`.

    Returns:
        Of a set with `valid` the valid patches, and of the others those of other patients, None if there are none; else
        all patches and None.

    Raises:
        PatchError: It cannot be read or used, or has one class only; all problems in one message.
    """
    found, others = read_patch_set(file, mpp), None
    if found.valid is not None:
        if not found.valid.any():
            raise PatchError(f"{file}: valid marks no patch to test on")
        apart = ~found.valid
        if found.patients is not None:
            apart &= ~np.isin(found.patients, found.patients[found.valid])
        others = found.take(np.flatnonzero(apart)) if apart.any() else None
        found = found.take(np.flatnonzero(found.valid))
    if len(np.unique(found.tumour)) < 2:
        raise PatchError(f"{file}: holds one class only; both are needed")
    return found, others


def read_patch_set(file: Path, mpp: float | None = None, otherwise: float | None = None) -> PatchSet:
    """Read a whole patch set at its own scale.

    Args:
        file: NPZ; further arrays in it are ignored.
        mpp: µm per px, over what the file says (`mpp`).
        otherwise: µm per px where neither says it; none is a problem.

    Raises:
        PatchError: It cannot be read or used; all problems in one message.
    """
    arrays = _read(file)
    centre = "jpeg" in arrays
    problems = list(_problems(arrays, _CENTRE if centre else _WHOLE))
    scale = next((given for given in (mpp, _stated_mpp(arrays), otherwise) if given is not None), None)
    low, high = PLAUSIBLE_MPP
    if scale is not None and not low <= scale <= high:
        problems.append(f"{scale:g} µm per px are no microscope's; correct it to {low} to {high:g}")
    elif scale is None:
        problems.append("does not state its µm per px; pass --mpp, such as 4 for the IDC set or 0.97 for PatchCamelyon")
    if problems or scale is None:
        raise PatchError(f"{file}: {'; '.join(problems)}")
    pictures = _jpegs(arrays) if centre else arrays["patch"]
    first = _decoded(pictures[0], f"{file}: patch 0") if isinstance(pictures, tuple) else pictures[0]
    side = len(first)
    patients = None
    if "patient" in arrays:
        patients = np.array([patient_key(name) for name in _names(arrays["patient"])])
    return PatchSet(
        file.stem,
        scale,
        side,
        round(side * _LABELLED_CENTRE) if centre else side,
        arrays["tumour" if centre else "invasive"].astype(bool),
        patients,
        pictures,
        arrays.get("valid"),
    )


def _read(file: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with file.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise PatchError(f"{file}: is a single array; give an NPZ with {', '.join(_WHOLE)}")
            _refuse_hollow(found.zip.infolist())
            return {name: found[name] for name in (*_WHOLE, *_CENTRE, *_OPTIONAL) if name in found}
    except OSError as error:
        raise PatchError(f"{file}: cannot be read ({error.strerror or error}); give an NPZ of patches") from None
    except MemoryError:
        raise PatchError(f"{file}: says that it holds more than this machine's memory; check or split it") from None
    except (ValueError, BadZipFile, EOFError, zlib.error):  # whose words advise to load it unsafely
        layouts = f"{', '.join(_WHOLE)}, or where the label is of the central third {', '.join(_CENTRE)}"
        raise PatchError(f"{file}: is no NPZ of plain arrays; write with numpy.savez {layouts}") from None


def _refuse_hollow(stored: Sequence[ZipInfo]) -> None:
    """Raise MemoryError for arrays that take hardly any bytes in the file, and gigabytes of memory."""
    if any(one.file_size > max(_LARGE_BYTES, _LARGEST_RATIO * one.compress_size) for one in stored):
        raise MemoryError


def _stated_mpp(arrays: Mapping[str, NDArray[Any]]) -> float | None:
    """µm per px as the file states it, nan where that is no number; None where it does not, or states 0 for unknown."""
    stated = arrays.get("mpp", np.empty(0)).reshape(-1)
    if stated.size != 1 or not stated[0]:
        return None
    try:
        return float(stated[0].item())
    except (TypeError, ValueError):
        return math.nan


def _problems(arrays: Mapping[str, NDArray[Any]], needed: tuple[str, ...]) -> Iterator[str]:
    """Yield all problems of a patch set."""
    pictures, label = needed[0], needed[-1]
    if missing := [name for name in needed if name not in arrays]:
        yield f"has no array {', '.join(missing)}"
        return
    if single := [name for name in (*needed, "patient", "valid") if name in arrays and not arrays[name].ndim]:
        yield f"has one value, and no array, in {', '.join(single)}"
        return
    n = len(arrays[label])
    lengths = {name: len(arrays[name]) for name in (label, "patient", "valid", "patch") if name in arrays}
    if pictures == "jpeg":
        yield from _byte_problems(arrays, n)
    elif arrays["patch"].ndim != 4 or arrays["patch"].dtype != np.uint8 or not _square(arrays["patch"].shape):
        found = arrays["patch"]
        yield f"patch is {found.shape} {found.dtype} where (n, h, h, 3) uint8 is wanted"
    if set(lengths.values()) != {n}:
        yield f"its arrays differ in length ({', '.join(f'{name} {length}' for name, length in lengths.items())})"
    labels = arrays[label]
    if labels.ndim != 1 or labels.dtype.kind not in "iub" or not np.isin(labels, (0, 1)).all():
        yield f"{label} is {labels.shape} {labels.dtype} where (n,) of 0 and 1 is wanted"
    elif not n:
        yield "it is empty"
    if "patient" in arrays:
        yield from _patient_problems(arrays["patient"])
    if "valid" in arrays and (arrays["valid"].dtype != np.bool_ or arrays["valid"].ndim != 1):
        yield f"valid is {arrays['valid'].shape} {arrays['valid'].dtype} where (n,) bool is wanted"


def _square(shape: tuple[int, ...]) -> bool:
    return shape[1] == shape[2] and shape[3] == 3


def _byte_problems(arrays: Mapping[str, NDArray[Any]], n: int) -> Iterator[str]:
    offset, n_bytes = arrays["offset"], arrays["jpeg"].size
    ordered = offset.dtype.kind in "iu" and offset.shape == (n + 1,) and (np.diff(offset.astype(np.int64)) > 0).all()
    if arrays["jpeg"].dtype != np.uint8 or not ordered or offset[0] != 0 or offset[-1] != n_bytes:
        yield f"offset does not cut its {n_bytes} bytes into {n} JPEGs"


def _patient_problems(patients: NDArray[Any]) -> Iterator[str]:
    if patients.ndim != 1 or patients.dtype.kind not in "iuUS":
        yield f"patient is {patients.shape} {patients.dtype} where (n,) numbers or names are needed"
    elif unnamed := [i for i, name in enumerate(_names(patients)) if names_nothing(name)]:
        yield f"{len(unnamed)} patches have no patient, the first is patch {unnamed[0]}"


def _names(patients: NDArray[Any]) -> list[str]:
    if patients.dtype.kind == "S":
        patients = np.char.decode(patients, "utf-8", "replace")
    return [str(name) for name in patients.tolist()]


def _jpegs(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, ...]:
    data, ends = arrays["jpeg"].tobytes(), arrays["offset"].tolist()
    return tuple(data[start:end] for start, end in pairwise(ends))


def _refuse_huge(jpeg: bytes) -> None:
    """Raise ValueError unless the size in a JPEG's header is one of a patch."""
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if max(height, width) > _LARGEST_SIDE:
        raise ValueError(f"it says that it has {width} x {height} px")


def _decoded(file: bytes, name: str) -> Rgb:
    try:
        _refuse_huge(file)
        with Image.open(io.BytesIO(file), formats=["jpeg"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise PatchError(f"{name} is no JPEG that can be decoded ({error}); make the patch set again") from None
