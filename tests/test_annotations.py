"""Annotations: the formats of each program, faults of files, and masks against shapely and against pictures."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from he2her2.ablation import AblationData, StudyFiles
from he2her2.cohort import SlideTask, annotation_lines, find_slides
from he2her2.errors import AnnotationError
from he2her2.geometry import Point, Size, SlideFrame
from he2her2.preprocessing import DrawnRegions, PaintedMask, Region, read_annotation
from he2her2.preprocessing.annotations.classes import NO_CLASS, use_of_words
from he2her2.results.rasters import RasterFrame, write_mask
from he2her2.slides import open_slide
from he2her2.training.slides import SlideData
from he2her2.training.tiles import TileData
from he2her2.training.tumour import TumourData
from tests.slide_files import synthetic_pixels, write_ndpi

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


@pytest.mark.parametrize(
    ("tumour", "other"),
    [
        ({"type": "Tumor", "prob": 0.9}, {"type": "Stroma", "prob": 0.8}),  # TIAToolbox
        ({"type": "Polygon", "name": "Tumor"}, {"type": "Polygon", "name": "Stroma"}),
        ({"terms": ["Tumor"]}, {"terms": ["Stroma"]}),  # Cytomine
        ({"class": {"id": 1, "title": "Tumor"}}, {"class": {"id": 2, "title": "Stroma"}}),
        ({"Class Name": "Tumor"}, {"Class Name": "Stroma"}),
        ({"label": [{"id": 1, "name": "Tumor"}]}, {"label": [{"id": 2, "name": "Stroma"}]}),
        ({"tissue_type": "Tumor"}, {"tissue_type": "Stroma"}),
        ({"label": 3, "name": "Tumor"}, {"label": 4, "name": "Stroma"}),
    ],
)
def test_classes_of_other_programs_are_read(tmp_path, tumour, other):
    """Regions whose class was not found had none, and all were tumour."""
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    features = [feature(square, tumour), feature(square, other)]

    read = regions_of(written(tmp_path, {"type": "FeatureCollection", "features": features}))

    assert [(region.name, region.use) for region in read] == [("Tumor", "tumour"), ("Stroma", "not used")]


def test_numbers_are_classes_to_choose_from(tmp_path):
    """Only the user knows the meaning of 1 and 2; both were tumour."""
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    features = [feature(square, {"label": number}) for number in (1, 2.0)]
    path = written(tmp_path, {"type": "FeatureCollection", "features": features})

    chosen = read_annotation(path, ["2"])

    assert chosen.classes == {"1": "not used", "2": "tumour"}
    with pytest.raises(AnnotationError, match=r"tumour by name: 1 \(1\), 2 \(1\); choose with --annotation-class"):
        read_annotation(path)


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

    mask = read_annotation(written(tmp_path, eight)).mask(Size(20, 20), 0.5, SlideFrame(Size(10, 10)))

    assert abs(mask.sum() / 4 - 50) < 3  # the diagonals may take a pixel of each row
    assert mask[10, 0]
    assert mask[10, 19]
    assert not mask[2, 10]


def sedeen(*images):
    overlays = "".join(
        f'<image identifier="{name}"><overlays><graphic type="{kind}" name="Region 0" description="{text}"><point-list>'
        + "".join(f"<point>{x},{y}</point>" for x, y in points)
        + "</point-list></graphic></overlays></image>"
        for name, kind, text, points in images
    )
    return f"<session>{overlays}</session>"


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
        ('<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"/>', "XML of another kind .<OME>"),
        ("{}", "not GeoJSON"),
        ({"type": "Topology"}, "not GeoJSON"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "2 points, which enclose nothing"),
        ({"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 0], [0, 0]]]}, "unreadable point 'a,0'"),
        ({"type": "Polygon", "coordinates": [[{"x": 1}, [1, 1], [2, 0]]]}, "unreadable point '{'x': 1}'"),
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


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\3\4 regions.geojson", "is a ZIP archive; unpack it"),
        (b"\x1f\x8b\x08", "is a gzip archive; unpack it"),
        (b"II*\0", "is a TIFF; save the mask as PNG"),
        (b"\xff\xd8\xff\xe0", "is a JPEG, .*; save the mask as PNG"),
        (bytes(128) + b"DICM", "is a DICOM file; export the annotations as GeoJSON"),
        ('{"type": "Tumör"}'.encode("cp1252"), "JSON in another encoding than UTF-8; save it as UTF-8"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_kind(tmp_path, content, problem):
    """Programs write annotations so, too: "neither XML nor JSON" does not say what to do."""
    (tmp_path / "regions").write_bytes(content)

    with pytest.raises(AnnotationError, match=problem):
        read_annotation(tmp_path / "regions")


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
    return DrawnRegions(tuple(regions)).mask(size, px_l0, SlideFrame(Size(1, 1)))


places = st.integers(-800, 3600).map(lambda quarters: quarters / 4)
corners = st.lists(st.tuples(places, places), min_size=3, max_size=12)


@given(outlines=st.lists(corners, min_size=1, max_size=3), px_l0=st.floats(7, 60))
def test_masks_agree_with_points_in_polygons(outlines, px_l0):
    """A pixel is in the mask where shapely has its centre in a region: holes, islands, borders and all."""
    valid = [shapely.make_valid(shapely.Polygon(outline)) for outline in outlines]
    areas = [[part for part in shapely.get_parts(whole) if part.area > 0] for whole in valid]
    regions = [Region(shapely.union_all(parts), "") for parts in areas if parts]
    x, y = np.meshgrid((np.arange(23) + 0.5) * px_l0, (np.arange(17) + 0.5) * px_l0)
    mask = mask_of(regions, Size(23, 17), px_l0)

    clear, inside = np.ones_like(mask), np.zeros_like(mask)
    for polygon in (region.polygon for region in regions):  # their union may be more than GEOS can compute
        clear &= shapely.distance(shapely.points(x, y), polygon.boundary) > 1e-6
        inside |= shapely.contains_xy(polygon, x, y)
    np.testing.assert_array_equal(mask[clear], inside[clear])


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

    moved = drawn.mask(Size(40, 40), 1.0, SlideFrame(Size(40, 40), Point(7, 3)))
    still = session.mask(Size(40, 40), 10.0, SlideFrame(Size(400, 400), Point(70, 30)))

    assert moved[3:13, 7:17].all()
    assert moved.sum() == 100
    np.testing.assert_array_equal(still, session.mask(Size(40, 40), 10.0, SlideFrame(Size(400, 400))))


NDPVIEW = """<?xml version="1.0" encoding="utf-8" standalone="yes"?>
<annotations>
 <ndpviewstate id="1"><title>Tumor</title><details/><coordformat>nanometers</coordformat><lens>1</lens><x>0</x><y>0</y>
  <annotation type="freehand" displayname="AnnotateFreehand" color="#000000"><measuretype>3</measuretype>
   <closed>1</closed><pointlist>
    <point><x>1020000</x><y>-490000</y></point><point><x>1060000</x><y>-490000</y></point>
    <point><x>1060000</x><y>-450000</y></point><point><x>1020000</x><y>-450000</y></point>
   </pointlist></annotation></ndpviewstate>
 <ndpviewstate id="2"><title>necrosis</title><coordformat>nanometers</coordformat>
  <annotation type="circle"><x>1040000</x><y>-470000</y><radius>5000</radius></annotation></ndpviewstate>
 <ndpviewstate id="3"><title>size</title><annotation type="linearmeasure"><x1>0</x1></annotation></ndpviewstate>
 <ndpviewstate id="4"><title>Tumor</title><annotation type="freehand"><closed>0</closed><pointlist>
    <point><x>0</x><y>0</y></point><point><x>9000</x><y>0</y></point><point><x>9000</x><y>9000</y></point>
   </pointlist></annotation></ndpviewstate>
