"""Files of other programs (TRIDENT, CLAM, STAMP, WSInfer): tiles and features, read and written in one place each."""

from he2her2.exchange.converting import Converted, convert_file
from he2her2.exchange.hdf5 import features_of_slide
from he2her2.exchange.layouts import (
    LAYOUTS,
    layout_of,
    read_tiles_file,
    tiles_files,
    write_tiles_files,
)
from he2her2.exchange.stored_tiles import StoredTiles
from he2her2.exchange.trident import made_of_trident, trident_attributes, write_trident

__all__ = [
    "LAYOUTS",
    "Converted",
    "StoredTiles",
    "convert_file",
    "features_of_slide",
    "layout_of",
    "made_of_trident",
    "read_tiles_file",
    "tiles_files",
    "trident_attributes",
    "write_tiles_files",
    "write_trident",
]
