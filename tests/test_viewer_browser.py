"""The viewer in a real Chromium: what is seen, drawn, linked and read aloud."""

import csv
import io
import json
import re
import shutil
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from he2her2.csv_files import read_csv, write_csv
from he2her2.geometry import Point, Size
from he2her2.models import softmax
from he2her2.slides import open_slide
from tests.viewed_runs import give_patient, join_patient, serving, write_huge_slide, write_viewed_run

OTHER = "case 2 + <b>&"
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run."""
    return write_viewed_run(tmp_path_factory.mktemp("seen"))


@pytest.fixture(scope="module")
def url(run):
    with serving(run, "--manifest", run.parent / "manifest.csv") as url:
        yield url


@pytest.fixture(scope="module")
def slides_url(data_dir, tmp_path_factory):
    """Real slides without a run, and one of 100 000 x 80 000 px."""
    huge = write_huge_slide(tmp_path_factory.mktemp("huge") / "huge.svs")
    names = ("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif", "tcga-cr-7395-01a-01-ts1.svs")
    with serving(huge, *(data_dir / "slides" / name for name in names)) as url:
        yield url


@pytest.fixture
def visit(browser):
    """Open a page; an error in its scripts fails the test."""
    pages, faults = [], []

    def visit(address, *, ratio=1, scheme="light", width=1240):
        size = {"width": width, "height": 760}
        page = browser.new_page(viewport=size, device_scale_factor=ratio, color_scheme=scheme)
        pages.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" and _ours(said) else None)
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        settle(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not faults


def _ours(said):
    return "ailed to load" not in said.text  # pictures of slides that cannot be opened, or are gone


def settle(page):
    """Wait until nothing moves and all tiles are there."""
    still = """async () => {
        const stage = window.he2her2.main, item = () => stage.osd.world.getItemAt(0);
        let before = "";
        for (let i = 0; i < 80; i++) {
            await new Promise((done) => setTimeout(done, 40));
            const now = stage.isOpen ? JSON.stringify(stage.view()) : "";
            if (now === before && (!item() || item().getFullyLoaded())) return;
            before = now;
        }
    }"""
    page.evaluate(still)


def see(page, expression):
    return page.evaluate(f"() => {{ const v = window.he2her2; return {expression}; }}")


def go_to(page, x, y, zoom):
    page.evaluate("([x, y, zoom]) => window.he2her2.main.goTo({ x, y, zoom }, true)", [x, y, zoom])
    settle(page)


def screen(page, x_l0, y_l0):
    """Where a place of the slide is on the page."""
    box = page.locator("#picture-main").bounding_box()
    at = see(page, "v.main.transform()")
    return box["x"] + x_l0 * at["scale"] + at["dx"], box["y"] + y_l0 * at["scale"] + at["dy"]


def click_at(page, x_l0, y_l0):
    page.mouse.click(*screen(page, x_l0, y_l0))
    page.wait_for_timeout(350)  # two clicks in quick succession are a double click


def saved(page):
    page.locator("#saved", has_text="Saved").wait_for()


def stored_tiles(run, slide="case-1"):
    with h5py.File(run / "slides" / slide / "tiles.h5") as file:
        grid = dict(file["coords"].attrs)
        return file["coords"][:], file["scores"][:], file["selected"][:], grid


def regions_file(run, slide="case-1"):
    return run / "annotations" / f"{slide}.geojson"


# --- the list ----------------------------------------------------------------------------------------------------


def test_slides_are_found_sorted_and_opened(visit, url):
    """Search by any word, sort by what the run says, next and previous by key; a name is text, never markup."""
    page = visit(url)
    names = page.locator("#slides .name")

    assert names.all_text_contents() == ["broken", OTHER, "case-1", "case-1-ihc"]
    called = [slide for slide in see(page, "v.list.slides") if slide["state"] == "predicted"]
    for by, sign in (("margin", 1), ("probability", -1)):
        page.select_option("#sort", by)
        in_order = [slide["id"] for slide in sorted(called, key=lambda slide: sign * slide[by])]
        assert names.all_text_contents() == [*in_order, "broken", "case-1-ihc"]
    page.select_option("#sort", "failed")
    assert names.all_text_contents()[0] == "broken"
    page.select_option("#sort", "probability")
    page.keyboard.press("/")
    page.keyboard.type("2 +")
    assert names.all_text_contents() == [OTHER]
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#case-title:text-is('{OTHER}')")
    page.evaluate("v => { window.he2her2.list.slides[0].patient = v; }", "Mu\N{COMBINING DIAERESIS}ller")
    page.fill("#search", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller")
    assert len(names.all_text_contents()) == 1
    page.fill("#search", "failed")
    assert names.all_text_contents() == ["broken"]
    page.fill("#search", "")
    page.select_option("#sort", "name")
    page.locator("#stage").focus()
    page.keyboard.press("j")
    page.wait_for_selector("#case-title:text-is('case-1')")
    page.keyboard.press("k")
    page.wait_for_selector(f"#case-title:text-is('{OTHER}')")


def test_a_failed_slide_has_its_page(visit, url):
    """What failed, why, and what to do."""
    page = visit(f"{url}#slide=broken")

    assert page.locator("#case-body").inner_text().startswith("Failed: open")
    assert "What to do: give a slide" in page.locator("#case-body").inner_text()
    assert page.locator("#message").is_visible()


# --- the picture -------------------------------------------------------------------------------------------------


def test_a_patients_call_stands_above_the_slides(visit, run, tmp_path):
    """Of a patient of several slides; where the triage refers to IHC, no status is called."""
    own = shutil.copytree(run, tmp_path / "run")
    join_patient(own, "case-1", "broken", triage="refer to IHC")

    def without_threshold(route):
        """As weights call it that hold a triage alone."""
        answer = route.fetch()
        found = answer.json()
        found["patient_call"] |= {"status": "", "triage": "rule in"}
        route.fulfill(response=answer, json=found | {"result": None})  # its evidence is gone

    with serving(own) as url:
        page = visit(f"{url}#slide=case-1")
        words = page.locator("#case-body").inner_text()
        judged = page.locator("#judged").inner_text()
        page.route("**/api/slides/case-1", without_threshold)
        page.reload()
        page.wait_for_selector("body[data-ready]")
        calls = page.locator("#case-body .call").all_inner_texts()
        near = page.evaluate("import('/static/dom.js').then((dom) => dom.probability(0.4996, 0.5, null))")
        slide = {"state": "predicted", "status": "negative", "triage": "refer to IHC"}
        called = page.evaluate("slide => import('/static/case.js').then((one) => one.callOf(slide))", slide)

    assert judged == "On the call of this slide, not of the patient: negative"
    assert called == "refer to IHC"
    assert near == "0.4996"  # on its side of the threshold, as in `units.probability_text`
    assert calls == ["Rule in", "HER2 negative"]  # of the patient, and of the slide by the tables
    assert words.index("Patient p9") < words.index("Refer to IHC") < words.index("By this slide alone")
    assert "by one slide, 0.610. What the rules promise does not hold: 1 of its slides without a result." in words
    assert "HER2" not in words[: words.index("By this slide alone")]


def test_slides_of_a_patient_stand_together(visit, run, tmp_path):
    """Under the patient's name, each with its call beside the others; that they differ is said."""
    own = shutil.copytree(run, tmp_path / "run")
    give_patient(own, "case-1", OTHER, "broken")
    rows = read_csv(own / "predictions.csv")
    other = {"positive": "negative", "negative": "positive"}[rows[1]["status"]]
    rows[0] |= {"status": other, "probability": "0.9" if other == "positive" else "0.1"}
    write_csv(own / "predictions.csv", list(rows[0]), [list(row.values()) for row in rows], line_end="\r\n")
    with serving(own) as url:
        page = visit(f"{url}#slide=case-1")
        listed, case = page.locator("#slides").inner_text(), page.locator("#case-body").inner_text()
        page.get_by_role("link", name=OTHER).last.click()
        page.wait_for_function("name => document.getElementById('case-title').textContent === name", arg=OTHER)
        there = page.locator("#case-body").inner_text()
        page.select_option("#sort", "name")
        by_name = page.locator("#slides .patient").count()

    assert listed.splitlines()[0] == "p9 3 slides, called differently"
    assert "Other slides of patient p9" in case
    assert f"{OTHER}\n{rows[0]['status'] if rows[0]['slide_id'] == OTHER else rows[1]['status']}, " in case
    assert "broken\nfailed" in case
    assert "The slides of this patient are called differently, and no stored rule joins them." in case
    assert "case-1\n" in there
    assert by_name == 0


