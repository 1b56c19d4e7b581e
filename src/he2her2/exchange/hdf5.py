"""HDF5 files of other programs: opened, checked and read so that a damaged or hostile one is one line."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ExchangeError
from he2her2.files import atomic

_LONGEST_REASON = 160
_LONGEST_TEXT = 200
_LEAST, _MOST = 1e-6, 1e9  # of any side in px or µm, µm per px or magnification
_MOST_VALUES = 1 << 30  # 400 000 tiles of 2 560 features
_LARGE_BYTES = 1 << 26
_LARGEST_RATIO = 256  # features hardly compress; a file of nothing says that it holds terabytes
_FEATURES = ("features", "feats")
_FLOATS = (np.float16, np.float32, np.float64)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file to read it.

    Raises:
        ExchangeError: It cannot be read, or what the block looks for is not in it.
    """
    try:
        with h5py.File(path) as file:
            yield file
    except FileNotFoundError:
        raise ExchangeError(str(path), "there is no such file", "check the folder") from None
    except (
        *(OSError, KeyError, AttributeError, IndexError, TypeError, ValueError, RuntimeError, MemoryError),
    ) as error:
        found = quoted_reason(error)
        raise ExchangeError(
            str(path),
            f"cannot be read as HDF5 of a known layout ({found})",
            "extract it again, or write it as docs/encoders.md says",
        ) from None


def quoted_reason(error: Exception) -> str:
    """A library's own words on a file, on one line and cut short."""
    words = " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
    return (words or type(error).__name__)[:_LONGEST_REASON]


def read_dataset(file: h5py.File, name: str, *, columns: int | None = None) -> NDArray[Any]:
    """A two-dimensional dataset of numbers that lies in this file itself.

    CLAM and others write an axis of length one around a slide's features at times: it is dropped.

    Args:
        file: An open file.
        name: Of the dataset.
        columns: Its second length at least; any if None.

    Raises:
        ValueError: It is of another shape or kind, or larger than what is stored of it.
    """
    data = _own_numbers(file, name)
    wrapped = data.ndim == 3 and data.shape[0] == 1
    shape = data.shape[1:] if wrapped else data.shape
    if len(shape) != 2 or (columns is not None and shape[1] < columns):
        raise ValueError(f"{name} is {data.shape} {data.dtype}")
    values: NDArray[Any] = data[0] if wrapped else data[:]
    return values


def _own_numbers(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of numbers that lies in this file itself and is no larger than what is stored of it, or ValueError."""
    link, data = file.get(name, getlink=True), file[name]
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{name} is a group")  # noqa: TRY004  one kind of error for all that is wrong
    if not isinstance(link, h5py.HardLink) or data.external or data.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if data.dtype.kind not in "iuf" or not data.shape:
        raise ValueError(f"{name} is {data.shape} {data.dtype}")
    stored = data.id.get_storage_size()
    if data.size > _MOST_VALUES or (data.nbytes > _LARGE_BYTES and data.nbytes > _LARGEST_RATIO * stored):
        raise ValueError(f"{name} is said to have {data.shape} values, of which {stored} bytes are stored")
    return data


def features_of_slide(path: Path) -> NDArray[np.float64]:
    """(d,) features of a slide, or the mean of those of its tiles; NaN where it has no tile.

    Raises:
        ExchangeError: The file cannot be read, or holds none.
    """
    with open_hdf5(path) as file:
        name = next((name for name in _FEATURES if name in file), None)
        if name is None:
            raise ValueError(f"no {' or '.join(_FEATURES)} in it")
        values = np.asarray(_own_numbers(file, name)[()], np.float64)
    if values.ndim == 1:
        return values
    tiles = values.reshape(-1, values.shape[-1])
    return tiles.mean(axis=0) if len(tiles) else np.full(tiles.shape[1], np.nan)


def read_corners(file: h5py.File) -> NDArray[Any]:
    """(n, 2) corners: the first two columns of `coords`, int64 where they are whole numbers."""
    return corners_of(read_dataset(file, "coords", columns=2))


def corners_of(coords: NDArray[Any]) -> NDArray[Any]:
    """(n, 2) first two columns of (n, k) coordinates: int64 where they are whole numbers, else of 32 bits at least.

    Raises:
        ValueError: They lie on no slide.
    """
    values = coords[:, :2]
    if values.dtype.kind == "f":
        return values.astype(np.promote_types(values.dtype, np.float32), copy=False)
    if values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise ValueError("coords lie on no slide")
    return values.astype(np.int64)


def read_features(file: h5py.File, name: str) -> NDArray[Any] | None:
    """(n, d) features of the file's own precision; None where there are none."""
    if name not in file:
        return None
    if isinstance(file[name], h5py.Dataset) and file[name].ndim == 1:
        raise ValueError(f"{name} is one vector, of a whole slide and not of its tiles")
    values = read_dataset(file, name)
    if values.dtype not in _FLOATS:
        raise ValueError(f"{name} is of {values.dtype}")
    return values


def write_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> Path:
    """Write a file, whole or not at all.

    Raises:
        OutputError: It cannot be written.
        ExchangeError: HDF5 cannot hold what another program's file states, or the name of a slide.
    """
    with atomic(path) as draft, h5py.File(draft, "w", track_order=True) as file:
        try:
            fill(file)
        except (TypeError, ValueError) as error:  # of Unicode too
            found = f"what its file or its name states cannot be written ({quoted_reason(error)})"
            raise ExchangeError(ascii(path.stem)[1:-1], found, "rename it, or extract it again") from None
    return path


def number(attributes: Mapping[str, Any], name: str) -> float | None:
    """A number among attributes that a slide can have; None where there is none, or the text None."""
    value = _first(attributes.get(name))
    try:
        found = math.nan if np.iscomplexobj(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if _LEAST < found < _MOST else None


def text(attributes: Mapping[str, Any], name: str) -> str:
    """A text among attributes, cut short; empty where there is none."""
    value = _first(attributes.get(name))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None else str(value)[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def _first(value: Any) -> Any:  # noqa: ANN401  of whatever kind an attribute is
    """The value of an attribute, which R, MATLAB and others write as an array of one."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1)[0] if value.size else None
    return value