</annotations>"""


@pytest.mark.parametrize("rings", [[5], [None], "abc", [{"x": 1}], None])
def test_an_ellipse_without_points_is_refused_in_words(tmp_path, rings):
    """As any other outline of QuPath that is damaged."""
    ellipse = {"type": "Polygon", "isEllipse": True, "coordinates": rings}
    with pytest.raises(AnnotationError, match="no usable region of tumour"):
        read_annotation(written(tmp_path, {"type": "Feature", "geometry": ellipse, "properties": {}}))


def test_ndpview_counts_from_the_centre_of_the_glass_slide(tmp_path):
    """In nm; rulers and open lines are no regions. The picture is 1 mm right of the centre and 0.5 mm above it."""
    drawn = read_annotation(written(tmp_path, NDPVIEW, "a.ndpi.ndpa"))
    path = write_ndpi(tmp_path / "a.ndpi", [synthetic_pixels(800, 400)], 0.25, (1_000_000, -500_000))
    with open_slide(path) as slide, open_slide(path, mpp=0.5) as stretched:
        found = drawn.mask(Size(800, 400), 1.0, slide.frame)
        same = drawn.mask(Size(800, 400), 1.0, stretched.frame)

    square = np.zeros((400, 800), bool)
    square[200 + 40 : 200 + 200, 400 + 80 : 400 + 240] = True
    y, x = np.mgrid[:400, :800] + 0.5
    circle = (x - 560) ** 2 + (y - 320) ** 2 < 20**2
    assert drawn.classes == {"Tumor": "tumour", "necrosis": "cut out"}
    assert (found ^ (square & ~circle)).sum() < 20  # the circle's rim
    np.testing.assert_array_equal(same, found)


def test_ndpview_needs_the_scanners_own_file(tmp_path):
    """Another file does not say where on the glass slide it is."""
    drawn = read_annotation(written(tmp_path, NDPVIEW))

    with pytest.raises(AnnotationError, match="centre of the glass slide"):
        drawn.mask(Size(8, 4), 100.0, SlideFrame(Size(800, 400)))
    with pytest.raises(AnnotationError, match="no closed region in it"):
        read_annotation(written(tmp_path, "<annotations></annotations>"))
    with pytest.raises(AnnotationError, match="coordinates in pixels"):
        read_annotation(written(tmp_path, NDPVIEW.replace("nanometers", "pixels")))


@pytest.mark.parametrize("name", ["a.ndpi.ndpa", "a.ndpa"])
def test_ndpviews_file_is_found_in_a_folder(tmp_path, name):
    """Under the name that the program gives it."""
    write_ndpi(tmp_path / "a.ndpi", [synthetic_pixels(800, 400)])
    (tmp_path / "drawn").mkdir()

    (task,) = find_slides([tmp_path / "a.ndpi"], annotations=written(tmp_path / "drawn", NDPVIEW, name).parent).tasks

    assert task.annotations == tmp_path / "drawn" / name


@pytest.mark.parametrize(("times", "off"), [(1, 0.0), (2, 1 - (300 / 400) ** 2), (10, 1.0)])
def test_how_much_of_the_tumour_is_off_the_slide(tmp_path, times, off):
    """As that of another slide, or drawn at another scale."""
    corners = [(100, 100), (300, 100), (300, 300), (100, 300), (100, 100)]
    ring = [[x * times, y * times] for x, y in corners]
    drawn = read_annotation(written(tmp_path, {"type": "Polygon", "coordinates": [ring]}))

    assert drawn.off_slide(SlideFrame(Size(500, 500))) == pytest.approx(off)


def write_png(path, mask, mode="L"):
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)
    return path


@pytest.mark.parametrize("px", [4, 8, 32, 64])
def test_a_mask_of_any_resolution_is_the_same_area(tmp_path, px):
    """A left half is a left half, however fine the picture is."""
    drawn = np.zeros((320 // px, 640 // px), bool)
    drawn[:, : 320 // px] = True

    found = read_annotation(write_png(tmp_path / "m.png", drawn)).mask(Size(20, 10), 32.0, SlideFrame(SIZE_L0))

    assert found.shape == (10, 20)
    assert found[:, :10].all()
    assert not found[:, 10:].any()


def test_a_mask_does_not_reach_beyond_the_slide(tmp_path):
    """The last pixels of a mask may lie outside; nothing is annotated there."""
    drawn = np.ones((10, 20), bool)

    found = read_annotation(write_png(tmp_path / "m.png", drawn)).mask(Size(12, 6), 64.0, SlideFrame(SIZE_L0))

    assert found[:5, :10].all()
    assert not found[5:].any()
    assert not found[:, 10:].any()


def test_a_mask_of_ours_comes_back_as_it_was(tmp_path):
    """Its last pixels reach over the border; taken to end with the slide, it was up to a pixel off, or refused."""
    drawn = np.random.default_rng(0).random((2, 23)) < 0.5
    frame, size = SlideFrame(Size(701, 35)), Size(23, 2)
    write_mask(tmp_path / "tumour.png", drawn, RasterFrame(31.7, 8.0, Point(0, 0)), "tumour")
    back = read_annotation(tmp_path / "tumour.png")

    found, on_another = back.mask(size, 31.7, frame), back.mask(size, 64.0, SlideFrame(Size(1472, 128)))

    np.testing.assert_array_equal(found, drawn & [[True], [False]])  # the centres of the last row are off the slide
    np.testing.assert_array_equal(on_another, drawn)  # the scale is another slide's: it ends with the slide


def test_polygons_and_masks_agree(tmp_path):
    """The same rectangle, drawn in QuPath or painted."""
    ring = [[64, 32], [320, 32], [320, 160], [64, 160], [64, 32]]
    polygon = tmp_path / "p.geojson"
    polygon.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    drawn = np.zeros((10, 20), bool)
    drawn[1:5, 2:10] = True
    mask = write_png(tmp_path / "m.png", drawn)

    painted = read_annotation(mask).mask(Size(40, 20), 16.0, SlideFrame(SIZE_L0))
    np.testing.assert_array_equal(read_annotation(polygon).mask(Size(40, 20), 16.0, SlideFrame(SIZE_L0)), painted)


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
        read_annotation(file).mask(Size(20, 10), 32.0, SlideFrame(SIZE_L0))


def test_a_broken_mask_is_one_line(tmp_path):
    """So is one that is missing."""
    broken = tmp_path / "m.png"
    broken.write_bytes(b"\x89PNG\r\n")

    for file in (broken, tmp_path / "none.png"):
        with pytest.raises(AnnotationError, match=file.name):
            read_annotation(file).mask(Size(20, 10), 32.0, SlideFrame(SIZE_L0))


def square(x0, y0, x1, y1):
    return {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]}


def classed(name, *box):
    return feature(square(*box), {"objectType": "annotation", "classification": {"name": name}})


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def area(annotation):
    """Area of the tumour in px², of a slide of 200 x 200."""
    return int(annotation.mask(Size(200, 200), 1.0, SlideFrame(Size(200, 200))).sum())


TUMOUR = classed("Tumor", 0, 0, 100, 100)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        *((name, "tumour") for name in (
            "Tumor", "tumour", "Tumeur infiltrante", "Invasive carcinoma NST", "IDC", "ILC (classic)", "Mammakarzinom",
            "Tumor: Positive", "Tumor: Negative", "metastases", "_0", "_1", "InvasiveTumor", "invasive_carcinoma",
            "Lymph node metastasis", "Breast Cancer", "carcinoma, not otherwise specified", "Tumör", "TUMOR 2",
            "Carcinoma of no special type", "HER2-negative tumor", "Invasive lobular carcinoma",
            "Invasive ductal carcinoma (not intraductal)", "tumor, no necrosis", "nothing but tumor",
            "small but invasive carcinoma", "not in situ but invasive carcinoma",
        )),
        *((name, "cut out") for name in (
            "Ignore*", "Exclusion", "exclude", "_2", "Necrosis", "Nécrose", "Nekrose", "normal", "Benign", "non-tumor",
            "DCIS", "carcinoma in situ", "in-situ tumor", "Artefact", "artifact", "hole", "necrosis not in-situ",
            "Tumor: Necrosis", "non-invasive carcinoma", "tumor-free", "healthy glands", "Necrotic tumor",
            "Tumorfrei", "tumorfreies Gewebe", "pas de tumeur", "libre de tumeur", "w/o tumor", "tumor absent",
            "Tumor (excl.)", "noninvasive carcinoma", "sem tumor", "zonder tumor", "uden tumor", "pre-malignant",
            "Intraductal carcinoma, noninfiltrating", "carcinome intracanalaire", "lobular neoplasia",
            "everything but tumor", "all tissue but tumor", "no in situ carcinoma", "folded tumor", "discard",
            "do not use: tumor",
        )),
        *((name, "not used") for name in (
            "Stroma", "Stroma: Negative", "Tissue", "tumor-associated stroma", "Tumor infiltrating lymphocytes",
            "Hors tumeur", "fuera del tumor", "ausserhalb des Tumors",
            "Peritumoral", "tumor margin", "suspicious for tumor", "Tumor?", "IDC + DCIS", "Immune cells", "roi",
            "tumor regression", "IDC with intraductal component", "intraepithelial lymphocytes",
        )),
        *((name, None) for name in ("Region*", "A7", "Positive", "t", "1", "precancerous")),
    ],
)  # fmt: skip
def test_class_names_say_what_they_are_for(name, use):
    """By the words of the field in several languages; nothing is read into others."""
    assert use_of_words(name) == use


def test_only_tumour_counts(tmp_path):
    """Context changes nothing, what is to be cut out is, wherever in the file it is."""
    parts = [
        classed("Necrosis", 10, 10, 30, 30),
        classed("Tissue", 0, 0, 200, 200),
        TUMOUR,
        classed("Ignore*", 90, 0, 150, 9),
    ]

    drawn = read_annotation(written(tmp_path, collection(*parts)))

    assert drawn.classes == {"Necrosis": "cut out", "Tissue": "not used", "Tumor": "tumour", "Ignore*": "cut out"}
    assert area(drawn) == 10_000 - 400 - 90


def test_a_file_without_tumour_is_refused(tmp_path):
    """The message lists its classes with the number of regions, and names the option."""
    file = written(tmp_path, collection(classed("Normal", 0, 0, 9, 9), *2 * [classed("Stroma", 0, 0, 9, 9)]))

    with pytest.raises(AnnotationError, match=r"Stroma \(2\), Normal \(1\); choose with --annotation-class"):
        read_annotation(file)


@pytest.mark.parametrize("chosen", ["region*", "Region", "REGION*"])
def test_a_class_is_chosen(tmp_path, chosen):
    """Whatever its name says; then other classes are no tumour, and exclusions still cut."""
    parts = [TUMOUR, classed("Region*", 100, 100, 200, 200), classed("Ignore*", 100, 100, 110, 200)]

    drawn = read_annotation(written(tmp_path, collection(*parts)), [chosen])

    assert drawn.classes == {"Tumor": "not used", "Region*": "tumour", "Ignore*": "cut out"}
    assert area(drawn) == 9_000


def test_a_chosen_class_holds_the_derived_ones(tmp_path):
    """Not others whose names begin alike."""
    parts = [classed("Cells: A", 0, 0, 10, 10), classed("Cells: B", 10, 0, 20, 10), classed("Cellss", 20, 0, 30, 10)]
    file = written(tmp_path, collection(*parts))

    assert area(read_annotation(file, ["cells"])) == 200
    assert area(read_annotation(file, ["Cells: B"])) == 100
    with pytest.raises(AnnotationError, match=r"none of its classes is Tumor or IDC; it has Cells: A \(1\)"):
        read_annotation(file, ["Tumor", "IDC"])


def test_regions_without_a_class(tmp_path):
    """They are the tumour of a file without classes, less exclusions; beside a tumour class they are not used."""
    bare = feature(square(0, 0, 50, 50), {"name": "left"})

    def read_area(*features):
        return area(read_annotation(written(tmp_path, collection(*features))))

    assert read_area(bare) == 2_500
    assert read_area(bare, classed("Ignore*", 0, 0, 10, 10)) == 2_400
    assert read_area(bare, classed("Tumor", 100, 0, 110, 10)) == 100
    with pytest.raises(AnnotationError, match=r"\(no class\) \(1\), Stroma \(1\)"):
        read_area(bare, classed("Stroma", 100, 0, 110, 10))


@pytest.mark.parametrize(
    "program", [{"objectType": "detection"}, {"objectType": "tile"}, {"objectType": "cell"}, {"objectType": "root"},
                {"object_type": "detection"}, {"objectType": "tma_core"}]
)  # fmt: skip
def test_what_a_program_found_is_no_annotation(tmp_path, program):
    """QuPath's detections, tiles, cells, cores and root do not count, whatever their class."""
    found = feature(square(0, 0, 200, 200), program | {"classification": {"name": "Tumor"}})

    assert area(read_annotation(written(tmp_path, collection(found, TUMOUR)))) == 10_000
    with pytest.raises(AnnotationError, match="export the annotations"):
        read_annotation(written(tmp_path, collection(found)))