def test_pixels_on_screen_are_the_readers(visit, url, run):
    """Of a phantom-like JPEG slide with subsampled colours."""
    compare_screen(visit(f"{url}#slide=case-1"), run.parent / "case-1.svs", (1000, 1000))


@pytest.mark.parametrize(
    ("name", "centre", "ratio"),
    [
        ("CMU-1-Small-Region.svs", (1100, 1500), 1),
        ("CMU-1-Small-Region.svs", (1100, 1500), 2),
        ("OS-1-detail.ome.tif", (550, 550), 1),
        ("tcga-cr-7395-01a-01-ts1.svs", (2000, 2000), 1),
    ],
)
def test_real_pixels_on_screen_are_the_readers(visit, slides_url, data_dir, name, centre, ratio):
    """SVS, OME-TIFF and JPEG 2000 without µm per pixel, also on a screen of fine pixels."""
    slide = name.removesuffix(".svs").removesuffix(".ome.tif")

    compare_screen(visit(f"{slides_url}#slide={slide}", ratio=ratio), data_dir / "slides" / name, centre)


def compare_screen(page, path, centre):
    """Full resolution by key, then a screenshot beside what the reader gives."""
    go_to(page, centre[0] + 0.3, centre[1] + 0.4, 1.3)
    page.keyboard.press("f")
    page.keyboard.down(" ")
    settle(page)
    box = page.locator("#picture-main").bounding_box()
    clip = {"x": box["x"] + 200, "y": box["y"] + 100, "width": 240, "height": 200}
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))
    origin = page.evaluate("() => window.he2her2.main.toSlide(200, 100)")

    with open_slide(path, mpp=0.5 if "tcga" in path.name else None) as slide:
        expected = slide.read(Point(*map(round, origin)), Size(shown.shape[1], shown.shape[0]), slide.mpp)

    assert np.allclose(origin, np.round(origin))
    assert np.array_equal(expected, shown)


