"""Annotations: the formats of each program, faults of files, and masks against shapely and against pictures."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from he2her2.errors import AnnotationError
from he2her2.geometry import Point, Size
from he2her2.preprocessing import ClassUse, DrawnRegions, PaintedMask, Region, read_annotation
from he2her2.preprocessing.annotations.classes import NO_CLASS, use_of_words

SEDEEN = """<?xml version="1.0" encoding="UTF-8"?>
<session software="Sedeen">
 <image identifier="slide.svs"><dimensions>2220,2967</dimensions>
  <overlays>
   <graphic type="polygon" name="Region 0" description="tumour">
    <pen color="#ff0000ff" width="3"/>
    <point-list><point>0,0</point><point>100.5,0</point><point>100.5,80</point><point>0,80</point></point-list>
   </graphic>
   <graphic type="rectangle" name="Region 1" description="">
    <pen color="#00ff00ff"/><point-list><point>200,200</point><point>300,260</point></point-list>
   </graphic>
   <graphic type="polyline" name="closed"><point-list>
    <point>0,0</point><point>9,0</point><point>9,9</point><point>0,0</point></point-list></graphic>
   <graphic type="polyline" name="open"><point-list>
    <point>0,0</point><point>9,0</point><point>9,9</point></point-list></graphic>
   <graphic type="dot" name="here"><point-list><point>5,5</point></point-list></graphic>
   <graphic type="text" name="note"/>
  </overlays>
 </image>
</session>"""

ASAP = """<?xml version="1.0"?>
<ASAP_Annotations>
 <Annotations>
  <Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58"><Coordinates>
   <Coordinate Order="1" X="10" Y="0"/><Coordinate Order="10" X="0" Y="10.5"/>
   <Coordinate Order="0" X="0" Y="0"/><Coordinate Order="2" X="10" Y="10.5"/></Coordinates></Annotation>
  <Annotation Name="Annotation 1" Type="Spline" PartOfGroup="None" Color="#F4FA58"><Coordinates>
   <Coordinate Order="0" X="20" Y="0"/><Coordinate Order="1" X="30" Y="0"/><Coordinate Order="2" X="30" Y="10"/>
  </Coordinates></Annotation>
  <Annotation Name="Annotation 2" Type="Dot" PartOfGroup="None" Color="#F4FA58"><Coordinates>
   <Coordinate Order="0" X="20" Y="0"/></Coordinates></Annotation>
 </Annotations>
 <AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group></AnnotationGroups>