def test_objects_of_older_qupath(tmp_path):
    """They name their kind in the id."""
    cell = feature(square(0, 0, 200, 200), {"classification": {"name": "Tumor"}}) | {"id": "PathCellObject"}

    assert area(read_annotation(written(tmp_path, collection(cell, TUMOUR | {"id": "PathAnnotationObject"})))) == 10_000


def test_a_bad_shape_is_skipped_and_named(tmp_path):
    """A click without area, unreadable and far points; the other shapes count."""
    click = classed("Tumor", 5, 5, 5, 5)
    nan = feature({"type": "Polygon", "coordinates": [[[0, 0], ["NaN", 5], [9, 9]]]}, {"name": "carcinoma 7"})
    far = feature({"type": "Polygon", "coordinates": [[[0, 0], [1e200, 5], [9, 9]]]}, {"name": "far"})

    drawn = read_annotation(written(tmp_path, collection(click, nan, far, TUMOUR)))

    assert area(drawn) == 10_000
    (warning,) = drawn.warnings
    assert warning.startswith("skipped 3 of 4 annotated shapes: region 'Tumor' has 1 point")
    assert "'carcinoma 7' has an unreadable point" in warning
    assert "'far' reaches beyond any slide" in warning


def asap(*annotations, groups=""):
    shapes = "".join(
        f'<Annotation Name="{name}" Type="Polygon" PartOfGroup="{group}"><Coordinates>'
        + "".join(
            f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(square(*box)["coordinates"][0])
        )
        + "</Coordinates></Annotation>"
        for name, group, box in annotations
    )
    found = f"<Annotations>{shapes}</Annotations><AnnotationGroups>{groups}</AnnotationGroups>"
    return f'<?xml version="1.0"?><ASAP_Annotations>{found}</ASAP_Annotations>'