def test_a_slide_of_100_000_px_is_seen_whole_and_near(visit, slides_url):
    """From the first picture to full resolution, with its scale."""
    page = visit(f"{slides_url}#slide=huge")
    whole = page.locator("#hud-zoom").inner_text()
    page.keyboard.press("f")
    settle(page)

    assert see(page, "v.main.file.size") == [100_000, 80_000]
    assert float(whole[: whole.index(TIMES)]) < 0.5
    assert page.locator("#hud-zoom").inner_text() == f"40{TIMES} · 0.25 µm/px"
    assert page.locator("#scale-text").inner_text() == "20 µm"
    assert page.locator("#scale-bar").bounding_box()["width"] == pytest.approx(80, abs=4)


def test_keys_move_and_zoom(visit, url):
    """Arrows, plus, minus, and home."""
    page = visit(f"{url}#slide=case-1")
    start = see(page, "v.main.view()")

    page.keyboard.press("+")
    page.keyboard.press("+")
    settle(page)
    near = see(page, "v.main.view()")
    page.keyboard.press("ArrowRight")
    settle(page)
    right = see(page, "v.main.view()")
    page.keyboard.press("0")
    settle(page)

    assert near["zoom"] < 0.5 * start["zoom"]
    assert right["x"] > near["x"] + 50
    assert see(page, "v.main.view()") == pytest.approx(start, rel=1e-3)


TYPED = """(keys) => {
    const press = (key, with_) => new KeyboardEvent("keydown", { key, ...with_, bubbles: true });
    for (const [key, with_] of keys) document.body.dispatchEvent(press(key, with_));
    return window.he2her2.layers.inWords();
}"""


def test_keys_of_other_keyboards(visit, url):
    """Brackets by AltGr or Option, capitals by CapsLock; arrows in a part that scrolls are its own."""
    page = visit(f"{url}#slide=case-1")
    alt_gr = {"ctrlKey": True, "altKey": True, "modifierAltGraph": True}
    faint = page.evaluate(TYPED, [("[", alt_gr), ("[", {"altKey": True})])
    list_shown = page.locator("#list").is_visible()
    page.evaluate(TYPED, [("L", {"modifierCapsLock": True})])
    page.locator("#panel").focus()
    settle(page)
    before = see(page, "v.main.view()")
    page.keyboard.press("ArrowDown")
    settle(page)

    assert faint.startswith("tiles:25,")
    assert list_shown
    assert page.locator("#list").is_hidden()
    assert see(page, "v.main.view()") == before
    assert page.evaluate("document.querySelector('#panel').scrollTop") > 0


