"""The layouts, recognised by what a file holds; a folder of files; and the way from one layout to another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from h5py import File

from he2her2.errors import ExchangeError, He2Her2Error, few_of
from he2her2.exchange.clam import clam_files, is_clam, read_clam, write_clam
from he2her2.exchange.hdf5 import open_hdf5
from he2her2.exchange.stamp import is_stamp, read_stamp, write_stamp
from he2her2.exchange.stored_tiles import StoredTiles
from he2her2.exchange.trident import encoder_folder, is_trident, read_trident, slide_of, write_trident
from he2her2.exchange.wsinfer import is_wsinfer, read_wsinfer, write_wsinfer

Layout: TypeAlias = Literal["trident", "clam", "stamp", "wsinfer"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_READERS: Mapping[Layout, tuple[Callable[[File], bool], Callable[[Path], StoredTiles]]] = {
    "stamp": (is_stamp, read_stamp),  # the first that fits: CLAM's files say least
    "trident": (is_trident, read_trident),
    "wsinfer": (is_wsinfer, read_wsinfer),
    "clam": (is_clam, read_clam),
}
_WRITERS: Mapping[Layout, Callable[[Path, StoredTiles], Path]] = {
    "stamp": write_stamp,
    "trident": write_trident,
    "wsinfer": write_wsinfer,
}
_PLACES = (".", "h5_files", "pt_files")
_ENDINGS = (".h5", ".hdf5", ".pt")


def layout_of(path: Path) -> Layout:
    """Layout of a file.

    Raises:
        ExchangeError: It cannot be read, or is of none that is known.
    """
    if path.suffix == ".pt":
        return "clam"
    with open_hdf5(path) as file:
        for name, (fits, _) in _READERS.items():
            if fits(file):
                return name
        held = few_of(sorted(file)) or "nothing"
    raise ExchangeError(str(path), f"holds {held}, which is no layout of {', '.join(LAYOUTS)}", "check the folder")


def read_tiles_file(path: Path, mpp_l0: float | None = None) -> StoredTiles:
    """Tiles of one slide from a file of any layout.

    Args:
        path: The file.
        mpp_l0: µm per level-0 px, over what the file says.

    Raises:
        ExchangeError: It cannot be read.
    """
    return _READERS[layout_of(path)][1](path).with_mpp(mpp_l0)


def tiles_files(folder: Path) -> Mapping[str, Path]:
    """Files of tiles in a folder, by slide: its own, else those of CLAM's `h5_files`, else of its `pt_files`.

    Raises:
        He2Her2Error: There is no such folder, it holds none, or two files are of one slide.
    """
    if not folder.is_dir():
        raise He2Her2Error(f"{folder}: there is no such folder; give the one with the slides' .h5 or .pt files")
    for place in _PLACES:
        found: dict[str, Path] = {}
        for path in sorted((folder / place).glob("*")):
            if path.suffix in _ENDINGS and path.is_file() and not path.name.startswith("."):
                slide_id = slide_of(path)
                if slide_id in found:
                    raise He2Her2Error(f"{folder}: {found[slide_id].name} and {path.name} are of one slide; keep one")
                found[slide_id] = path
        if found:
            return found
    inner = few_of(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    raise He2Her2Error(
        f"{folder}: holds no .h5 or .pt file; " + (f"give one of its folders {inner}" if inner else "check it")
    )


def write_tiles_files(folder: Path, tiles: StoredTiles, layout: Layout) -> list[Path]:
    """Write one slide's tiles as a program keeps them.

    Args:
        folder: Of the whole cohort; the program's own folders are made in it.
        tiles: Of the slide.
        layout: Of the program.

    Returns:
        The files.

    Raises:
        ExchangeError: The layout needs what is not known, such as µm.
        OutputError: They cannot be written.
    """
    if layout == "clam":
        return write_clam(folder, tiles)
    (file,) = files_to_write(folder, tiles, layout)
    return [_WRITERS[layout](file, tiles)]


def files_to_write(folder: Path, tiles: StoredTiles, layout: Layout) -> tuple[Path, ...]:
    """Files that `write_tiles_files` may write for a slide; arguments are the same."""
    match layout:
        case "clam":
            return clam_files(folder, tiles.slide_id)
        case "stamp":
            return (folder / f"{tiles.slide_id}.h5",)
        case "wsinfer":
            return (folder / "patches" / f"{tiles.slide_id}.h5",)
        case "trident" if tiles.features is None:
            return (folder / "patches" / f"{tiles.slide_id}_patches.h5",)
        case "trident":
            return (folder / encoder_folder(tiles.encoder) / f"{tiles.slide_id}.h5",)