@pytest.mark.parametrize(
    ("tumour", "other", "expected"),
    [("_0", "_2", 9_600), ("_1", "_2", 9_600), ("Tumor", "Exclusion", 9_600), ("metastases", "normal", 9_600),
     ("invasive tumor", "tumor-associated stroma", 10_000), ("None", "holes", 9_600)],
)  # fmt: skip
def test_asap_groups_are_classes(tmp_path, tumour, other, expected):
    """Those of CAMELYON16, CAMELYON17 and TIGER among them."""
    file = written(tmp_path, asap(("a", tumour, (0, 0, 100, 100)), ("b", other, (10, 10, 30, 30))))

    assert area(read_annotation(file)) == expected


def test_asap_groups_are_nested(tmp_path):
    """A group is of the class of the group that it is part of; circles of groups end."""
    groups = (
        '<Group Name="left" PartOfGroup="Tumor"/><Group Name="x" PartOfGroup="y"/><Group Name="y" PartOfGroup="x"/>'
    )
    parts = [("a", "left", (0, 0, 100, 100)), ("b", "x", (0, 0, 200, 200))]

    drawn = read_annotation(written(tmp_path, asap(*parts, groups=groups)))

    assert drawn.classes == {"Tumor: left": "tumour", "y: x": "not used"}
    assert area(drawn) == 10_000


