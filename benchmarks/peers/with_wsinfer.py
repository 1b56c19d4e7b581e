"""WSInfer: its segmentation and patching, and its data set of patches."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from wsinfer.modellib.data import WholeSlideImagePatches
from wsinfer.patchlib import segment_and_patch_one_slide

from benchmarks.peers.peer import MPP, TILE_PX, Origin, run


def find(path: Path) -> int:
    """Its defaults; it writes coordinates and pictures to a folder."""
    with tempfile.TemporaryDirectory() as folder:
        segment_and_patch_one_slide(
            slide_path=path, save_dir=Path(folder), patch_size_px=TILE_PX, patch_spacing_um_px=MPP
        )
        with h5py.File(Path(folder) / "patches" / f"{path.stem}.h5") as file:
            return len(file["coords"])


def read(path: Path, origins: Iterable[Origin]) -> int:
    """Patch after patch."""
    with tempfile.TemporaryDirectory() as folder:
        patches = Path(folder) / "patches.h5"
        with h5py.File(patches, "w") as file:
            coords = file.create_dataset("/coords", data=np.array(list(origins)))
            coords.attrs.update({"patch_size": TILE_PX, "patch_level": 0, "patch_spacing_um_px": MPP})
        data = WholeSlideImagePatches(wsi_path=path, patch_path=patches)
        data.worker_init()
        return sum(np.asarray(data[i][0]).size > 0 for i in range(len(data)))


if __name__ == "__main__":
    run("wsinfer", find, read)
