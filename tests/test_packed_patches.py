"""Patches as lossless pictures: the same training on a machine without slides."""

import numpy as np
from experiments.packed_patches import pack, unpack

from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN
from he2her2.training.tumour.patch_sets import Patches, PatchFile, concatenate, patches_of_set
from tests.test_tumour_training import jpeg_set

SPEC = LITE0_TUMOUR_CNN.input


def drawn_patches(n: int, rng: np.random.Generator) -> Patches:
    """Patches of slides, at the network's size."""
    pixels = rng.integers(0, 256, (n, SPEC.network_px, SPEC.network_px, 3), np.uint8)
    nothing, names = np.full(n, ""), np.array([f"p{k}" for k in range(n)])
    return Patches(pixels, np.arange(n) % 2, names, np.full(n, "site"), np.zeros(n, np.int64), nothing)


def test_what_windows_see_comes_back(tmp_path):
    """Of a set that is enlarged, one that is narrower than the window, and slides; each in its least pixels."""
    rng = np.random.default_rng(0)
    coarse = tmp_path / "coarse.npz"
    np.savez(
        coarse,
        patch=rng.integers(0, 256, (70, 50, 50, 3), np.uint8),
        invasive=(np.arange(70) % 2).astype(np.uint8),
        patient=np.arange(70) // 7,
    )
    narrow = jpeg_set(tmp_path / "narrow.npz", side=96)
    sets = (PatchFile(coarse, 4.0), PatchFile(narrow, 0.97))
    patches = concatenate([*(patches_of_set(file.path, SPEC, file.mpp) for file in sets), drawn_patches(3, rng)])

    pack(patches, sets, SPEC, tmp_path / "packed")
    found = unpack(tmp_path / "packed", SPEC)

    for shift in ((-1.0, -1.0), (0.0, 0.0), (1.0, 0.5)):
        seen, wanted = (p.windows(SPEC.network_px, np.array(shift)) for p in (found, patches))
        np.testing.assert_array_equal(seen, wanted)
    for field in ("labels", "patients", "sources", "slack", "split"):
        np.testing.assert_array_equal(getattr(found, field), getattr(patches, field))
    # the narrow ones are of one colour each: half a window says all
    sheets = sorted(path.name for path in (tmp_path / "packed").glob("*.webp"))
    assert sheets == [
        "coarse_00_70_50_4.webp",
        "narrow_00_12_32_0.webp",
        "site_00_3_64_0.webp",
    ]  # narrow: of one colour