def test_decimal_commas_of_asap(tmp_path):
    """As older versions write them in some countries."""
    file = written(tmp_path, asap(("a", "Tumor", (0, 0, 100, 100))).replace('"100"', '"100,4"'))

    assert area(read_annotation(file)) == 10_000


def imagescope(*regions, layer="Tumor", vertex="Vertex"):
    shapes = "".join(
        f'<Region Id="1" Type="{kind}" Text="{text}" NegativeROA="{negative}"><Vertices>'
        + "".join(f'<{vertex} X="{x}" Y="{y}" Z="0"/>' for x, y in points)
        + "</Vertices></Region>"
        for kind, text, negative, points in regions
    )
    return (
        f'<Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="{layer}"><Attributes/>'
        f"<Regions><RegionAttributeHeaders/>{shapes}</Regions></Annotation></Annotations>"
    )


BOX = [(0, 0), (100, 0), (100, 100), (0, 100)]
INNER = [(10, 10), (30, 10), (30, 30), (10, 30)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (imagescope((0, "", 0, BOX)), 10_000),
        (imagescope((0, "", 0, BOX), layer=""), 10_000),
        (imagescope((0, "", 0, BOX)).replace("<Annotations", '<Annotations xmlns="urn:x"'), 10_000),
        (imagescope((0, "", 0, BOX), layer="Layer 1"), 10_000),
        (imagescope((0, "", 0, BOX), (0, "", 1, INNER)), 9_600),
        (imagescope((0, "", 0, BOX), (0, "necrosis", 0, INNER)), 9_600),
        (imagescope((1, "", 0, [(100, 100), (0, 0)])), 10_000),
        (imagescope((2, "", 0, [(0, 0), (100, 100)])), 7_850),
        (imagescope((0, "", 0, BOX), (4, "", 0, [(0, 0), (200, 200)])), 10_000),
        (imagescope(("Polygon", "", 0, BOX), ("Ruler", "", 0, INNER), vertex="V"), 10_000),
        (imagescope(("Ellipse", "", 0, [(0, 0), (100, 100)]), vertex="V"), 7_850),
    ],
)
def test_imagescope_and_halo_are_read(tmp_path, content, expected):
    """Layers are classes; negative regions are holes in theirs; ellipses and rectangles are drawn by two corners."""
    assert abs(area(read_annotation(written(tmp_path, content))) - expected) < 11