def test_a_slide_that_is_deleted_while_it_is_seen(visit, tmp_path):
    """The page says so, and what to do."""
    path = write_huge_slide(tmp_path / "gone.svs")
    with serving(path) as url:
        page = visit(url)
        path.unlink()
        page.keyboard.press("f")
        page.locator("#message").wait_for()

        assert "is gone" in page.locator("#message").inner_text()


# --- layers and tiles --------------------------------------------------------------------------------------------


def covered(page):
    """Share of the picture that something is drawn over."""
    return page.evaluate("""() => {
        const { canvas } = window.he2her2.main;
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let n = 0;
        for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
        return n / (canvas.width * canvas.height);
    }""")


def test_layers_switch_and_fade(visit, url):
    """By key, by box and by slider; Space shows the tissue alone for as long as it is held."""
    page = visit(f"{url}#slide=case-1")
    drawn = covered(page)

    page.keyboard.down(" ")
    muted = covered(page)
    page.keyboard.up(" ")
    page.keyboard.press("1")
    page.keyboard.press("2")
    without = covered(page)
    page.check("#layer-tissue")
    page.wait_for_function("() => window.he2her2.layers.get('tissue').image?.naturalWidth > 0")
    page.wait_for_timeout(100)
    tissue = covered(page)
    page.evaluate("""() => { const slider = document.getElementById("layer-tissue-opacity");
                             slider.value = "0.8"; slider.dispatchEvent(new Event("input")); }""")

    assert drawn > 0.05
    assert (muted, without) == (0, 0)
    assert tissue > drawn
    assert see(page, "v.layers.get('tissue').opacity") == 0.8


def test_the_heatmap_is_tiles_h5(visit, url, run):
    """Every cell of the picture is the mean of the tiles above it, in the colours of the other pictures."""
    from he2her2.results.palette import score_colours  # noqa: PLC0415

    page = visit(f"{url}#slide=case-1")
    coords, scores, _, grid = stored_tiles(run)
    coords, side = coords / 2, grid["side_level0"]  # so that tiles overlap, as those of a small tumour
    found = see(page, "(() => { const t = v.layers.tiles; t.values.origins = t.values.origins.map((x) => x / 2);"
                      " t._findLattice(); t.pictures.clear(); const c = t.picture(t.choice('scores'));"
                      " return { left: t.left, top: t.top, cell: t.cell, w: c.width, h: c.height,"
                      " data: [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }; })()")  # fmt: skip
    shown = np.array(found["data"]).reshape(found["h"], found["w"], 4)

    for row in range(found["h"]):
        for column in range(found["w"]):
            x, y = found["left"] + (column + 0.5) * found["cell"], found["top"] + (row + 0.5) * found["cell"]
            above = ((coords <= (x, y)) & (coords + side > (x, y))).all(axis=1)
            assert (shown[row, column, 3] > 0) == above.any()
            if above.any():
                expected = score_colours(np.array(scores[above].mean()))
                assert np.abs(shown[row, column, :3] - expected.astype(int)).max() <= 1


def test_a_tile_says_its_score_and_shows_its_pixels(visit, url, run):
    """Under the pointer its numbers; clicked, also its pixels; by key, the tiles that decided in order."""
    page = visit(f"{url}#slide=case-1")
    coords, scores, selected, grid = stored_tiles(run)
    order = np.argsort(-scores, kind="stable")
    index = int(order[3])
    x, y = coords[index] + grid["side_level0"] / 2
    go_to(page, float(x), float(y), 1.0)

    page.mouse.move(*screen(page, x, y))
    under = see(page, "v.state.hovered")
    said = page.locator("#tile").inner_text()
    bars = page.eval_on_selector_all("#tile .bar", "bars => bars.map((bar) => Number.parseFloat(bar.style.width))")
    click_at(page, x, y)
    picture = page.locator("#tile-body img")
    picture.wait_for()
    page.wait_for_function("() => document.querySelector('#tile-body img').naturalWidth > 0")
    page.keyboard.press("Escape")
    decided = []
    for _ in range(3):
        page.keyboard.press("n")
        decided.append(see(page, "v.state.pinned"))

    assert np.abs(coords[under] - coords[index]).max() <= grid["side_level0"] / 2
    assert f"{scores[under]:.2f}" in said
    with h5py.File(run / "slides" / "case-1" / "tiles.h5") as file:
        np.testing.assert_allclose(bars, 100 * softmax(file["logits"][:])[under], atol=0.01)
    case = page.locator("#case-body").inner_text().replace("\u202f", "")
    assert f"Tiles that decided\n{selected.sum()} of {len(scores)}\n" in case
    assert f"{int(np.flatnonzero(order == under)[0]) + 1} of {len(scores)}" in said.replace("\u202f", "")
    assert picture.evaluate("image => image.naturalWidth") == grid["patch_size"]
    assert decided == [int(i) for i in order if selected[i]][:3]