</ASAP_Annotations>"""

SIZE_L0 = Size(640, 320)
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]


def feature(geometry, properties=None):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def written(tmp_path, content, name="regions"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def regions_of(path):
    drawn = read_annotation(path)
    assert isinstance(drawn, DrawnRegions)
    return drawn.regions


def read(tmp_path, content):
    return [(region.name, region.polygon.area) for region in regions_of(written(tmp_path, content))]


def test_sedeen_sessions_are_read(tmp_path):
    """Polygons, rectangles and closed lines are regions, their description is the class; the rest is none."""
    assert read(tmp_path, SEDEEN) == [("tumour", 100.5 * 80), (NO_CLASS, 6000.0), (NO_CLASS, 40.5)]


def test_asap_files_are_read(tmp_path):
    """Vertices come in their order, 10 after 2, and the group is the class."""
    assert read(tmp_path, ASAP) == [("Tumor", 105.0), (NO_CLASS, 50.0)]


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}, "Tumor"),
        ({"objectType": "annotation", "name": "left", "classification": {"name": "Tumor"}}, "Tumor"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}}, "Tumor: Positive"),
        ({"label": "invasive"}, "invasive"),
        ({"name": "tumour, left"}, "tumour, left"),
        ({"name": "left", "isLocked": False}, NO_CLASS),
        ({}, NO_CLASS),
        (None, NO_CLASS),
    ],
)
def test_qupath_classes_are_read(tmp_path, properties, name):
    """In every way of writing them; a name of its own counts where it says what the region is."""
    assert read(tmp_path, feature({"type": "Polygon", "coordinates": [SQUARE]}, properties)) == [(name, 100.0)]


def test_qupath_collections_are_read(tmp_path):
    """Holes are kept, islands are one region, points and lines are none."""
    islands = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [[[20, 0], [30, 0], [30, 10], [20, 0]]]]}
    collection = {
        "type": "FeatureCollection",
        "features": [
            feature(islands, {"classification": {"name": "Tumor"}}),
            feature({"type": "Point", "coordinates": [1, 1]}),
            feature({"type": "LineString", "coordinates": [[1, 1], [2, 2]]}),
            feature(None),
        ],
    }

    assert read(tmp_path, collection) == [("Tumor", 96.0 + 50.0)]


@pytest.mark.parametrize(
    "wrap", [lambda g: g, lambda g: [feature(g)], lambda g: {"type": "GeometryCollection", "geometries": [g]}]
)
def test_geojson_of_any_wrapping_is_read(tmp_path, wrap):
    """A bare geometry, a list of features, a collection of geometries."""
    assert read(tmp_path, wrap({"type": "Polygon", "coordinates": [SQUARE]})) == [(NO_CLASS, 100.0)]


def test_a_polygon_that_crosses_itself_is_filled(tmp_path):
    """Both lobes of an eight are kept."""
    eight = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}

    mask = read_annotation(written(tmp_path, eight)).mask(Size(20, 20), 0.5, Size(10, 10))

    assert abs(mask.sum() / 4 - 50) < 3  # the diagonals may take a pixel of each row
    assert mask[10, 0]
    assert mask[10, 19]
    assert not mask[2, 10]


def sedeen_with(points):
    return f'<session><image><overlays><graphic type="polygon" name="R">{points}</graphic></overlays></image></session>'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "neither XML nor JSON"),
        ("not a region", "neither XML nor JSON"),
        ("[" * 100_000, "neither XML nor JSON"),
        ("<session><image>", "broken XML"),
        ("<html><body/></html>", "XML of another kind"),
        ("{}", "not GeoJSON"),
        ({"type": "Topology"}, "not GeoJSON"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "2 points, which enclose nothing"),
        ({"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 0], [0, 0]]]}, "unreadable point 'a,0'"),
        ({"type": "Polygon"}, "unusable coordinates"),
        ({"type": "Polygon", "coordinates": []}, "no area"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9], [0, 0]]]}, "no area"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 5], [9, 9], [0, 0]]]}', "no numbers"),
        ({"type": "FeatureCollection", "features": []}, "no closed region"),
        (sedeen_with("<point-list><point>1,2</point><point>3,4</point></point-list>"), "2 points"),
        (sedeen_with("<point-list><point>1,2,3</point></point-list>"), "unreadable point '1,2,3'"),
        (sedeen_with("<point-list><point>here</point></point-list>"), "unreadable point 'here'"),
        (sedeen_with("<point-list><point>1,nan</point></point-list>"), "unreadable point '1,nan'"),
        (ASAP.replace('Order="10"', 'Order="last"'), "unusable coordinates"),
        (ASAP.replace('Y="10.5"', ""), "unreadable point"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, content, problem):
    """The message names the file and what is wrong, and says what to do."""
    path = written(tmp_path, content)

    with pytest.raises(AnnotationError, match=problem) as caught:
        read_annotation(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert ";" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entity_bombs_are_refused(tmp_path):
    """Entities are not expanded, neither ten thousandfold nor from a file."""
    bomb = '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><session>&b;</session>'
    theft = '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/hostname">]><session>&a;</session>'

    for content in (bomb, theft):
        with pytest.raises(AnnotationError, match="unsafe"):
            read_annotation(written(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path):
    """The operating system's reason is told."""
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotation(tmp_path / "nowhere.geojson")


def test_bytes_before_the_first_tag_do_not_hide_xml(tmp_path):
    """A byte-order mark, as Windows programs write it, is skipped."""
    path = tmp_path / "session.xml"
    path.write_bytes(b"\xef\xbb\xbf" + SEDEEN.encode())

    assert len(regions_of(path)) == 3


def mask_of(regions, size, px_l0):
    return DrawnRegions(tuple(regions)).mask(size, px_l0, Size(1, 1))


places = st.integers(-800, 3600).map(lambda quarters: quarters / 4)
corners = st.lists(st.tuples(places, places), min_size=3, max_size=12)


@given(outlines=st.lists(corners, min_size=1, max_size=3), px_l0=st.floats(7, 60))
def test_masks_agree_with_points_in_polygons(outlines, px_l0):
    """A pixel is in the mask where shapely has its centre in a region: holes, islands, borders and all."""
    drawn = [shapely.make_valid(shapely.Polygon(outline)) for outline in outlines]
    areas = [[part for part in shapely.get_parts(whole) if part.area > 0] for whole in drawn]
    regions = [Region(shapely.union_all(parts), "") for parts in areas if parts]
    x, y = np.meshgrid((np.arange(23) + 0.5) * px_l0, (np.arange(17) + 0.5) * px_l0)
    everything = shapely.union_all([region.polygon for region in regions])

    mask = mask_of(regions, Size(23, 17), px_l0)

    clear = shapely.distance(shapely.points(x, y), everything.boundary) > 1e-6
    np.testing.assert_array_equal(mask[clear], shapely.contains_xy(everything, x, y)[clear])


