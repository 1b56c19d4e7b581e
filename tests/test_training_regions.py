"""Annotations of a manifest on their slide: polygons and masks, at any resolution."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from he2her2.errors import AnnotationError
from he2her2.geometry import Point, Size
from he2her2.method.region_masks import read_mask, region_mask

SLIDE = SimpleNamespace(size_l0=Size(640, 320), bounds_origin_l0=Point(0, 0))


def write_png(path, mask, mode="L"):
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)
    return path


@pytest.mark.parametrize("px", [4, 8, 32, 64])
def test_a_mask_of_any_resolution_is_the_same_area(tmp_path, px):
    """A left half is a left half, however fine the picture is."""
    drawn = np.zeros((320 // px, 640 // px), bool)
    drawn[:, : 320 // px] = True

    found = region_mask(SLIDE, write_png(tmp_path / "m.png", drawn), Size(20, 10), 32.0)

    assert found.shape == (10, 20)
    assert found[:, :10].all()
    assert not found[:, 10:].any()


def test_a_mask_does_not_reach_beyond_the_slide(tmp_path):
    """The last pixels of a mask may lie outside; nothing is annotated there."""
    drawn = np.ones((10, 20), bool)

    found = region_mask(SLIDE, write_png(tmp_path / "m.png", drawn), Size(12, 6), 64.0)

    assert found[:5, :10].all()
    assert not found[5:].any()
    assert not found[:, 10:].any()


def test_polygons_and_masks_agree(tmp_path):
    """The same rectangle, drawn in QuPath or painted."""
    ring = [[64, 32], [320, 32], [320, 160], [64, 160], [64, 32]]
    polygon = tmp_path / "p.geojson"
    polygon.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    drawn = np.zeros((10, 20), bool)
    drawn[1:5, 2:10] = True
    mask = write_png(tmp_path / "m.png", drawn)

    painted = region_mask(SLIDE, mask, Size(40, 20), 16.0)
    np.testing.assert_array_equal(region_mask(SLIDE, polygon, Size(40, 20), 16.0), painted)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_any_kind_of_picture_is_read(tmp_path, mode):
    """Black is outside, whatever the picture's colours and transparency."""
    drawn = np.eye(4, dtype=bool)

    np.testing.assert_array_equal(read_mask(write_png(tmp_path / "m.png", drawn, mode)), drawn)


def test_a_mask_of_another_shape_is_refused(tmp_path):
    """It cannot be a mask of the whole slide."""
    file = write_png(tmp_path / "m.png", np.ones((20, 20), bool))

    with pytest.raises(AnnotationError, match="640 x 320"):
        region_mask(SLIDE, file, Size(20, 10), 32.0)


def test_a_broken_mask_is_one_line(tmp_path):
    """So is one that is missing."""
    broken = tmp_path / "m.png"
    broken.write_bytes(b"\x89PNG\r\n")

    for file in (broken, tmp_path / "none.png"):
        with pytest.raises(AnnotationError, match=file.name):
            region_mask(SLIDE, file, Size(20, 10), 32.0)