# --- regions, verdicts -------------------------------------------------------------------------------------------


def with_a_hole(run):
    """Cut a hole of 400 px into the first region; gives all of the file, and the area in px that is left of it."""
    kept = json.loads(regions_file(run).read_text())
    rings = kept["features"][0]["geometry"]["coordinates"]
    x, y = np.array(rings[0]).T
    rings.append([(700, 700), (1100, 700), (1100, 1100), (700, 1100), (700, 700)])
    regions_file(run).write_text(json.dumps(kept))
    return kept["features"], abs(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2 - 400**2


def test_regions_are_drawn_saved_and_there_again(visit, url, run):
    """Polygon, freehand, rectangle and view; after a reload they are where they were; one is deleted by key."""
    regions_file(run).unlink(missing_ok=True)
    page = visit(f"{url}#slide=case-1")
    page.keyboard.press("d")
    corners = [(500, 500), (1200, 560), (900, 1300)]
    for corner in corners:
        click_at(page, *corner)
    page.keyboard.press("Enter")
    saved(page)
    page.keyboard.press("g")
    page.mouse.move(*screen(page, 1400, 1400))
    page.mouse.down()
    for turn in np.linspace(0, 6, 24):
        page.mouse.move(*screen(page, 1400 + 150 * np.sin(turn), 1550 - 150 * np.cos(turn)))
    page.mouse.up()
    label = page.locator("#region-class-label").inner_text()
    page.select_option("#region-class", "Necrosis")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.mouse.move(*screen(page, 300, 1500))
    page.mouse.down()
    page.mouse.move(*screen(page, 600, 1700), steps=4)
    page.mouse.up()
    page.mouse.click(*screen(page, 300, 1800))
    nothing = page.locator("#saved").inner_text()
    page.keyboard.press("b")
    page.keyboard.press("v")
    page.wait_for_function("() => document.querySelectorAll('#regions li').length === 4")
    saved(page)
    page.wait_for_timeout(300)
    found, area = with_a_hole(run)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    shapes = [np.array(one["geometry"]["coordinates"][0]) for one in found]

    assert label == "Class of the selected region"  # whose class the list changes then
    assert nothing == "Not drawn: this line encloses no area."
    assert [one["properties"]["classification"]["name"] for one in found] == [
        "Tumor",
        "Necrosis",
        "Necrosis",
        "Necrosis",
    ]
    assert np.abs(shapes[0][:3] - corners).max() < 6  # half a px of the screen
    shown = page.locator("#regions .quiet").first.inner_text().removesuffix(" mm²")
    assert float(shown) == pytest.approx(area * see(page, "v.main.file.mpp") ** 2 / 1e6, rel=0.01)
    assert len(shapes[1]) > 10
    assert np.abs(shapes[2].min(axis=0) - (300, 1500)).max() < 6
    assert page.locator("#regions li").count() == 4
    page.locator("#regions .go").nth(3).click()
    page.locator("#stage").focus()
    page.keyboard.press("Delete")
    saved(page)
    page.wait_for_timeout(200)
    assert len(json.loads(regions_file(run).read_text())["features"]) == 3


def test_a_region_drawn_while_another_slides_is_being_saved_is_kept(visit, url, run):
    """The reviewer does not wait for the network."""
    regions_file(run).unlink(missing_ok=True)
    other_file = run / "annotations" / f"{OTHER}.geojson"
    other_file.unlink(missing_ok=True)
    page = visit(f"{url}#slide=case-1")
    held = []
    page.route("**/case-1/regions?version=*", lambda route: held.append(route))  # noqa: PLW0108  Playwright marks the function
    page.keyboard.press("v")
    page.wait_for_function("() => document.querySelector('#saved').textContent === 'Saving…'")
    page.keyboard.press("k")
    page.wait_for_selector(f"body[data-ready={json.dumps(OTHER)}]")
    page.keyboard.press("v")
    page.wait_for_timeout(300)
    held[0].continue_()
    saved(page)

    assert len(json.loads(regions_file(run).read_text())["features"]) == 1
    assert len(json.loads(other_file.read_text())["features"]) == 1
    other_file.unlink()


def test_a_slide_that_answers_late_does_not_take_the_place_of_a_later_one(visit, url):
    """The list, the case and the picture are of the slide that was chosen last."""
    page = visit(f"{url}#slide=case-1")
    held: dict[str, Any] = {}
    for name in ("broken", "case-1"):
        page.route(f"**/api/slides/{name}", lambda route: held.setdefault(route.request.url[-6:], route))
    page.locator("#slides a[data-id='broken']").click()
    page.wait_for_timeout(200)
    page.locator(f"#slides a[data-id={json.dumps(OTHER)}]").click()
    page.wait_for_selector(f"body[data-ready={json.dumps(OTHER)}]")
    page.locator("#slides a[data-id='case-1']").click()
    page.wait_for_timeout(200)
    held["broken"].continue_()
    page.wait_for_timeout(500)
    held["case-1"].continue_()
    page.wait_for_selector("body[data-ready=case-1]")

    assert page.locator("#slides a[aria-current=true]").get_attribute("data-id") == "case-1"
    assert page.locator("#case-title").inner_text().lower() == "case-1"


def test_a_verdict_is_given_by_key(visit, url, run):
    """And is in the table, in the list and after a reload; given again it is taken back."""
    page = visit(f"{url}#slide={OTHER.replace(' ', '%20').replace('+', '%2B').replace('&', '%26')}")
    page.select_option("#sort", "open")
    page.locator("#reviewer").press_sequentially("Dr X")  # x is no key meanwhile
    page.locator("#verdicts button").first.click()  # and no letter of a name afterwards
    page.keyboard.press("x")
    page.locator("#saved", has_text="Verdict saved: disagree").wait_for()
    page.fill("#comment", "stroma only")
    with page.expect_response("**/verdict"):
        page.locator("#comment").blur()
    with (run / "annotations/verdicts.csv").open(newline="") as file:
        rows = {row["slide_id"]: row for row in csv.DictReader(file)}
    page.keyboard.press("j")
    page.wait_for_selector("body[data-ready='case-1']")  # the next of the list as it was sorted
    held = []
    page.route(re.compile("/slides/case%202[^/]*$"), lambda route: held.append(route))  # noqa: PLW0108  as above
    page.keyboard.press("+")  # whose view would be written to the address by and by
    page.go_back()
    page.wait_for_timeout(400)
    while_it_loads = page.url
    held[0].continue_()
    page.unroute_all()
    page.wait_for_selector(f"body[data-ready={json.dumps(OTHER)}]")
    page.reload()
    page.wait_for_selector("body[data-ready]")

    assert "case-1" not in while_it_loads
    assert [rows[OTHER][name] for name in ("verdict", "comment", "reviewer")] == ["disagree", "stroma only", "Dr X"]
    assert page.input_value("#reviewer") == "Dr X"
    assert (
        page.locator("#given-by").inner_text() == f"Given by Dr X on {rows[OTHER]['time'][:16].replace('T', ' ')} UTC"
    )
    assert page.locator("#verdicts button[aria-pressed=true]").inner_text().lower() == "disagree"
    assert page.input_value("#comment") == "stroma only"


def verdict_of(run, slide):
    """Word and comment in the table; None where there is no row."""
    rows = {row["slide_id"]: row for row in read_csv(run / "annotations/verdicts.csv")}
    return (rows[slide]["verdict"], rows[slide]["comment"]) if slide in rows else None


def test_a_verdict_is_of_the_slide_that_is_seen(visit, url, run):
    """One given while the next slide loads takes nothing away; a comment is kept by Back, and by a click after it."""
    (run / "annotations/verdicts.csv").unlink(missing_ok=True)
    page = visit(f"{url}#slide=case-1")
    page.locator("#comment").press_sequentially("stroma")
    page.locator("#verdicts button").first.click(delay=150)  # by then a comment that is saved by itself would be kept
    page.locator("#saved", has_text="Verdict saved: agree").wait_for()
    held = []
    page.route(re.compile("/slides/case%202[^/]*$"), lambda route: held.append(route))  # noqa: PLW0108  as above
    page.keyboard.press("k")
    page.wait_for_timeout(100)
    page.keyboard.press("a")
    said = page.locator("#message").inner_text()
    held[0].continue_()
    page.wait_for_selector(f"body[data-ready={json.dumps(OTHER)}]")
    first = (verdict_of(run, "case-1"), verdict_of(run, OTHER))
    page.locator("#comment").press_sequentially("typed")
    page.go_back()
    page.wait_for_selector("body[data-ready=case-1]")
    page.wait_for_timeout(200)

    assert first == (("agree", "stroma"), None)
    assert f"{OTHER} was not shown yet" in said
    assert verdict_of(run, OTHER) == ("", "typed")
    (run / "annotations/verdicts.csv").unlink()


def test_what_is_not_saved_is_said_on_whatever_slide_is_seen(visit, url, run):
    """Of regions that were drawn on the slide before, and of a verdict that somebody else has changed."""
    page = visit(f"{url}#slide=case-1")
    page.route("**/case-1/regions?version=*", lambda route: route.fulfill(status=507, json={"message": "disk full"}))
    lost = page.locator("#message", has_text="case-1: disk full")
    page.keyboard.press("v")
    lost.wait_for()
    page.keyboard.press("k")
    page.wait_for_selector(f"body[data-ready={json.dumps(OTHER)}]")
    assert lost.is_visible()
    table = run / "annotations/verdicts.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text(f"slide_id,verdict,comment\n{OTHER},unsure,ask\n")
    page.keyboard.press("a")
    page.locator("#message", has_text="somebody else has given the verdict 'unsure'").wait_for()
    assert lost.is_visible()

    assert verdict_of(run, OTHER) == ("unsure", "ask")
    table.unlink()


def test_a_verdict_on_another_result_is_said_to_be_one(visit, url, run):
    """It is not shown as given on this one, and the same key judges anew rather than taking back."""
    table = run / "annotations/verdicts.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("slide_id,verdict,comment,time,call,probability\ncase-1,agree,,2026-01-01,positive,0.123456\n")
    page = visit(f"{url}#slide=case-1")
    said = page.locator("#outdated").inner_text()
    pressed = page.locator("#verdicts button[aria-pressed=true]").count()
    marked = page.locator("#slides a[data-id='case-1'] .marks span").get_attribute("aria-label")
    page.keyboard.press("a")
    page.locator("#saved", has_text="Verdict saved: agree").wait_for()

    assert said == '"agree" was given on another result: positive, 0.123. Judge this one anew.'
    assert pressed == 0
    assert marked == "review: agree, on another result"
    assert page.locator("#outdated").is_hidden()
    assert page.locator("#verdicts button[aria-pressed=true]").inner_text().lower() == "agree"
    table.unlink()


# --- links, two stains, looks ------------------------------------------------------------------------------------


def test_a_link_shows_the_same(visit, url):
    """Place, zoom, layers and their opacity, and the tile in hand."""
    page = visit(f"{url}#slide=case-1")
    page.keyboard.press("1")
    page.check("#layer-tissue")
    page.keyboard.press("n")
    settle(page)
    go_to(page, 900, 1100, 0.8)
    page.wait_for_timeout(400)
    link = page.url

    again = visit(link)
    page.evaluate("() => { location.hash = location.hash.replace(/tile=[0-9]+/, 'tile=7'); }")  # pasted where it was
    page.wait_for_function("() => window.he2her2.state.pinned === 7")

    assert see(again, "v.main.view()") == pytest.approx({"x": 900, "y": 1100, "zoom": 0.8}, rel=1e-3)
    assert see(again, "v.layers.inWords()") == see(page, "v.layers.inWords()") != "none"
    assert see(again, "v.state.pinned") == int(link.rpartition("tile=")[2].partition("&")[0])
    assert not again.locator("#layer-tiles").is_checked()
    assert again.locator("#layer-tissue").is_checked()


@pytest.mark.parametrize(
    "link",
    [
        "#slide=nobody",
        "#slide=%3Cscript%3E",
        "#x=NaN&y=&zoom=-1",
        "#slide=case-1&layers=:::,,&tile=x&zoom=0&x=1e99&y=2",
    ],
)
def test_a_link_that_makes_no_sense(visit_any, url, link):
    """Says so, or shows the slide."""
    page = visit_any(url + link)

    assert page.locator("#message").is_visible() or see(page, "v.main.isOpen")


@pytest.fixture
def visit_any(browser):
    """Open a page that need not come to show a slide."""
    pages, faults = [], []

    def visit(address):
        page = browser.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-ready], #message:visible")
        return page

    yield visit
    for page in pages:
        page.close()
    assert not faults