@pytest.mark.parametrize(("stated", "mpp"), [("0.25", 0.25), ("0,25", 0.25), ("0.000000", None), ("", None)])
def test_the_scale_that_imagescope_states_is_kept(tmp_path, stated, mpp):
    """It writes 0 for a slide without one."""
    path = written(tmp_path, imagescope((0, "", 0, BOX)).replace('"0.25"', f'"{stated}"'))

    assert read_annotation(path).mpp == mpp


def test_a_negative_region_is_a_hole_of_its_own_layer(tmp_path):
    """What is taken out of the stroma may be the tumour."""
    stroma = imagescope((0, "", 0, BOX), (0, "", 1, INNER), layer="Stroma")
    tumour = imagescope((0, "", 0, INNER)).removeprefix('<Annotations MicronsPerPixel="0.25">')

    drawn = read_annotation(written(tmp_path, stroma.removesuffix("</Annotations>") + tumour))

    assert drawn.classes == {"Stroma": "not used", "Tumor": "tumour"}
    assert area(drawn) == 400


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0), (100, 60)], np.pi * 50 * 30),
        ([(0, 0), (100, 0), (100, 60), (0, 60)], np.pi * 50 * 30),
        ([(0, 30), (50, 0), (100, 30), (50, 60)], np.pi * 50 * 30),
        ([(0, 50), (50, 0), (100, 50), (50, 100)], np.pi * 50 * 50),
        ([(20, 80), (80, 20), (110, 50), (50, 110)], np.pi / 4 * 84.85 * 42.43),
    ],
)
def test_ellipses_are_ellipses(tmp_path, points, expected):
    """Drawn by a box of two or four corners, or by the ends of the axes."""
    file = written(tmp_path, sedeen(("s.svs", "ellipse", "Tumor", points)))

    assert area(read_annotation(file)) == pytest.approx(expected, rel=0.01)


def test_a_session_of_two_images_uses_the_slides_own(tmp_path):
    """By the name of the file, or by that without its ending."""
    session = sedeen(("D:\\scans\\A.svs", "polygon", "Tumor", BOX), ("/scans/B.svs", "polygon", "", INNER))
    file = written(tmp_path, session)

    assert area(read_annotation(file, slide=tmp_path / "a.svs")) == 10_000
    assert area(read_annotation(file, slide=tmp_path / "B.tiff")) == 400
    with pytest.raises(AnnotationError, match=r"2 images \(a.svs, b.svs\) and none of them C.svs"):
        read_annotation(file, slide=tmp_path / "C.svs")


def test_a_session_of_another_image_is_a_caution(tmp_path):
    """A slide may have been renamed."""
    drawn = read_annotation(written(tmp_path, sedeen(("a.svs", "polygon", "", BOX))), slide=tmp_path / "b.svs")

    assert area(drawn) == 10_000
    assert drawn.warnings == ("its annotations were drawn on an image of another name, a.svs",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "gbk", "iso-8859-1", "utf-8-sig"])
def test_encodings_of_xml(tmp_path, encoding):
    """Those that programs write."""
    path = tmp_path / "a.xml"
    text = asap(("a", "Tumör" if encoding != "gbk" else "Tumor", (0, 0, 100, 100)))
    path.write_bytes(text.replace('"1.0"', f'"1.0" encoding="{encoding.removesuffix("-sig")}"', 1).encode(encoding))

    assert area(read_annotation(path)) == 10_000


@pytest.mark.parametrize("encoding", ["x-foo", "utf-7", "rot13", "punycode"])
def test_unknown_encodings_of_xml_are_refused(tmp_path, encoding):
    """In one line."""
    file = written(tmp_path, f'<?xml version="1.0" encoding="{encoding}"?><ASAP_Annotations/>')

    with pytest.raises(AnnotationError, match=f"encoding '{encoding}', which cannot be read; save it as UTF-8"):
        read_annotation(file)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 300 + "]" * 300,
        '{"type":"GeometryCollection","geometries":[' * 300 + "]}" * 300,
        '{"type":"FeatureCollection","features":[' * 300 + "]}" * 300,
        '{"type":"Polygon","coordinates":' + "[" * 300 + "]" * 300 + "}",
        '{"type":"Polygon","coordinates":[[[1' + "0" * 400 + ",0],[1,1],[0,1]]]}",
        '{"type":"Polygon","coordinates":[[[1' + "0" * 5000 + ",0],[1,1],[0,1]]]}",
        '{"type":"Polygon","coordinates":{"a":1}}',
        '{"type":"Polygon","coordinates":7}',
        '{"type":"MultiPolygon","coordinates":"abc"}',
        '{"type":"Feature","geometry":{"type":"Polygon"},"properties":[1]}',
        '{"type":"Polygon","coordinates":[[["1\\n2",0],[1,1],[0,1]]]}',
        '{"type":"a\\nb"}',
        '"a\\nb"',
        sedeen(("a&#10;b", "polygon", "", [(0, 0)]), ("c", "polygon", "", [(0, 0)])),
        "null",
        '"text"',
        "<Annotations>" + "<a>" * 20_000 + "</a>" * 20_000 + "</Annotations>",
    ],
)
def test_hostile_files_are_one_line(tmp_path, content):
    """Deep, long or of the wrong types."""
    with pytest.raises(AnnotationError) as caught:
        read_annotation(written(tmp_path, content))

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_scribbles_are_filled_in_time(tmp_path):
    """By the even-odd rule, as a repair of the polygon would; without the repair, which takes minutes."""
    corners = np.random.default_rng(1).uniform(0, 60_000, (2_000, 2)).round(1)
    file = written(tmp_path, {"type": "Polygon", "coordinates": [[*corners.tolist(), corners[0].tolist()]]})
    ys = np.arange(937) * 64 + 32.0
    closed = np.vstack([corners, corners[:1]])

    mask = read_annotation(file).mask(Size(937, 937), 64.0, SlideFrame(Size(60_000, 60_000)))

    crossed = (closed[:-1, 1] <= ys[500]) != (closed[1:, 1] <= ys[500])
    (x0, y0), (x1, y1) = closed[:-1][crossed].T, closed[1:][crossed].T
    at = x0 + (ys[500] - y0) * (x1 - x0) / (y1 - y0)
    np.testing.assert_array_equal(mask[500], (at[:, None] < ys).sum(axis=0) % 2 == 1)


