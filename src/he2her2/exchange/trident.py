"""TRIDENT's files: `<slide>_patches.h5` with coordinates, `features_<encoder>/<slide>.h5` with features beside them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from he2her2.errors import ExchangeError
from he2her2.exchange.hdf5 import number, open_hdf5, read_corners, read_features, text, write_hdf5
from he2her2.exchange.stored_tiles import NO_SIDE, StoredTiles
from he2her2.geometry import Size
from he2her2.units import is_close_mpp

_POWERS = (80, 60, 40, 20, 10, 5)
_COORDS_ENDING = "_patches"
_LONGEST_NAME = 80
_IDENTITY, _MADE_OF, _SLIDE = "encoder_sha256", "made_of", "slide"  # attributes of ours beside TRIDENT's


def is_trident(file: h5py.File) -> bool:
    """True if an open file is of this layout."""
    return "coords" in file and "patch_size_level0" in file["coords"].attrs


def read_trident(path: Path) -> StoredTiles:
    """Tiles of a file of coordinates, or of features.

    µm per px are known where a file of ours says them: TRIDENT itself states magnifications only.

    Raises:
        ExchangeError: It cannot be read.
    """
    with open_hdf5(path) as file:
        stated = dict(file["coords"].attrs)
        features = read_features(file, "features")
        encoder, identity = (
            (text(file["features"].attrs, name) for name in ("encoder", _IDENTITY))
            if features is not None
            else ("", "")
        )
        size = number(stated, "level0_width"), number(stated, "level0_height")
        side_px, power = number(stated, "patch_size"), number(stated, "target_magnification")
        return StoredTiles(
            slide_of(path),
            read_corners(file),
            side=number(stated, "side_level0") or number(stated, "patch_size_level0"),
            side_px=None if side_px is None else round(side_px),
            mpp_l0=number(stated, "mpp_level0"),
            features=features,
            encoder=encoder or encoder_of(path),
            identity=identity,
            size_l0=None if None in size else Size(*(round(length or 0) for length in size)),
            mpp=None if power is None else 10.0 / power,
            stated=stated,
            layout="trident",
        )


def write_trident(path: Path, tiles: StoredTiles, made_of: str = "", slide: str = "") -> Path:
    """Write coordinates, and features where there are any.

    Args:
        path: The file.
        tiles: Of the slide.
        made_of: SHA-256 of all that the file depends on, to be found by `made_of_trident`.
        slide: Path or address of the slide, to be found likewise.

    Raises:
        ExchangeError: The size of the tiles is unknown.
        OutputError: It cannot be written.
    """
    tiles = tiles.in_unit("px")
    if tiles.side is None:
        raise ExchangeError(tiles.slide_id, *NO_SIDE)
    attributes = trident_attributes(tiles)

    def fill(file: h5py.File) -> None:
        if tiles.features is not None:
            features = file.create_dataset("features", data=tiles.features)
            features.attrs.update({"name": tiles.slide_id, "savetodir": path.parent.name, "encoder": tiles.encoder})
            features.attrs.update({_IDENTITY: tiles.identity} if tiles.identity else {})
        coords = file.create_dataset("coords", data=tiles.places)
        coords.attrs.update(attributes)
        if made_of:
            file.attrs[_MADE_OF] = made_of
            file.attrs[_SLIDE] = slide

    return write_hdf5(path, fill)


def made_of_trident(path: Path) -> tuple[str, str]:
    """SHA-256 of all that a file of ours depends on, and path of its slide; empty for a file of others, or none."""
    try:
        with open_hdf5(path) as file:
            slide = file.attrs.get(_SLIDE)
            return text(file.attrs, _MADE_OF), slide if isinstance(slide, str) else ""  # not cut short
    except ExchangeError:
        return "", ""


def trident_attributes(tiles: StoredTiles) -> Mapping[str, Any]:
    """Attributes of TRIDENT's `coords`, with µm beside them; 'None' stands for what is unknown, as there.

    Magnifications follow from µm per px (10 µm/px is 1x).
    """
    assert tiles.side is not None
    side_px = tiles.side_px or max(1, round(tiles.side))
    known: dict[str, Any] = {}
    if tiles.mpp_l0 is not None:
        mpp = tiles.side * tiles.mpp_l0 / side_px
        known = {"mpp": mpp, "mpp_level0": tiles.mpp_l0}
    if tiles.layout == "trident":
        return {**tiles.stated, **known}
    return {
        "patch_size": side_px,
        "patch_size_level0": round(tiles.side),
        "level0_magnification": "None" if tiles.mpp_l0 is None else magnification(tiles.mpp_l0),
        "target_magnification": "None" if tiles.mpp_l0 is None else magnification(known["mpp"]),
        "overlap": tiles.overlap_px,
        "name": tiles.slide_id,
        "savetodir": tiles.slide_id,
        "level0_width": "None" if tiles.size_l0 is None else tiles.size_l0.w,
        "level0_height": "None" if tiles.size_l0 is None else tiles.size_l0.h,
        "side_level0": tiles.side,
        **known,
    }


def slide_of(path: Path) -> str:
    """Name of the slide of a file.

    Example:
        >>> slide_of(Path("patches/A.1_patches.h5")), slide_of(Path("features_uni/A.1.h5"))
        ('A.1', 'A.1')
    """
    return path.name.removesuffix(path.suffix).removesuffix(_COORDS_ENDING)


def magnification(mpp: float) -> float:
    """Objective power that µm/px stand for by custom, within 10 %; 10 / mpp beyond.

    Example:
        >>> magnification(0.23), magnification(0.5), magnification(0.35)
        (40, 20, 28.57)
    """
    custom = (power for power in _POWERS if is_close_mpp(mpp, 10.0 / power))
    return next(custom, round(10.0 / mpp, 2))


def encoder_folder(encoder: str) -> str:
    """Name of TRIDENT's folder of an encoder's features; what no folder's name may hold becomes `_`.

    Example:
        >>> encoder_folder("hf-hub:Lab/UNI2-h"), encoder_folder("../up"), encoder_folder("")
        ('features_hf-hub_Lab_UNI2-h', 'features_.._up', 'features_unknown')
    """
    safe = re.sub(r"[^\w.+-]+", "_", encoder)[:_LONGEST_NAME]
    return f"features_{safe or 'unknown'}"


def encoder_of(path: Path) -> str:
    """Encoder that TRIDENT's folder is named for; empty where it is named otherwise."""
    head, _, name = path.parent.name.partition("features_")
    return "" if head else name
