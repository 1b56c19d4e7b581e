"""CLAM's files: coordinates in `patches/`, features in `h5_files/` (HDF5) and `pt_files/` (torch), a file a slide."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError  # the kind of error only: nothing is unpickled here
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ExchangeError
from he2her2.exchange.hdf5 import number, open_hdf5, quoted_reason, read_corners, read_features, write_hdf5
from he2her2.exchange.stored_tiles import StoredTiles
from he2her2.exchange.trident import encoder_of, read_trident
from he2her2.files import atomic
from he2her2.geometry import Size


def is_clam(file: h5py.File) -> bool:
    """True if an open file is of this layout: features are kept without any attribute."""
    return "coords" in file and ("patch_level" in file["coords"].attrs or "features" in file)


def read_clam(path: Path) -> StoredTiles:
    """Tiles of a file of coordinates, or of features with the coordinates of `../patches` beside their folder.

    µm per px are nowhere in CLAM's files.

    Raises:
        ExchangeError: It cannot be read.
    """
    if path.suffix == ".pt":
        return _read_pt(path)
    with open_hdf5(path) as file:
        stated = dict(file["coords"].attrs)
        corners, features = read_corners(file), read_features(file, "features")
    beside = _patches_beside(path)
    if not stated and beside is not None:
        stated = _stated(beside)
    side_px, downsample = number(stated, "patch_size"), number(stated, "downsample")
    if number(stated, "patch_level") and downsample is None:
        found = "its tiles are of a coarser level and it has no downsample, the level-0 px of one of its"
        raise ExchangeError(path.stem, found, "add it to the attributes of coords")
    return StoredTiles(
        path.stem,
        corners,
        side=None if side_px is None else side_px * (downsample or 1.0),
        side_px=None if side_px is None else round(side_px),
        features=features,
        size_l0=_size_l0(stated),
        stated=stated,
        layout="clam",
    )


def _size_l0(stated: Mapping[str, Any]) -> Size | None:
    """Width and height of level 0; None where the tiles are of a coarser one, or what is stated is no size."""
    sides = np.ravel(stated.get("level_dim", ())).tolist()
    known = [round(length) for side in sides if (length := number({"side": side}, "side")) is not None]
    is_level_0 = number(stated, "patch_level") is None
    return Size(*known) if is_level_0 and len(sides) == len(known) == 2 else None


def write_clam(folder: Path, tiles: StoredTiles) -> list[Path]:
    """Write `patches/` and, where there are features, `h5_files/` and (with torch) `pt_files/`.

    Raises:
        ExchangeError: µm cannot be made px.
        OutputError: They cannot be written.
    """
    tiles = tiles.in_unit("px")
    patches, h5, pt = clam_files(folder, tiles.slide_id)
    written = []
    if tiles.side is not None:
        written.append(write_hdf5(patches, lambda file: _fill_patches(file, tiles)))
    if tiles.features is not None:
        written.append(write_hdf5(h5, lambda file: _fill_features(file, tiles)))
        if find_spec("torch"):
            written.append(_write_pt(pt, tiles.features))
    return written


def clam_files(folder: Path, slide_id: str) -> tuple[Path, Path, Path]:
    """CLAM's files of a slide: coordinates, features, and features for torch."""
    return (
        folder / "patches" / f"{slide_id}.h5",
        folder / "h5_files" / f"{slide_id}.h5",
        folder / "pt_files" / f"{slide_id}.pt",
    )


def clam_files_read(path: Path) -> list[Path]:
    """The file itself, and those beside it that `read_clam` may take coordinates from."""
    beside = _h5_beside(path), _trident_beside(path), _patches_beside(path)
    return [path, *(file for file in beside if file is not None)]


def _fill_patches(file: h5py.File, tiles: StoredTiles) -> None:
    coords = _coords(file, tiles)
    own = tiles.layout == "clam" and "patch_level" in tiles.stated
    coords.attrs.update(tiles.stated if own else _attributes(tiles))