def test_outlines_without_end_are_refused(monkeypatch, tmp_path):
    """Filling them would take minutes."""
    monkeypatch.setattr("he2her2.preprocessing.annotations.masks._MAX_CROSSINGS", 300)

    with pytest.raises(AnnotationError, match="too often to be filled; draw them simpler"):
        area(read_annotation(written(tmp_path, collection(TUMOUR, TUMOUR))))


def test_holes_are_cut_even_where_they_leave_the_polygon(tmp_path):
    """What lies in a hole is outside, also beyond the outer ring."""
    ring, hole = (square(*box)["coordinates"][0] for box in ((0, 0, 100, 100), (50, 50, 150, 150)))

    assert area(read_annotation(written(tmp_path, {"type": "Polygon", "coordinates": [ring, hole]}))) == 7_500


def test_a_file_without_an_end_is_refused(tmp_path, monkeypatch):
    """A device says that it has no bytes; a link to it may lie among the annotations of others."""
    monkeypatch.setattr("he2her2.preprocessing.annotations.reading._MAX_BYTES", 1 << 16)
    (tmp_path / "a.geojson").symlink_to("/dev/zero")

    with pytest.raises(AnnotationError, match="has more than"):
        read_annotation(tmp_path / "a.geojson")


def test_names_are_one_line(tmp_path):
    """Control characters of a file do not reach the terminal."""
    drawn = read_annotation(written(tmp_path, collection(classed("Tumor\x1b[31m\n" + 500 * "x", 0, 0, 9, 9))))

    (name,) = drawn.classes
    assert name.isprintable()
    assert len(name) <= 80


@pytest.mark.parametrize(
    "inputs",
    [
        lambda file, chosen: SlideData(file, annotation_classes=chosen).inputs,
        lambda file, chosen: TileData(file, annotation_classes=chosen).inputs(0),
        lambda file, chosen: TumourData(manifests=(file,), annotation_classes=chosen).inputs(0),
        lambda file, chosen: AblationData(StudyFiles(file, {}), annotation_classes=chosen).inputs,
    ],
)
def test_the_choice_belongs_to_a_trainings_inputs(tmp_path, inputs):
    """A training of another choice is not gone on with; one without a choice is as it was."""
    file = written(tmp_path, "slide_id,path")

    assert inputs(file, ("IDC", "ILC"))["annotation_classes"] == ("IDC", "ILC")
    assert inputs(file, ())["annotation_classes"] is None


def test_trainings_tell_what_classes_are_used_for(tmp_path):
    """With the number of slides, and what was skipped where; unusable files are left to who works on them."""
    first, second = written(tmp_path, collection(TUMOUR), "a"), written(tmp_path, collection(TUMOUR), "b")
    bad = written(tmp_path, collection(classed("Stroma", 0, 0, 9, 9), classed("Tumor", 1, 1, 1, 1), TUMOUR), "c")
    files = {"a": first, "b": second, "c": bad, "d": written(tmp_path, "broken", "d"), "e": None}
    tasks = [SlideTask(name, tmp_path / f"{name}.svs", annotations=file) for name, file in files.items()]

    told = list(annotation_lines(tasks))

    assert told[0] == "annotations: Tumor: tumour (3 slides); Stroma: not used (1 slide)"
    assert told[1].startswith("CAUTION c: skipped 1 of 3 annotated shapes: region 'Tumor' has 1 point")
    assert len(told) == 2


