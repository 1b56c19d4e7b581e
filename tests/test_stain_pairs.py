"""Two stains of a patient: how one section lies against the other, found, set by hand, kept, and seen in Chromium."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage
from starlette.testclient import TestClient

from he2her2.errors import AnnotationError
from he2her2.preprocessing import align_sections
from he2her2.viewer.alignments import SectionPair, pair_of_json
from he2her2.viewer.app import make_app
from he2her2.viewer.catalogue import read_catalogue
from he2her2.viewer.reviews import Reviews
from tests.test_viewer_browser import go_to, see, settle, visit  # noqa: F401  a fixture
from tests.tissue_slides import GLASS, tissue_pixels, write_tissue
from tests.turned import turned
from tests.viewed_runs import serving

MPP = 0.25


def section(side=2048, seed=0):
    """(side, side, 3) H&E of a shape that looks the same at no turn and in no mirror."""
    pixels = tissue_pixels(side, 1.0, seed)
    mask = Image.new("L", (side, side))
    shape = [(0.3, 0.2), (0.62, 0.24), (0.8, 0.5), (0.66, 0.56), (0.7, 0.78), (0.42, 0.7), (0.24, 0.42)]
    ImageDraw.Draw(mask).polygon([(x * side, y * side) for x, y in shape], fill=1)
    return np.where(np.asarray(mask)[..., None] > 0, pixels, np.array(GLASS, np.uint8))


def mottled_core(seed, side=90):
    """(side, side, 3) disc of tissue that is denser here and there."""
    density = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 2)
    disc = np.hypot(*(np.mgrid[:side, :side] - side / 2)) < 0.4 * side
    tissue = 150 + 20 * (density / density.std())[..., None] * (1.0, 1.0, 0.5)
    return np.where(disc[..., None], tissue, GLASS).astype(np.uint8)


def as_ihc(pixels):
    """The same tissue in another stain: paler, and brown."""
    grey = pixels.mean(axis=2, keepdims=True)
    tissue = (np.abs(pixels.astype(int) - GLASS).max(axis=2, keepdims=True)) > 20
    return np.where(tissue, np.clip(grey * (0.5, 0.42, 0.3) + (112, 118, 130), 0, 255), pixels).astype(np.uint8)


# --- arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "shift", "mirrored"),
    [(0, (0, 0), False), (37, (9, -6), False), (199.5, (0, 8), False), (305, (4, 4), True)],
)
def test_a_section_in_another_stain_is_laid_by_its_tissue(turn, shift, mirrored):
    """Whatever its turn, shift and side, to a px or two of the small pictures."""
    small = np.asarray(Image.fromarray(section()).resize((220, 220), Image.Resampling.BOX))
    other, moved = turned(as_ihc(small), turn, shift, mirrored=mirrored)
    places = [(70.0, 70.0), (150.0, 110.0), (120.0, 150.0)]

    found = align_sections(small, other)

    assert found is not None
    assert found.mirrored == mirrored
    assert np.abs(found(np.array(places)) - moved(places)).max() < 2
    assert found.trusted


def test_other_tissue_is_not_taken_for_a_section_of_the_block():
    """A slide of another shape agrees too little, one of the same shape in its structure; glass with nothing."""
    small = np.asarray(Image.fromarray(section()).resize((220, 220), Image.Resampling.BOX))
    disc = np.where((np.hypot(*(np.mgrid[:220, :220] - 110)) < 90)[..., None], (190, 120, 170), GLASS).astype(np.uint8)
    ring = np.where((np.abs(np.hypot(*(np.mgrid[:220, :220] - 110)) - 80) < 12)[..., None], disc, GLASS).astype(
        np.uint8
    )

    found = align_sections(small, ring)
    core = align_sections(mottled_core(0), mottled_core(1))

    assert found is not None
    assert core is not None
    assert (found.trusted, core.trusted) == (False, False)
    assert core.agreement > 0.66  # the outline alone
    assert align_sections(small, np.full_like(small, GLASS)) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_way_back_is_the_way_back(mirrored):
    """There and back again is nowhere."""
    pair = SectionPair(31.0, 1.2, mirrored, 40.0, -7.0, "kept")

    def go(pair, place):
        flipped = complex(-place.real if pair.mirrored else place.real, place.imag)
        return pair.scale * np.exp(1j * np.radians(pair.turn)) * flipped + complex(pair.dx, pair.dy)

    assert go(pair.back, go(pair, 3 + 4j)) == pytest.approx(3 + 4j, abs=1e-5)
    assert pair.back.back.dx == pytest.approx(pair.dx, abs=1e-5)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"turn":1,"scale":0,"mirrored":false,"dx":0,"dy":0}', b"NaN",
                                  b'{"turn":1e999,"scale":1,"mirrored":false,"dx":0,"dy":0}'])  # fmt: skip
def test_what_does_not_say_how_slides_lie_is_refused(body):
    """Missing values, no scale, nothing finite."""
    with pytest.raises(AnnotationError, match="does not say how"):
        pair_of_json(body)


# --- the server --------------------------------------------------------------------------------------------------

JSON = {"content-type": "application/json"}
LIE = {"turn": 12.5, "scale": 1.02, "mirrored": True, "dx": 100.0, "dy": -3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """H&E, and IHC that was turned by 33 degrees, laid upside down and shifted; another slide of the same patient."""
    folder = tmp_path_factory.mktemp("stains")
    pixels = section()
    ihc, moved = turned(as_ihc(pixels), 33, (90, -40), mirrored=True)
    write_tissue(folder / "he.svs", pixels)
    write_tissue(folder / "ihc.svs", ihc)
    write_tissue(folder / "other.svs", tissue_pixels(1024, seed=5))
    rows = ("he,he.svs,p1,HE", "ihc,ihc.svs,p1,IHC", "other,other.svs,p1,IHC")
    (folder / "manifest.csv").write_text("\n".join(("slide_id,path,patient_id,stain", *rows)) + "\n")
    return folder, moved


@pytest.fixture
def client(folder, tmp_path):
    catalogue = read_catalogue([folder[0] / "manifest.csv"])
    with TestClient(make_app(catalogue, Reviews(tmp_path / "kept")), base_url="http://localhost") as client:
        yield client


def test_how_the_other_stain_lies_is_found_kept_and_forgotten(client, tmp_path):
    """Found from the tissue, kept from either side as a row of a table, forgotten on request."""
    found = client.get("/api/slides/he/beside/ihc").json()
    centred = client.get("/api/slides/he/beside/other").json()
    client.put("/api/slides/he/beside/ihc", json=LIE)
    kept, back = (client.get(f"/api/slides/{way}").json() for way in ("he/beside/ihc", "ihc/beside/he"))
    client.put("/api/slides/ihc/beside/he", json=back)
    again = client.get("/api/slides/he/beside/ihc").json()
    rows = (tmp_path / "kept/stain_pairs.csv").read_text().splitlines()
    client.put("/api/slides/he/beside/ihc", content=b"null", headers=JSON)

    assert (found["how"], found["mirrored"]) == ("found", True)
    assert found["turn"] == pytest.approx(33, abs=1)
    assert (centred["how"], centred["turn"], centred["dx"]) == ("centred", 0, -128)
    assert {key: kept[key] for key in LIE} == LIE
    assert {key: again[key] for key in LIE} == pytest.approx(LIE, abs=1e-4)
    assert len(rows) == 2
    assert client.get("/api/slides/he/beside/ihc").json()["how"] == "found"


def test_a_pair_that_the_manifest_does_not_name_is_refused(client):
    """Slides of other patients, and a table that holds something else."""
    assert client.get("/api/slides/he/beside/nobody").status_code == 404
    assert client.get("/api/slides/ihc/beside/other").status_code == 404  # of the same stain
    assert client.put("/api/slides/he/beside/ihc", content=b"{}", headers=JSON).status_code == 422
    far = LIE | {"scale": 5e-324}  # of which the way back is infinite
    assert client.put("/api/slides/he/beside/ihc", json=far).status_code == 422


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(folder):
    with serving(folder[0] / "manifest.csv", "--annotations", folder[0] / "kept") as url:
        yield url


def seen(page, name):
    """Darkness of the middle of a picture on screen."""
    box = page.locator(f"#picture-{name}").bounding_box()
    clip = {
        "x": box["x"] + box["width"] / 2 - 150,
        "y": box["y"] + box["height"] / 2 - 150,
        "width": 300,
        "height": 300,
    }
    shown = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L")
    return ndimage.gaussian_filter(255.0 - np.asarray(shown), 2)


def likeness(page):
    """Correlation of the two pictures on screen."""
    page.wait_for_timeout(400)
    return np.corrcoef(seen(page, "main").ravel(), seen(page, "pair").ravel())[0, 1]


def open_pair(page):
    page.keyboard.press("i")
    page.wait_for_function("() => window.he2her2.pair?.isOpen && document.getElementById('pair-said').textContent")
    settle(page)


def test_sections_lie_alike_on_screen(visit, url, folder):  # noqa: F811
    """Turned and mirrored back, at the same place, from whichever side one moves; the pointer is shown on the other."""
    page = visit(f"{url}#slide=he")
    open_pair(page)
    go_to(page, 1100, 900, 4.0)
    there = see(page, "v.pair.view()")
    alike = likeness(page)
    page.evaluate("() => window.he2her2.pair.goTo({ x: 900, y: 1000, zoom: 2 }, true)")
    settle(page)
    here = see(page, "v.main.view()")
    box = page.locator("#picture-main").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 150)
    page.mouse.move(box["x"] + 110, box["y"] + 160)
    pointer = see(page, "v.pair.toScreen(...v.pairing.pointer.place.map((um) => um / 0.25))")

    assert (there["x"], there["y"]) == pytest.approx(folder[1]((1100, 900)), abs=25)
    assert there["zoom"] == pytest.approx(4.0)
    assert folder[1]((here["x"], here["y"])) == pytest.approx((900, 1000), abs=25)
    assert alike > 0.8
    assert pointer == pytest.approx([110, 160], abs=0.5)
    assert "mirrored" in page.locator("#pair-said").inner_text()


def test_a_reviewer_lays_a_section_by_points(visit, url, folder):  # noqa: F811
    """Three places in both pictures; kept, in the link, and forgotten; turned by key about the middle."""
    page = visit(f"{url}#slide=he")
    open_pair(page)
    go_to(page, 1024, 1024, 5.0)
    page.keyboard.press(".")
    page.keyboard.press(".")
    skewed = likeness(page)
    page.keyboard.press("y")
    page.keyboard.press("y")
    page.keyboard.press("o")
    for place in ((800, 700), (1300, 1000), (1100, 1400)):
        click(page, "main", place)
        click(page, "pair", folder[1](place))
    said = page.locator("#pair-said").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_timeout(700)
    alike, link = likeness(page), page.url
    kept = (folder[0] / "kept/stain_pairs.csv").read_text().splitlines()
    way = see(page, "v.pairing.way")
    again = visit(link)
    again.wait_for_function("() => window.he2her2.pair?.isOpen && document.getElementById('pair-said').textContent")
    by_link = see(again, "v.pairing.way")
    page.keyboard.press("r")
    page.locator("#pair-said", has_text="by its tissue").wait_for()

    assert way["turn"] == pytest.approx(33, abs=0.5)
    assert way["scale"] == pytest.approx(1, abs=0.01)
    assert "Laid by 3 places" in said
    assert alike > max(0.8, skewed + 0.02)
    assert len(kept) == 2
    assert "lie=" in link
    assert by_link["dx"] == pytest.approx(way["dx"], abs=0.1)
    assert len((folder[0] / "kept/stain_pairs.csv").read_text().splitlines()) == 1
    assert see(page, "v.state.pinned") == -1


def test_what_is_set_is_kept_of_the_slides_that_it_was_set_on(visit, url, folder):  # noqa: F811
    """Also when the next slide is opened before it is saved; without a second picture the keys do nothing."""
    page = visit(f"{url}#slide=he")
    page.keyboard.press("o")
    page.keyboard.press(".")
    nothing = see(page, "v.pairing.points")
    open_pair(page)
    page.keyboard.press(".")
    page.keyboard.press("j")
    page.wait_for_selector("#case-title:text-is('ihc')")
    page.wait_for_timeout(900)
    kept = (folder[0] / "kept/stain_pairs.csv").read_text().splitlines()

    assert nothing is None
    assert [row.split(",")[:2] for row in kept[1:]] == [["he", "ihc"]]


def click(page, name, place):
    """Click a place of a slide."""
    stage = {"main": "v.main", "pair": "v.pair"}[name]
    x, y = see(page, f"{stage}.toScreen({json.dumps(list(map(float, place)))[1:-1]})")
    box = page.locator(f"#picture-{name}").bounding_box()
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_timeout(350)