def test_two_stains_move_together(visit, url):
    """Centre on centre in µm, until they are moved apart on purpose and linked again."""
    page = visit(f"{url}#slide=case-1")
    page.keyboard.press("i")
    page.wait_for_function("() => window.he2her2.pair?.isOpen && document.getElementById('pair-said').textContent")
    settle(page)
    go_to(page, 1100, 900, 1.0)
    linked = see(page, "v.pair.view()")
    page.click("#link-pair")
    page.evaluate("() => window.he2her2.pair.goTo({ x: 300, y: 300, zoom: 1 }, true)")
    page.click("#link-pair")
    go_to(page, 1200, 1000, 1.0)
    moved = see(page, "v.pair.view()")

    assert linked == pytest.approx({"x": 1100 - 512, "y": 900 - 512, "zoom": 1.0}, abs=1)  # 2048 px beside 1024
    assert moved == pytest.approx({"x": 400, "y": 400, "zoom": 1.0}, abs=1)
    page.keyboard.press("i")
    assert not page.locator("#picture-pair").is_visible()


def test_light_and_dark(visit, url):
    """As the system has it, by key the other one, and kept."""
    background = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = visit(url), visit(url, scheme="dark")
    before = dark.evaluate(background)

    assert light.evaluate(background) != before
    dark.keyboard.press("t")
    assert dark.evaluate(background) == light.evaluate(background)
    dark.reload()
    dark.wait_for_selector("body[data-ready]")
    assert dark.evaluate(background) == light.evaluate(background)