def test_a_map_of_classes_is_no_mask_of_tumour(tmp_path):
    """A PNG of several values counted as tumour whole; its values are named, and one can be chosen."""
    labels = np.zeros((10, 20), np.uint8)
    labels[:4], labels[4:7, :10], labels[4:7, 10:] = 1, 2, 4
    file, coloured = tmp_path / "labels.png", tmp_path / "coloured.png"
    Image.fromarray(labels).save(file)
    Image.fromarray(np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[labels // 2]).save(coloured)

    chosen = read_annotation(file, ["1"])

    assert isinstance(chosen, PaintedMask)
    assert (chosen.pixels == (labels == 1)).all()
    with pytest.raises(AnnotationError, match=r"3 values beside 0: 1 \(57%\), 2 \(21%\), 4 \(21%\); choose with --an"):
        read_annotation(file)
    with pytest.raises(AnnotationError, match="no mask of one class"):
        read_annotation(file, ["Tumor"])
    with pytest.raises(AnnotationError, match=r"has no pixel of value 3, its pixels have 3 values beside 0"):
        read_annotation(file, ["3"])
    with pytest.raises(AnnotationError, match=r"has no pixel of value 255, its pixels have 2 values beside 0: #"):
        read_annotation(coloured, ["255"])
    with pytest.raises(AnnotationError, match=r"#ff0000 .*give a mask of 0 and one value"):
        read_annotation(coloured)


@pytest.mark.parametrize(("most", "other"), [(2, 1), (1, 7), (60, 200), ((0, 255, 0), (255, 0, 0)), ("P", 1)])
def test_a_map_of_classes_may_be_nearly_all_of_one(tmp_path, most, other):
    """BCSS and TIGER number their classes: a slide of 92 % stroma was tumour throughout."""
    has_palette, most = most == "P", 0 if most == "P" else most
    classes = np.broadcast_to(np.array(most, np.uint8), (10, 20, *np.shape(most))).copy()
    classes[:, :2] = 2 * has_palette
    classes[:7, 2:4] = other
    file = tmp_path / "classes.png"
    picture = Image.fromarray(classes)
    if has_palette:
        picture.putpalette([0, 255, 0, 255, 0, 0, 0, 0, 0])
    picture.save(file)

    with pytest.raises(AnnotationError, match=r"no mask of one class, its pixels have 2 values beside 0: .* \(92%\)"):
        read_annotation(file)


def test_a_chosen_value_that_is_not_there_is_no_tumour(tmp_path):
    """All that was painted counted as the chosen class where the picture did not have it, or hardly any of it."""
    other, large, nothing = np.zeros((40, 40), np.uint8), np.zeros((2500, 2500), np.uint8), np.zeros((9, 9), np.uint8)
    other[5:30, 5:30] = 1
    large[100:, 100:] = 1
    large[1, 1] = 3
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for file, pixels in zip(files, (other, large, nothing), strict=True):
        Image.fromarray(pixels).save(file)

    with pytest.raises(AnnotationError, match=r"has no pixel of value 3, its pixels have 1 value beside 0: 1 \(100%\)"):
        read_annotation(files[0], ["3"])
    small, unpainted = (read_annotation(file, ["3", "Tumor"]) for file in files[1:])
    assert isinstance(small, PaintedMask)
    assert isinstance(unpainted, PaintedMask)
    assert np.argwhere(small.pixels).tolist() == [[1, 1]]
    assert not unpainted.pixels.any()


@pytest.mark.parametrize("white_first", [True, False])
@pytest.mark.parametrize("clear", [True, False])
def test_the_colours_of_a_palette_decide(tmp_path, white_first, clear):
    """Not their indices: Pillow and others may put white at 0 and black at 1; what is transparent is not painted."""
    drawn = np.zeros((40, 40), bool)
    drawn[10:30, 10:30] = True
    picture = Image.fromarray(np.where(drawn, 1 - white_first, white_first).astype(np.uint8), "P")
    black = (90, 0, 0) if clear else (0, 0, 0)
    white = (255, 255, 255)
    picture.putpalette([*white, *black] if white_first else [*black, *white])
    file = tmp_path / "p.png"
    if clear:
        picture.save(file, transparency=bytes([255, 0] if white_first else [0, 255]))
    else:
        picture.save(file)

    found = read_annotation(file)

    assert isinstance(found, PaintedMask)
    np.testing.assert_array_equal(found.pixels, drawn)


def test_an_index_of_a_palette_may_be_chosen(tmp_path):
    """A map of classes: its index is the class, whatever its colour; without a choice the classes are listed."""
    classes = np.zeros((40, 40), np.uint8)
    classes[5:20, 5:35], classes[25:35, 5:35] = 2, 3
    picture = Image.fromarray(classes, "P")
    picture.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 0, 0])
    picture.save(tmp_path / "classes.png")

    chosen = [read_annotation(tmp_path / "classes.png", [str(k)]) for k in (2, 3)]

    for k, found in zip((2, 3), chosen, strict=True):
        assert isinstance(found, PaintedMask)
        np.testing.assert_array_equal(found.pixels, classes == k)


@pytest.mark.parametrize("kind", ["grey", "red", "palette", "clear"])
def test_a_smooth_edge_is_no_class(tmp_path, kind):
    """Values between 0 and 255, or shades of a colour, along the border of what is painted; or it is half clear."""
    smooth = np.zeros((40, 40), np.uint8)
    smooth[10:30, 10:30] = 255
    smooth[9, 10:30] = np.linspace(20, 240, 20)
    file = tmp_path / "smooth.png"
    picture = Image.fromarray(smooth)
    if kind == "red":
        picture = Image.fromarray(smooth[..., None] * np.array([1, 0, 0], np.uint8))
    elif kind == "palette":  # of 16 shades
        picture = Image.fromarray(np.ceil(smooth / 17).astype(np.uint8))
        picture.putpalette(np.repeat(17 * np.arange(16), 3).tolist())
    elif kind == "clear":
        picture = Image.merge("LA", (picture.point(lambda _: 255), picture))
    picture.save(file)

    found = read_annotation(file)

    assert isinstance(found, PaintedMask)
    assert (found.pixels == (smooth > 0)).all()


def test_painted_masks_have_one_class(tmp_path):
    """All that is painted is tumour."""
    assert read_annotation(write_png(tmp_path / "m.png", np.ones((9, 9), bool))).classes == {"(painted mask)": "tumour"}