def test_holes_stay_empty():
    """A ring's hole is no tumour, and an island in it is."""
    ring = shapely.box(0, 0, 100, 100) - shapely.box(20, 20, 80, 80)

    mask = mask_of([Region(ring | shapely.box(40, 40, 60, 60), "")], Size(10, 10), 10)

    assert mask[0].all()
    assert not mask[3, 2:8].any()
    assert mask[4:6, 4:6].all()


@given(x=st.integers(0, 9), y=st.integers(0, 9))
def test_neighbours_that_share_an_edge_share_no_pixel(x, y):
    """A pixel centre on the edge belongs to one of both regions."""
    left, right = (Region(box, "") for box in (shapely.box(0, 0, x + 0.5, 10), shapely.box(x + 0.5, 0, 10, 10)))
    above, below = (Region(box, "") for box in (shapely.box(0, 0, 10, y + 0.5), shapely.box(0, y + 0.5, 10, 10)))

    for pair in ((left, right), (above, below)):
        first, second = (mask_of([region], Size(10, 10), 1.0) for region in pair)
        assert (first ^ second).all()


def test_regions_off_the_mask_leave_it_empty():
    """Nothing of it lies on the slide, and nothing breaks."""
    away = [Region(shapely.box(*box), "") for box in ((-90, -90, -10, -10), (500, 0, 600, 50), (0, 500, 50, 600))]

    assert not mask_of(away, Size(10, 10), 10).any()


def test_no_regions_are_an_empty_mask():
    """The pipeline may ask for none."""
    assert mask_of([], Size(4, 3), 32).shape == (3, 4)


def test_qupaths_regions_count_from_the_scanned_part(tmp_path):
    """The others count from the corner of level 0."""
    drawn = read_annotation(written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]}))
    session = read_annotation(written(tmp_path, SEDEEN))

    moved = drawn.mask(Size(40, 40), 1.0, Size(40, 40), Point(7, 3))
    still = session.mask(Size(40, 40), 10.0, Size(400, 400), Point(70, 30))

    assert moved[3:13, 7:17].all()
    assert moved.sum() == 100
    np.testing.assert_array_equal(still, session.mask(Size(40, 40), 10.0, Size(400, 400)))


def write_png(path, mask, mode="L"):
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)
    return path


@pytest.mark.parametrize("px", [4, 8, 32, 64])
def test_a_mask_of_any_resolution_is_the_same_area(tmp_path, px):
    """A left half is a left half, however fine the picture is."""
    drawn = np.zeros((320 // px, 640 // px), bool)
    drawn[:, : 320 // px] = True

    found = read_annotation(write_png(tmp_path / "m.png", drawn)).mask(Size(20, 10), 32.0, SIZE_L0)

    assert found.shape == (10, 20)
    assert found[:, :10].all()
    assert not found[:, 10:].any()


def test_a_mask_does_not_reach_beyond_the_slide(tmp_path):
    """The last pixels of a mask may lie outside; nothing is annotated there."""
    drawn = np.ones((10, 20), bool)

    found = read_annotation(write_png(tmp_path / "m.png", drawn)).mask(Size(12, 6), 64.0, SIZE_L0)

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

    painted = read_annotation(mask).mask(Size(40, 20), 16.0, SIZE_L0)
    np.testing.assert_array_equal(read_annotation(polygon).mask(Size(40, 20), 16.0, SIZE_L0), painted)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_any_kind_of_picture_is_read(tmp_path, mode):
    """Black is outside, whatever the picture's colours and transparency."""
    drawn = np.eye(4, dtype=bool)

    painted = read_annotation(write_png(tmp_path / "m.png", drawn, mode))

    assert isinstance(painted, PaintedMask)
    np.testing.assert_array_equal(painted.pixels, drawn)


def test_a_mask_of_another_shape_is_refused(tmp_path):
    """It cannot be a mask of the whole slide."""
    file = write_png(tmp_path / "m.png", np.ones((20, 20), bool))

    with pytest.raises(AnnotationError, match="640 x 320"):
        read_annotation(file).mask(Size(20, 10), 32.0, SIZE_L0)


def test_a_broken_mask_is_one_line(tmp_path):
    """So is one that is missing."""
    broken = tmp_path / "m.png"
    broken.write_bytes(b"\x89PNG\r\n")

    for file in (broken, tmp_path / "none.png"):
        with pytest.raises(AnnotationError, match=file.name):
            read_annotation(file).mask(Size(20, 10), 32.0, SIZE_L0)