def test_a_phone_shows_the_slide_and_its_notice(visit, url):
    """List and case lie over it, one at a time, when they are asked for."""
    page = visit(f"{url}#slide=case-1", width=390)
    seen = page.evaluate("document.elementFromPoint(195, 400).closest('.picture')?.id")
    page.click("#toggle-list")
    page.click("#toggle-panel")

    assert seen == "picture-main"
    assert page.locator("#notice").is_visible()
    assert "Research use only" in page.locator("#notice").inner_text()
    assert (page.locator("#list").is_visible(), page.locator("#panel").is_visible()) == (False, True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, url, scheme):
    """On a case with a tile in hand and two stains, in the help, and on a failed slide."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    found: list[object] = []

    def look(page):
        page.wait_for_timeout(250)
        found.extend(
            (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]][:3])
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical", "moderate")
        )

    page = visit(f"{url}#slide=case-1", scheme=scheme)
    page.keyboard.press("v")
    page.keyboard.press("n")
    page.keyboard.press("a")
    look(page)
    page.keyboard.press("i")
    page.wait_for_function("() => window.he2her2.pair?.isOpen")
    look(page)
    page.keyboard.press("?")
    look(page)
    look(visit(f"{url}#slide=broken", scheme=scheme))

    assert not found


FOCUSED = """() => {
    const node = document.activeElement;
    const name = node.id || node.dataset.act || node.dataset.id || node.className || node.tagName;
    const said = node.getAttribute("aria-label") || node.innerText || node.labels?.[0]?.innerText || node.placeholder;
    return [name, said || ""];
}"""
"""The element with the focus: a name for this test, and what a screen reader says."""


def test_everything_is_reached_by_tab(visit, url):
    """The first stop skips to the slide; list, tools, picture, strip, layers and review follow, each with a name."""
    page = visit(f"{url}#slide=case-1")
    stops = []
    for _ in range(90):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUSED))
    reached = {name for name, _ in stops}

    page.evaluate("document.querySelector('.skip').focus()")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)

    assert see(page, "v.list.current") == "case-1"  # a link within the page is none to a slide
    assert stops[0][0] == "skip"
    assert {
        "search",
        "case-1",
        "zoom-in",
        "openseadragon-canvas",
        "film",
        "layer-tiles",
        "comment",
        "region-class",
    } <= reached
    assert not [name for name, said in stops if not said.strip() and name != "BODY"]