def _fill_features(file: h5py.File, tiles: StoredTiles) -> None:
    assert tiles.features is not None
    file.create_dataset("features", data=tiles.features, maxshape=(None, tiles.features.shape[1]))
    _coords(file, tiles)


def _coords(file: h5py.File, tiles: StoredTiles) -> h5py.Dataset:
    return file.create_dataset("coords", data=tiles.places, maxshape=(None, 2), chunks=(max(1, len(tiles)), 2))


def _attributes(tiles: StoredTiles) -> dict[str, Any]:
    """CLAM's attributes of tiles that are cut from level 0."""
    assert tiles.side is not None
    size = {} if tiles.size_l0 is None else {"level_dim": tiles.size_l0, "downsampled_level_dim": tiles.size_l0}
    return {
        "patch_size": round(tiles.side),
        "patch_level": 0,
        "downsample": (1.0, 1.0),
        **size,
        "name": tiles.slide_id,
        "save_path": "patches",
    }


def _patches_beside(path: Path) -> Path | None:
    """CLAM's file of coordinates of the same slide, next to the folder of features or to that one's."""
    places = (folder / "patches" / f"{path.stem}.h5" for folder in path.absolute().parents[1:3])
    return next((place for place in places if place.is_file()), None)


def _h5_beside(path: Path) -> Path:
    return path.parent.parent / "h5_files" / f"{path.stem}.h5"


def _trident_beside(path: Path) -> Path:
    return path.parent.parent / "patches" / f"{path.stem}_patches.h5"


def _stated(path: Path) -> dict[str, Any]:
    with open_hdf5(path) as file:
        return dict(file["coords"].attrs)


def _read_pt(path: Path) -> StoredTiles:
    """Features of a torch file, with the corners of CLAM's folders or TRIDENT's beside it; without where none are."""
    features = _tensor(path)
    h5, trident = _h5_beside(path), _trident_beside(path)
    if trident.is_file():
        found = replace(read_trident(trident), encoder=encoder_of(path))
    elif beside := h5 if h5.is_file() else _patches_beside(path):
        found = read_clam(beside)
    else:
        found = StoredTiles(path.stem, None, encoder=encoder_of(path))
    return replace(found, slide_id=path.stem, features=features)


def _tensor(path: Path) -> NDArray[Any]:
    """The one tensor of a file; nothing in it is executed."""
    torch = _torch(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        reason = f"{path} is no file of one tensor: it is damaged, or holds more, which is not read as it may run code"
        raise ExchangeError(path.stem, reason, "save the (n, d) tensor alone, or as docs/encoders.md says") from None
    except Exception as error:  # noqa: BLE001  torch raises whatever it meets
        reason = quoted_reason(error)
        raise ExchangeError(path.stem, f"{path} is no file of one tensor ({reason})", "extract it again") from None
    if not isinstance(found, torch.Tensor) or found.layout is not torch.strided or not found.is_floating_point():
        kind = "several values" if isinstance(found, (dict, list, tuple)) else "no plain tensor of floats"
        raise ExchangeError(path.stem, f"{path} holds {kind}", "give files of one (n, d) tensor, as CLAM's pt_files")
    found = found[0] if found.ndim == 3 and found.shape[0] == 1 else found
    if found.ndim != 2 or found.numel() * found.element_size() > found.untyped_storage().nbytes():
        raise ExchangeError(path.stem, f"{path} holds a tensor of {tuple(found.shape)}", "extract it again")
    exact = found.float() if found.dtype == torch.bfloat16 else found
    array: NDArray[Any] = exact.detach().numpy()
    return array


def _write_pt(path: Path, features: NDArray[Any]) -> Path:
    torch = _torch(path)
    with atomic(path) as draft:
        torch.save(torch.from_numpy(np.ascontiguousarray(features)).clone(), draft)
    return path


def _torch(path: Path) -> Any:  # noqa: ANN401  a module
    if not find_spec("torch"):
        raise ExchangeError(path.stem, f"{path} needs torch", "pip install 'he2her2[train]', or give CLAM's h5_files")
    import torch  # noqa: PLC0415  takes seconds to load

    return torch
