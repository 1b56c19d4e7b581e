"""The viewer's server: what it shows, what it refuses, what it keeps."""

import asyncio
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from pathlib import Path
from threading import Thread
from unittest.mock import Mock
from urllib.parse import quote

import h5py
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import he2her2.viewer
from he2her2.csv_files import read_csv
from he2her2.errors import AnnotationError, ConfigError, EvaluationError, OutputError
from he2her2.geometry import Point, Size
from he2her2.preprocessing import read_annotation
from he2her2.slides import hatched, open_slide
from he2her2.viewer import Catalogue, Reviews, ViewedSlide, listen, make_app, read_catalogue
from he2her2.viewer.layers import picture, picture_layers
from he2her2.viewer.open_slides import OpenSlides
from he2her2.viewer.reviews import StaleError
from tests.made_up_runs import MadeUpSlide, write_labels, write_run
from tests.slide_files import SlideSpec, corrupt_tile, synthetic_pixels, write_slide
from tests.tissue_slides import QUICK, tissue_pixels, write_tissue
from tests.viewed_runs import write_viewed_run

HERE = "http://localhost:8842"
SLIDE = "/api/slides/case-1"
OTHER = "case 2 + <b>&"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run."""
    return write_viewed_run(tmp_path_factory.mktemp("viewed"))


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run that a test may change, with its slides beside it."""
    copy = tmp_path / "copy"
    shutil.copytree(run.parent, copy)
    tables = (copy / "run" / name for name in ("predictions.csv", "planned.csv"))
    for file in (*tables, *copy.glob("run/slides/*/prediction.json")):
        file.write_text(file.read_text().replace(str(run.parent), str(copy)))
    for file in copy.glob("run/slides/*/prediction.json"):
        record = json.loads(file.read_text())
        del record["sha256"]  # of the record as it was
        file.write_text(json.dumps(record))
    return copy / "run"


def client_of(folder, *, annotations=None, moved_to=None, **more):
    """A browser, as it were, at a viewer of a run."""

    def reread():
        return read_catalogue([folder], manifest=folder.parent / "manifest.csv", moved_to=moved_to)

    return TestClient(make_app(reread(), Reviews(annotations), reread=reread, **more), base_url=HERE)


@pytest.fixture
def client(run, tmp_path):
    with client_of(run, annotations=tmp_path / "annotations") as client:
        yield client


def version(client, slide=SLIDE):
    return client.get(slide).json()["file"]["version"]


def square(x=100, y=100, side=200, name="Tumor"):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}, "measurements": {"kept": 1}},
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_list_says_what_the_run_says(client, run):
    """All slides with call, probability, patient and partner; the failed one with reason and remedy."""
    listed = client.get("/api/slides").json()

    by_name = {slide["id"]: slide for slide in listed["slides"]}
    with (run / "predictions.csv").open(newline="") as file:
        rows = {row["slide_id"]: row for row in csv.DictReader(file)}
    assert set(by_name) == {"case-1", "case 2 + <b>&", "broken", "case-1-ihc"}
    for name, row in rows.items():
        assert by_name[name]["probability"] == float(row["probability"])
        assert by_name[name]["status"] == row["status"]
    assert by_name["case-1"]["partners"] == ["case-1-ihc"]
    assert by_name["case-1-ihc"]["partners"] == ["case-1"]
    assert by_name["broken"]["state"] == "failed"
    assert by_name["broken"]["failure"]["remedy"].startswith("give a slide")
    assert "untrained weights: the numbers mean nothing" in listed["notices"]
    assert {one["name"]: one["use"] for one in listed["region_classes"]}["Tumor"] == "tumour"


@pytest.mark.parametrize("slide", ["case-1", "case 2 + <b>&", "case-1-ihc", "broken"])
def test_every_slide_has_a_page(client, slide):
    """Also one that cannot be opened: it says why."""
    found = client.get(f"/api/slides/{quote(slide)}").json()

    assert found["id"] == slide
    assert (found["file"] is None) == (slide == "broken")
    assert bool(found["problems"]) == (slide == "broken")


def test_tiles_are_those_of_tiles_h5(client, run):
    """All columns of numbers, as they lie in the file; nothing is computed again."""
    described = client.get(SLIDE).json()["tiles"]

    with h5py.File(run / "slides/case-1/tiles.h5") as file:
        names = {column["name"] for column in described["columns"]}
        assert names >= {"scores", "logits", "selected", "attention"}
        for name in (*names, "origins"):
            found = np.frombuffer(client.get(f"{SLIDE}/columns/{name}").content, "<f4")
            stored = file["coords" if name == "origins" else name][:]
            assert np.array_equal(stored.astype(np.float32).ravel(), found)


def test_a_column_that_others_add_is_shown(own_run):
    """Any (n,) numbers of a tile, whoever wrote them; features are not, nor what is no number, which is said."""
    with h5py.File(own_run / "slides/case-1/tiles.h5", "a") as file:
        n = len(file["scores"])
        file["contributions"] = np.linspace(-1, 1, n)
        file["features"] = np.zeros((n, 512), np.float32)
        file["cluster"] = np.full(n, 3, np.uint8)
        file["nuclei"] = np.where(np.arange(n) == 1, np.nan, 1.0)
    page = client_of(own_run).get(SLIDE).json()
    columns = {one["name"]: one for one in page["tiles"]["columns"]}

    assert not {"features", "nuclei"} & columns.keys()
    assert page["problems"] == ["tiles.h5: nuclei is not shown, not all its values are numbers"]
    assert columns["cluster"]["high"] == 3
    assert (columns["contributions"]["low"], columns["contributions"]["high"]) == (-1, 1)


def test_tiles_need_no_scores_of_ours(own_run):
    """An aggregator that only weighs tiles is shown by its weights."""
    with h5py.File(own_run / "slides/case-1/tiles.h5", "a") as file:
        del file["scores"], file["logits"]

    columns = [one["name"] for one in client_of(own_run).get(SLIDE).json()["tiles"]["columns"]]

    assert sorted(columns) == ["attention", "selected"]


def test_a_scored_tile_is_the_networks(client, run):
    """At its µm per px, bit for bit."""
    with h5py.File(run / "slides/case-1/tiles.h5") as file, open_slide(run.parent / "case-1.svs") as slide:
        grid = dict(file["coords"].attrs)
        side = int(grid["patch_size"])
        expected = slide.read(Point(*file["coords"][7].tolist()), Size(side, side), float(grid["mpp"]))

    shown = np.asarray(Image.open(io.BytesIO(client.get(f"{SLIDE}/tiles/7").content)))

    assert np.array_equal(expected, shown)


@pytest.mark.parametrize("key", ["tissue", "tumour", "pen", "blur"])
def test_masks_are_those_of_the_run(client, run, key):
    """Opaque inside, transparent outside."""
    shown = np.asarray(Image.open(io.BytesIO(client.get(f"{SLIDE}/layers/{key}").content)).convert("RGBA"))

    assert np.array_equal(np.asarray(Image.open(run / f"slides/case-1/{key}.png")), shown[..., 3] > 0)


def test_the_tumour_map_and_its_samples(client, run):
    """Opacity is probability; a sample is a place and a probability."""
    shown = np.asarray(Image.open(io.BytesIO(client.get(f"{SLIDE}/layers/tumour_map").content)).convert("RGBA"))
    stored = np.asarray(Image.open(run / "slides/case-1/tumour_map.png"))
    samples = client.get(f"{SLIDE}/samples").json()

    assert np.abs(shown[..., 3] / 255 - stored / 65535).max() < 1 / 255
    assert len(samples) == client.get(SLIDE).json()["samples"] > 0
    assert all(0 <= probability <= 1 for _, _, probability in samples)


@pytest.mark.parametrize("key", ["tissue", "tumour_map"])
def test_a_layer_that_the_report_refuses_is_refused_here(tmp_path, key):
    """Both read masks and maps in one way: a picture in colour is none, and one too large to open is damaged."""
    Image.new("RGB", (4, 4)).save(tmp_path / f"{key}.png")
    with pytest.raises(EvaluationError, match=rf"{key}.png: is no grey picture; predict the slide again"):
        picture(tmp_path, key)

    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (200_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    (tmp_path / f"{key}.png").write_bytes(head + zlib.crc32(head[12:]).to_bytes(4, "big"))
    with pytest.raises(EvaluationError, match=rf"{key}.png: is damaged"):
        picture(tmp_path, key)
    assert picture_layers(tmp_path, None) == []


def test_a_damaged_tile_is_hatched(tmp_path):
    """It looks like nothing that a slide holds, and the others are there."""
    path = write_slide(tmp_path / "s.svs", [synthetic_pixels(768, 512)], SlideSpec(tile=256))
    corrupt_tile(path, 1)
    client = TestClient(make_app(read_catalogue([path]), Reviews(None)), base_url=HERE)

    asked = [client.get(f"/api/slides/s/zoom/0/{x}_0?v={version(client, '/api/slides/s')}") for x in (0, 1)]

    assert [answer.headers["content-type"] for answer in asked] == ["image/jpeg", "image/png"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(asked[1].content))), hatched(Size(256, 256)))


def test_a_run_without_predictions_is_shown(tmp_path, command_line):
    """One of segment, and one whose only slide failed."""
    write_tissue(tmp_path / "a.svs")
    (tmp_path / "b.svs").write_text("no slide")
    command_line("segment", tmp_path / "a.svs", "--out", tmp_path / "masks", *QUICK)
    command_line(
        "predict", tmp_path / "b.svs", tmp_path / "b.svs", "--out", tmp_path / "failed", *QUICK, "--workers", "0"
    )

    states = {
        name: slide.state
        for folder in ("masks", "failed")
        for name, slide in read_catalogue([tmp_path / folder]).slides.items()
    }

    assert states == {"a": "segmented", "b": "failed"}
    found = client_of_files(tmp_path / "masks").get("/api/slides/a").json()
    assert {one["key"] for one in found["pictures"]} >= {"tissue", "tumour"}
    assert found["file"]["size"] == [2048, 2048]


def test_a_scale_that_the_run_was_given_is_the_viewers(tmp_path, command_line):
    """Over what the file says: tiles and scale bar are those that the networks saw."""
    path = tmp_path / "a.svs"
    write_tissue(path)
    with open_slide(path) as slide:
        given = slide.mpp / 2
    for verb in ("segment", "predict"):
        command_line(verb, path, "--mpp", given, "--out", tmp_path / verb, *QUICK)
        shown = read_catalogue([tmp_path / verb]).slides["a"]
        assert shown.path == path
        assert shown.mpp == pytest.approx(given)
    assert client_of_files(tmp_path / "predict").get("/api/slides/a").json()["file"]["mpp"] == pytest.approx(given)


def test_damaged_files_of_a_run_are_problems_of_their_slide(own_run):
    """The slide and all else of it is shown."""
    (own_run / "slides/case-1/tiles.h5").write_bytes(b"no HDF5")
    (own_run / "slides/case-1/tumour_samples.csv").write_text("x")
    with client_of(own_run) as client:
        page = client.get(SLIDE).json()

    assert page["file"]
    assert page["tiles"] is None
    assert page["result"]["status"]
    assert any("tiles.h5: is damaged" in text for text in page["problems"])


def test_a_slide_whose_evidence_is_gone_keeps_its_call(own_run):
    """Of the tables; what is not there is said."""
    shutil.rmtree(own_run / "slides/case-1")
    with client_of(own_run) as client:
        page = client.get(SLIDE).json()

    assert (page["result"], page["status"], page["warnings"] != []) == (None, "negative", True)
    assert page["problems"] == ["case-1: the run holds no evidence of it any more; predict it again to see it"]


def client_of_files(*what):
    return TestClient(make_app(read_catalogue(what), Reviews(None)), base_url=HERE)


def test_a_slide_without_scale_is_shown_without(tmp_path):
    """It cannot be predicted, but looked at."""
    path = write_slide(tmp_path / "s.svs", [synthetic_pixels(300, 200)], SlideSpec(mpp=None, layout="generic"))

    assert client_of_files(path).get("/api/slides/s").json()["file"]["mpp"] is None


def test_a_run_that_goes_on_is_followed(own_run):
    """A slide that ends while the viewer runs is in the list when the page is loaded again."""
    table = own_run / "predictions.csv"
    head, *rows = table.read_text().splitlines(keepends=True)
    table.write_text(head + next(row for row in rows if row.startswith("case-1,")))
    with client_of(own_run) as client:
        before = [one["state"] for one in client.get("/api/slides").json()["slides"] if one["id"] == OTHER]
        table.write_text("".join([head, *rows]))
        after = [one["state"] for one in client.get("/api/slides").json()["slides"] if one["id"] == OTHER]

    assert (before, after) == ([], ["predicted"])


def test_a_run_that_is_unfinished_is_said_to_be(own_run):
    """Else a list of the slides that have ended is taken for all."""
    with (own_run / "planned.csv").open("a") as file:
        file.write("later,later.svs,p9\n")

    said = client_of(own_run).get("/api/slides").json()["unfinished"]

    assert said == "unfinished run: 3 of its 4 slides have ended"


def test_annotations_of_the_manifest_are_a_layer(own_run):
    """As a mask at the size of a screen, whatever program made them; a file that is no use is refused in words."""
    drawn = own_run.parent / "drawn.geojson"
    drawn.write_text(json.dumps(collection(square(200, 300, 800), square(400, 400, 100, "Ignore*"))))
    (own_run.parent / "manifest.csv").write_text(
        f"slide_id,path,patient_id,annotations\ncase-1,case-1.svs,p1,{drawn}\nbroken,broken.svs,p2,\n"
    )
    with client_of(own_run) as client:
        layers = {one["key"]: one for one in client.get(SLIDE).json()["pictures"]}
        shown = np.asarray(Image.open(io.BytesIO(client.get(f"{SLIDE}/layers/annotations").content)).convert("RGBA"))
        drawn.write_text("none")
        refused = client.get(f"{SLIDE}/layers/annotations")

    expected = np.zeros((2048, 2048), bool)
    expected[300:1100, 200:1000] = True
    expected[400:500, 400:500] = False
    assert layers["annotations"]["px_l0"] == 1
    assert np.array_equal(expected, shown[..., 3] > 0)
    assert refused.status_code == 422


def test_a_manifest_may_name_the_runs_slides_with_their_ending(tmp_path):
    """Patients and IHC partners were lost by it without a word."""
    slides = [MadeUpSlide("s0", "p0", probability=0.5)]
    run = write_run(tmp_path / "run", slides)
    named = [MadeUpSlide("s0.svs", "p0"), MadeUpSlide("i0", "p0", stain="IHC")]

    found = read_catalogue([run], manifest=write_labels(tmp_path / "m.csv", named))

    assert (found.slides["s0"].patient_id, found.slides["s0"].partners) == ("p0", ("i0",))
    assert found.notes == ("1 slides are those of the run but for the ending ('s0.svs' is 's0')",)


def test_every_manifest_says_whose_slides_they_are(tmp_path):
    """Not the first alone: those of one patient may be of several, such as one a stain."""
    stains = {"HE": MadeUpSlide("a", "p1"), "IHC": MadeUpSlide("b", "P1", stain="IHC")}
    tables = [write_labels(tmp_path / f"{stain}.csv", [slide]) for stain, slide in stains.items()]

    slides = read_catalogue(tables).slides

    assert [slides["a"].partners, slides["b"].partners] == [("b",), ("a",)]


def test_a_remote_slide_says_where_it_lies(tmp_path):
    """Its result is shown; its picture is not fetched."""
    slide = ViewedSlide("s", Path("s3://bucket/s.svs"), "slide")
    client = TestClient(make_app(Catalogue("c", {"s": slide}), Reviews(None)), base_url=HERE)

    assert "s3://bucket/s.svs" in client.get("/api/slides/s").json()["problems"][0]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/../app.py",
        "/static/..%2f..%2f__init__.py",
        "/static/%2e%2e/app.py",
        "/static/....//app.py",
        "/static/%00",
        "/static//etc/passwd",
        "/api/slides/..%2f..%2fetc%2fpasswd",
        "/api/slides/%2e%2e",
        "/api/slides/broken.svs",
        "/api/slides/case-1%00",
        "/api/slides/%ff%fe",
        "/api/slides/case-1/layers/..%2fprediction",
        "/api/slides/case-1/layers/prediction.json",
        "/api/slides/case-1/layers/overlay",
        "/api/slides/case-1/columns/coords",
        "/api/slides/case-1/columns/..%2fscores",
        "/api/slides/case-1/tiles/999999999999999999999999",
        "/api/slides/case-1/tiles/-1",
        "/api/slides/case-1/zoom/0/0_99999",
        "/api/slides/case-1/zoom/99/0_0",
        "/api/slides/case-1/zoom/0/999999999999999999999999_0",
        "/api/slides/case-1/zoom/0/" + 5000 * "9" + "_0",
        "/api/slides/case-1/zoom/-1/0_0",
        "/api/slides/case-1/zoom/0/0x10_0",
        "/api/slides/case-1/zoom/0/0_0?v=of-another-file",
        "/api/slides/case-1/zoom/0/0_0",
        "/api/slides/broken/zoom/0/0_0",
        "/api/slides/" + 2000 * "a",
        "/nothing",
    ],
)
def test_hostile_addresses_are_refused(client, path):
    """With a status of 4xx, and nothing of a file in the answer."""
    path = path.replace("zoom/0/0_99999", f"zoom/0/0_99999?v={version(client)}")
    path = path.replace("zoom/99/0_0", f"zoom/99/0_0?v={version(client)}")

    answer = client.get(path)

    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 400
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8842", 200),
        ("127.0.0.1:9999", 200),  # through an SSH tunnel
        ("[::1]:8842", 200),
        ("LOCALHOST", 200),
        ("127.0.0.2:8842", 200),  # --host takes it without a token
        ("evil.example:8842", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.example:8842", 421),
        ("169.254.169.254", 421),
        ("localhost:8842@evil.example", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_machine_are_answered(client, host, status):
    """A name that others can point here (DNS rebinding) is not."""
    assert client.get("/", headers={"host": host}).status_code == status


def test_two_slides_of_the_longest_names_have_an_address(client):
    """A letter that is no ASCII takes nine characters of it."""
    name = quote("\N{CJK UNIFIED IDEOGRAPH-65E5}" * 85)

    assert client.get(f"/api/slides/{name}/beside/{name}").status_code == 404


def test_every_answer_is_guarded(client):
    """Nothing of other origins runs in the page, and no other page can use the answers."""
    for path in ("/", "/api/slides", "/static/viewer.js", "/nothing"):
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON | {"origin": HERE}, 200),
        (JSON, 200),  # a program, not a browser
        (JSON | {"origin": "http://evil.example"}, 403),
        (JSON | {"origin": "null"}, 403),
        (JSON | {"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 403),
        (JSON | {"content-length": str(1 << 40)}, 413),
    ],
)
def test_other_pages_change_nothing(client, headers, status):
    """A form or script of another page cannot save a verdict."""
    body = json.dumps({"verdict": "agree", "comment": ""})

    assert client.put(f"{SLIDE}/verdict", content=body, headers=headers).status_code == status


def test_a_page_that_is_closed_while_it_saves_keeps_nothing(client, tmp_path):
    """And is no traceback on the terminal."""
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent = []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "PUT", "path": f"{SLIDE}/verdict", "headers": headers, "query_string": b""}

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))

    assert sent[0]["status"] == 400
    assert not (tmp_path / "annotations" / "verdicts.csv").exists()


def test_a_token_is_asked_of_every_request(run):
    """By cookie after the first visit, which no script can read; a wrong one is no visit."""
    with client_of(run, token="let-me-in", cookie="he2her2-1") as client:
        refused = [client.get(path).status_code for path in ("/", "/api/slides", "/static/viewer.js", "/?token=wrong")]
        first = client.get("/?token=let-me-in", follow_redirects=False)
        after = [client.get(path, headers={"host": "lab.example"}).status_code for path in ("/", "/api/slides")]
        as_program = TestClient(client.app, base_url="http://lab.example").get(
            "/api/slides", headers={"authorization": "Bearer let-me-in"}
        )

    assert refused == [401] * 4
    assert (first.status_code, first.headers["location"]) == (303, "./")
    assert {"httponly", "samesite=strict"} <= set(first.headers["set-cookie"].lower().replace(" ", "").split(";"))
    assert after == [200, 200]  # by any name: browsers send the cookie to that which gave it
    assert as_program.status_code == 200


def test_a_link_on_another_sites_page_is_followed(run):
    """Of a mail or a chat: the browser keeps the cookie back then, so the answer is a page that asks once more."""
    navigates = {"sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site"}
    with client_of(run, token="let-me-in") as client:
        away = client.get("/", headers=navigates)
        own = client.get("/", headers=navigates | {"sec-fetch-site": "same-origin"})
        data = client.get("/api/slides", headers=navigates)

    assert (away.status_code, own.status_code, data.status_code) == (401, 401, 401)
    assert "static/again.js" in away.text
    assert [answer.headers["content-type"] for answer in (own, data)] == ["application/json"] * 2


def test_an_open_port_has_a_token():
    """Localhost has none unless asked for; others always."""
    listeners = [listen("127.0.0.1", 0), listen("127.0.0.1", 0, with_token=True), listen("0.0.0.0", 0)]

    assert [bool(one.token) for one in listeners] == [False, True, True]
    assert all((f"token={one.token}" in one.url) == bool(one.token) for one in listeners)
    with pytest.raises(ConfigError, match="choose another --port"):
        listen("127.0.0.1", listeners[0].port)
    assert listeners[0].sock.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's delay on: 40 ms a tile
    for one in listeners:
        one.sock.close()


# --- slides that change ------------------------------------------------------------------------------------------


def test_a_deleted_slide_says_so(own_run):
    """Its tiles are gone, its result is there, and the page says what to do."""
    with client_of(own_run) as client:
        was = version(client)
        (own_run.parent / "case-1.svs").unlink()
        tile, page = client.get(f"{SLIDE}/zoom/0/0_0?v={was}"), client.get(SLIDE).json()

    assert tile.status_code == 410
    assert page["file"] is None
    assert page["result"]["status"]
    assert "is gone; put it back, or name its new folder by --slides" in page["problems"][0]


def test_a_replaced_slide_is_not_mixed_with_the_old_one(own_run):
    """Tiles of the page that is open are refused; a new page has the new ones, and a warning."""
    with client_of(own_run) as client:
        was = version(client)
        old = client.get(f"{SLIDE}/zoom/0/1_1?v={was}").content
        write_tissue(own_run.parent / "new.svs", synthetic_pixels(1024, 1024))
        (own_run.parent / "new.svs").replace(own_run.parent / "case-1.svs")
        refused = client.get(f"{SLIDE}/zoom/0/1_1?v={was}")
        page = client.get(SLIDE).json()
        new = client.get(f"{SLIDE}/zoom/0/1_1?v={page['file']['version']}")

    assert refused.status_code == 409
    assert "load the page again" in refused.json()["message"]
    assert new.status_code == 200
    assert new.content != old
    assert "another slide than the one that was predicted" in page["problems"][0]


def test_moved_slides_are_found_by_name(own_run):
    """In the folder that --slides names."""
    elsewhere = own_run.parent / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    (own_run.parent / "case-1.svs").rename(elsewhere / "case-1.svs")

    assert client_of(own_run).get(SLIDE).json()["file"] is None
    assert client_of(own_run, moved_to=elsewhere.parent).get(SLIDE).json()["file"]["size"] == [2048, 2048]


def test_moved_slides_are_found_by_the_name_of_their_file(own_run):
    """A manifest may have given the slide another one; of several files of one name the folder tells."""
    elsewhere = own_run.parent / "elsewhere"
    for site in ("site-1", "site-2", "site-3"):
        (elsewhere / site).mkdir(parents=True)
        (elsewhere / site / "uuid-7.svs").touch()
    (own_run.parent / "case-1.svs").unlink()
    for file in (own_run / "predictions.csv", own_run / "slides" / "case-1" / "prediction.json"):
        file.write_text(file.read_text().replace("case-1.svs", "site-2/uuid-7.svs"))

    found = read_catalogue([own_run], moved_to=elsewhere).slides["case-1"].path

    assert found == elsewhere / "site-2" / "uuid-7.svs"


def test_slides_of_a_relative_path_are_those_of_the_run(own_run, tmp_path, monkeypatch):
    """Also where the working folder is another one, and has a file of that path."""
    slides = own_run.parent
    for table, slide in (("predictions.csv", "case-1.svs"), ("failures.csv", "broken.svs")):
        file = own_run / table
        file.write_text(re.sub(rf"[^,\n]*/{slide}", slide, file.read_text()))
    record = json.loads((own_run / "failures/broken.json").read_text())
    record["failure"]["path"] = "broken.svs"
    record["made_of"]["inputs"]["path"] = str(slides / "broken.svs")
    (own_run / "failures/broken.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    for name in ("case-1.svs", "broken.svs"):
        (tmp_path / name).write_text("another study's")

    found = read_catalogue([own_run]).slides

    assert [found[name].path for name in ("case-1", "broken")] == [slides / "case-1.svs", slides / "broken.svs"]


def open_files():
    """How many this process has open."""
    return len([*Path("/dev/fd").iterdir()])


def test_few_slides_are_open_at_once(tmp_path):
    """However many are looked at, also by several threads; none is closed while it is read."""
    slides = [
        ViewedSlide(f"s{i}", write_slide(tmp_path / f"s{i}.svs", [synthetic_pixels(600, 600, seed=i)]), "slide")
        for i in range(12)
    ]
    pool, faults = OpenSlides(max_open=3), []

    def look(seed):
        for i in np.random.default_rng(seed).integers(0, len(slides), 40):
            try:
                with pool.lend(slides[i]) as opened:
                    opened.zoom.tile(0, 1, 1)
            except Exception as error:  # noqa: BLE001  # whatever happens in a thread
                faults.append(error)

    threads = [Thread(target=look, args=(seed,)) for seed in range(4)]
    before = open_files()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for _ in range(5):  # each time another file of that name
        slides[0].path.with_name("new").write_bytes(slides[0].path.read_bytes())
        slides[0].path.with_name("new").replace(slides[0].path)
        with pool.lend(slides[0]):
            pass

    assert not faults
    assert open_files() - before <= 3
    pool.close()
    assert open_files() <= before


# --- what is kept ------------------------------------------------------------------------------------------------


def test_drawn_regions_are_what_predict_takes(own_run, command_line):
    """From the browser to the file, and from there to a prediction inside the regions."""
    folder = own_run / "annotations"
    with client_of(own_run, annotations=folder) as client:
        seen = client.get(f"{SLIDE}/regions").json()["version"]
        body = collection(square(400, 400, 900), square(500, 500, 50, "Necrosis"))
        saved = client.put(f"{SLIDE}/regions?version={seen}", json=body)
        shown = client.get(f"{SLIDE}/regions").json()

    code, _, _ = command_line(
        "predict", own_run.parent / "case-1.svs", "--out", own_run.parent / "again", "--annotations", folder, *QUICK
    )

    assert saved.status_code == 200
    assert shown["collection"] == body
    drawn = read_annotation(folder / "case-1.geojson")
    assert {name: str(use) for name, use in drawn.classes.items()} == {"Tumor": "tumour", "Necrosis": "cut out"}
    assert code == 0
    record = json.loads((own_run.parent / "again/slides/case-1/prediction.json").read_text())
    assert record["annotations"] == {"Tumor": "tumour", "Necrosis": "cut out"}


def test_regions_count_from_the_bounds_as_qupath_does(tmp_path):
    """In the browser they are level-0 px; the file counts from the scanned part."""
    reviews = Reviews(tmp_path)
    body = json.dumps(collection(square(1000, 2000))).encode()

    reviews.save_regions("s", body, Point(300, 500), "none")

    stored = json.loads((tmp_path / "s.geojson").read_text())
    assert stored["features"][0]["geometry"]["coordinates"][0][0] == [700, 1500]
    assert reviews.regions("s", Point(300, 500))[0] == json.loads(body)


def test_two_reviewers_do_not_overwrite_each_other(tmp_path):
    """Who saves second learns that the first one did."""
    reviews = Reviews(tmp_path)
    first = reviews.save_regions("s", json.dumps(collection(square())).encode(), Point(0, 0), "none")

    with pytest.raises(StaleError, match="somebody else"):
        reviews.save_regions("s", json.dumps(collection()).encode(), Point(0, 0), "none")
    assert reviews.regions("s", Point(0, 0))[1] == first


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature"}]}).encode(),
        json.dumps(
            collection(square() | {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}})
        ).encode(),
        json.dumps(collection(square() | {"geometry": {"type": "Circle", "coordinates": []}})).encode(),
        json.dumps(collection(square(x=float("inf")))).encode(),
        b'{"type":"FeatureCollection","features":"x"}',
    ],
)
def test_what_is_no_region_is_not_kept(client, body):
    """It is refused in words, and what was there stays."""
    kept = client.put(f"{SLIDE}/regions?version=none", json=collection(square())).json()["version"]

    answer = client.put(f"{SLIDE}/regions?version={kept}", content=body, headers=JSON)

    assert answer.status_code == 422
    assert answer.json()["message"]
    assert client.get(f"{SLIDE}/regions").json()["version"] == kept


def test_a_file_that_is_no_geojson_is_left_alone(own_run):
    """It may be somebody's work: it is named, and not written over."""
    folder = own_run / "annotations"
    folder.mkdir()
    (folder / "case-1.geojson").write_text("my notes")
    with client_of(own_run, annotations=folder) as client:
        shown = client.get(f"{SLIDE}/regions")
        saved = client.put(f"{SLIDE}/regions?version=none", json=collection(square()))

    assert (shown.status_code, saved.status_code) == (422, 422)
    assert "move it away" in shown.json()["message"]
    assert (folder / "case-1.geojson").read_text() == "my notes"


def test_values_that_json_cannot_hold_are_none(client, tmp_path):
    """QuPath writes NaN where it measured nothing; text that is no Unicode is refused in words."""
    text = json.dumps(collection(square() | {"properties": {"measurements": {"Area": 1.0}}}))
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "case-1.geojson"
    file.write_text(text.replace("1.0", "NaN"))

    shown = client.get(f"{SLIDE}/regions").json()
    saved = client.put(
        f"{SLIDE}/regions?version={shown['version']}", content=text.replace("1.0", "-Infinity"), headers=JSON
    )
    assert shown["collection"]["features"][0]["properties"] == {"measurements": {"Area": None}}
    assert saved.status_code == 200
    assert json.loads(file.read_text()) == shown["collection"]
    file.write_text(text.replace("Area", "\\ud800"))
    assert client.get(f"{SLIDE}/regions").status_code == 422


def test_qupaths_bare_list_is_read(tmp_path):
    """QuPath writes one where "as FeatureCollection" is not ticked."""
    (tmp_path / "s.geojson").write_text(json.dumps([square()]))

    assert Reviews(tmp_path).regions("s", Point(0, 0))[0] == collection(square())


def test_no_regions_leave_no_file(client, tmp_path):
    """Predict would refuse a file without any."""
    kept = client.put(f"{SLIDE}/regions?version=none", json=collection(square())).json()["version"]
    assert (tmp_path / "annotations/case-1.geojson").is_file()

    assert client.put(f"{SLIDE}/regions?version={kept}", json=collection()).json()["version"] == "none"
    assert not (tmp_path / "annotations/case-1.geojson").exists()


def test_regions_survive_a_crash_in_mid_save(tmp_path):
    """The process ends while it writes: the last whole file is there, and the draft is swept when one starts again."""
    Reviews(tmp_path).save_regions("s", json.dumps(collection(square())).encode(), Point(0, 0), "none")
    before = (tmp_path / "s.geojson").read_bytes()
    code = """
import json, os, sys
from pathlib import Path
from he2her2.geometry import Point, Size
from he2her2.viewer import Reviews

def torn(path, text, *more, **how):
    with open(path, "w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        os._exit(9)

reviews = Reviews(Path(sys.argv[1]))
collection, seen = reviews.regions("s", Point(0, 0))
Path.write_text = torn
reviews.save_regions("s", json.dumps(collection | {"more": "x" * 1000}).encode(), Point(0, 0), seen)
"""

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True)

    assert done.returncode == 9, done.stderr
    assert (tmp_path / "s.geojson").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2  # the torn draft
    assert Reviews(tmp_path).regions("s", Point(0, 0))[0] == collection(square())
    assert [file.name for file in tmp_path.iterdir()] == ["s.geojson"]


def test_verdicts_are_a_table(client, tmp_path):
    """One row a slide, the last word counts, a formula is text, and no word is no row."""
    for verdict, comment in (("disagree", ""), ("agree", "=cmd()")):
        assert client.put(f"{SLIDE}/verdict", json={"verdict": verdict, "comment": comment}).status_code == 200
    client.put(f"/api/slides/{quote('case 2 + <b>&')}/verdict", json={"verdict": "unsure", "comment": ""})

    listed = {one["id"]: one["review"] for one in client.get("/api/slides").json()["slides"]}
    with (tmp_path / "annotations/verdicts.csv").open(newline="") as file:
        rows = {row["slide_id"]: row for row in csv.DictReader(file)}

    assert set(rows) == {"case-1", "case 2 + <b>&"}
    assert (rows["case-1"]["verdict"], rows["case-1"]["comment"]) == ("agree", "'=cmd()")
    assert listed["case-1"]["comment"] == "=cmd()"
    client.put(f"{SLIDE}/verdict", json={"verdict": "", "comment": ""})
    assert {one["id"]: one["review"] for one in client.get("/api/slides").json()["slides"]}["case-1"] is None


def reviews_of(client):
    return {one["id"]: one["review"] for one in client.get("/api/slides").json()["slides"]}


def predicted_anew(run, slide_id, **values):
    """The run's table, where a slide has another result."""
    table = run / "predictions.csv"
    with table.open(newline="") as file:
        lines = csv.DictReader(file)
        rows = [row | values if row["slide_id"] == slide_id else row for row in lines]
    with table.open("w", newline="") as file:
        into = csv.DictWriter(file, rows[0].keys())
        into.writeheader()
        into.writerows(rows)


@pytest.mark.parametrize("change", [{"probability": "0.0123"}, {"triage": "refer to IHC"}])
def test_a_verdict_is_of_the_result_that_was_judged(own_run, tmp_path, change):
    """After the slide was predicted anew it is shown as one on another result, and the table says on which."""
    with client_of(own_run, annotations=tmp_path / "kept") as client:
        [seen] = [one for one in client.get("/api/slides").json()["slides"] if one["id"] == "case-1"]
        judged = {"call": seen["status"], "probability": seen["probability"]}
        client.put(f"{SLIDE}/verdict", json={"verdict": "agree", "comment": "", **judged})
        before = reviews_of(client)["case-1"]["of_this_result"]
        predicted_anew(own_run, "case-1", **change)
        after = reviews_of(client)["case-1"]
    [row] = read_csv(tmp_path / "kept/verdicts.csv")

    assert before
    assert not after["of_this_result"]
    assert (row["call"], float(row["probability"])) == (judged["call"], judged["probability"])


def test_a_verdict_on_a_result_that_is_gone_is_refused(own_run, tmp_path):
    """The page still shows the former one."""
    with client_of(own_run, annotations=tmp_path / "kept") as client:
        [seen] = [one for one in client.get("/api/slides").json()["slides"] if one["id"] == "case-1"]
        predicted_anew(own_run, "case-1", probability="0.0123")
        judged = {"call": seen["status"], "probability": seen["probability"]}
        answer = client.put(f"{SLIDE}/verdict", json={"verdict": "agree", "comment": "", **judged})

    assert answer.status_code == 409
    assert "load the page again" in answer.json()["message"]
    assert not (tmp_path / "kept/verdicts.csv").exists()


def test_a_table_of_verdicts_of_an_earlier_version_is_read(run, tmp_path):
    """It does not say which result was judged."""
    (tmp_path / "verdicts.csv").write_text("slide_id,verdict,comment,time\ncase-1,agree,,2026-01-01T00:00:00+00:00\n")

    with client_of(run, annotations=tmp_path) as client:
        assert reviews_of(client)["case-1"]["of_this_result"]


def test_the_history_keeps_every_verdict_with_who_gave_it(client, tmp_path):
    """One that was changed or taken back, too, and one of a table that somebody else wrote."""
    table = tmp_path / "annotations/verdicts.csv"
    table.parent.mkdir()
    table.write_text("slide_id,verdict,comment\ncase-1,unsure,by hand\n")
    for verdict, reviewer in (("agree", "Dr A"), ("disagree", "=B"), ("", "Dr A")):
        said = {"verdict": verdict, "reviewer": reviewer}
        kept = client.put(f"{SLIDE}/verdict", json=said).json()

    rows = read_csv(tmp_path / "annotations/verdict_history.csv")

    assert [(row["verdict"], row["reviewer"]) for row in rows] == [
        ("unsure", ""),
        ("agree", "Dr A"),
        ("disagree", "=B"),
        ("", "Dr A"),
    ]
    assert rows[0]["comment"] == "by hand"
    assert [row["time"] for row in rows[1:]] == sorted(row["time"] for row in rows[1:])
    assert kept is None
    assert client.put(f"{SLIDE}/verdict", json={"verdict": "agree", "reviewer": "B"}).json()["reviewer"] == "B"


def test_a_history_that_cannot_be_read_is_not_written_over(tmp_path):
    """Nor is a verdict kept without it, whether it cannot be read or not be written."""
    history = tmp_path / "verdict_history.csv"
    history.write_text("slide;verdict\na;agree\n")

    with pytest.raises(AnnotationError, match=r"verdict_history\.csv: cannot be read"):
        Reviews(tmp_path).save_verdict("a", b'{"verdict": "disagree"}')

    assert history.read_text() == "slide;verdict\na;agree\n"
    assert not Reviews(tmp_path).verdicts()

    history.unlink()
    (history / "taken").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"verdict_history\.csv: cannot be written"):
        Reviews(tmp_path).save_verdict("a", b'{"verdict": "disagree"}')
    assert not Reviews(tmp_path).verdicts()


def test_columns_that_somebody_added_to_the_verdicts_stay(tmp_path):
    """As in a spreadsheet; also of the slide that is judged again."""
    file = tmp_path / "verdicts.csv"
    file.write_text("slide_id,verdict,second reader\na,agree,Dr B\nb,unsure,Dr C\n")

    Reviews(tmp_path).save_verdict("a", b'{"verdict": "disagree"}')

    rows = {row["slide_id"]: (row["verdict"], row["second reader"]) for row in read_csv(file)}
    assert rows == {"a": ("disagree", "Dr B"), "b": ("unsure", "Dr C")}


def test_a_verdict_taken_back_leaves_what_somebody_added(tmp_path):
    """The row stays where another column holds something, and goes where none does."""
    file = tmp_path / "verdicts.csv"
    file.write_text("slide_id,verdict,second reader\na,agree,Dr B\nb,unsure,\n")

    for slide_id in "ab":
        Reviews(tmp_path).save_verdict(slide_id, b'{"verdict": ""}')

    [row] = read_csv(file)
    assert (row["slide_id"], row["verdict"], row["second reader"]) == ("a", "", "Dr B")
    assert Reviews(tmp_path).verdicts()["a"].is_empty


def test_several_viewers_keep_to_one_folder(tmp_path, monkeypatch):
    """Who saves while another is between reading and writing the table waits, and nothing is lost."""
    one, other = Reviews(tmp_path), Reviews(tmp_path)
    read, waited = other.verdicts, list[bool]()
    saving = Thread(target=one.save_verdict, args=("a", b'{"verdict": "agree"}'))

    def reading():
        found = read()
        if not saving.is_alive() and not waited:
            saving.start()
            saving.join(1)
            waited.append(saving.is_alive())
        return found

    monkeypatch.setattr(other, "verdicts", reading)
    other.save_verdict("b", b'{"verdict": "unsure"}')
    saving.join(30)

    assert waited == [True]
    assert set(Reviews(tmp_path).verdicts()) == {"a", "b"}


def test_a_verdict_that_did_not_see_the_last_one_is_refused(client):
    """Else who opened the page before takes word and comment of the other away."""
    first = client.put(f"{SLIDE}/verdict", json={"verdict": "disagree", "comment": "stroma", "seen": "none"}).json()
    late = client.put(f"{SLIDE}/verdict", json={"verdict": "agree", "comment": "", "seen": "none"})
    kept = reviews_of(client)["case-1"]
    own = client.put(f"{SLIDE}/verdict", json={"verdict": "agree", "comment": "", "seen": first["version"]})

    assert late.status_code == 409
    assert "case-1: somebody else has given the verdict 'disagree' meanwhile" in late.json()["message"]
    assert kept == first
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("verdicts.csv", "slide_id;verdict\ncase-1;agree\n", "no column 'slide_id'"),  # by a spreadsheet
        ("verdicts.csv", "slide_id,verdict,probability\ncase-1,agree,high\n", "could not convert"),
        ("verdicts.csv", "slide_id,verdict\ncase-1,agree\ncase-1,disagree\n", "2 rows of case-1"),  # of two reviewers
        ("stain_pairs.csv", "slide_id,beside,turn_deg\na,b,1\n", "no column 'scale'"),
        (
            "stain_pairs.csv",
            "slide_id,beside,turn_deg,scale,mirrored,dx_um,dy_um\ncase-1-ihc,case-1,nan,0,1,0,0\n",
            "turn: must be a finite number; scale: must be greater than or equal to 0.001",
        ),
    ],
)
def test_a_table_of_reviews_that_makes_no_sense_is_named(client, tmp_path, file, text, words):
    """With what is wrong in it and what to do."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / file).write_text(text)

    answer = client.get("/api/slides" if file == "verdicts.csv" else f"{SLIDE}/beside/case-1-ihc")

    assert answer.status_code == 422
    assert f"{file}: cannot be read ({words}" in answer.json()["message"]
    assert "save it as CSV with commas" in answer.json()["message"]


def test_a_probability_that_is_none_is_no_probability(client, tmp_path):
    """JSON has no word for it."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/verdicts.csv").write_text("slide_id,verdict,probability\ncase-1,agree,nan\n")

    assert reviews_of(client)["case-1"]["probability"] is None


@pytest.mark.parametrize("body", [b"", b"[]", b'{"verdict": "maybe"}', b'{"verdict": ["agree"]}', b"{", b"[" * 9999])
def test_what_is_no_verdict_is_refused(client, body):
    """In words."""
    assert client.put(f"{SLIDE}/verdict", content=body, headers=JSON).status_code == 422


def test_without_a_folder_nothing_is_kept(run):
    """Slides that belong to no run are shown without a trace; the page says how to keep something."""
    with client_of(run) as client:
        answers = [
            client.put(f"{SLIDE}/verdict", json={"verdict": "agree"}),
            client.put(f"{SLIDE}/regions?version=none", json=collection(square())),
        ]

        assert not client.get("/api/slides").json()["writable"]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert all("--annotations" in answer.json()["message"] for answer in answers)


def test_a_folder_that_cannot_be_written_is_read(run, tmp_path, monkeypatch):
    """As of a run on a read-only disk: the page says at once that nothing is kept, and shows what was."""
    (tmp_path / "verdicts.csv").write_text("slide_id,verdict,comment\ncase-1,agree,clear\n")
    monkeypatch.setattr("he2her2.files.TemporaryFile", Mock(side_effect=PermissionError("read-only")))

    with client_of(run, annotations=tmp_path) as client:
        assert not client.get("/api/slides").json()["writable"]
        assert reviews_of(client)["case-1"]["comment"] == "clear"


def test_a_slides_name_cannot_lead_out_of_the_folder(tmp_path):
    """Names come from tables, which others may have written."""
    for name in ("../x", "a/b", ".hidden"):
        with pytest.raises(AnnotationError):
            Reviews(tmp_path).regions(name, Point(0, 0))


# --- the command -------------------------------------------------------------------------------------------------


def test_regions_of_a_name_that_is_too_long_are_refused_in_words(tmp_path):
    """The slide itself is shown."""
    name, body = 250 * "x", json.dumps(collection(square())).encode()

    assert Reviews(tmp_path).regions(name, Point(0, 0))[1] == "none"
    with pytest.raises(OutputError, match="too long"):
        Reviews(tmp_path).save_regions(name, body, Point(0, 0), "none")


def test_a_file_whose_name_is_no_unicode_does_not_hide_the_others(tmp_path):
    """It is listed with escapes, and its page says what is wrong."""
    write_tissue(tmp_path / "good.svs", tissue_pixels(side=256))
    (tmp_path / os.fsdecode(b"sl\xe9.svs")).write_bytes((tmp_path / "good.svs").read_bytes())
    client = TestClient(make_app(read_catalogue([tmp_path]), Reviews(None)), base_url=HERE)

    assert list(reviews_of(client)) == ["good", "sl\\udce9"]
    [problem] = client.get("/api/slides/sl%5Cudce9").json()["problems"]
    assert "rename it" in problem


def test_the_command_serves_a_run(run):
    """It says where, answers there, and ends quietly on Ctrl-C."""
    command = [sys.executable, "-m", "he2her2", "view", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline(), process.stdout.readline()]
        url = said[1].split()[1]
        status = _status(url)
        process.send_signal(2)
        process.wait(60)

    assert said[0].startswith("run: 3 slides; regions and verdicts are kept in ")
    assert status == 200
    assert process.returncode in (0, 130)


def _status(url):
    for _ in range(50):
        try:
            with urllib.request.urlopen(f"{url}api/slides", timeout=5) as answer:
                return answer.status
        except OSError:
            time.sleep(0.1)
    return None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        ([], "holds no slide|no slides among"),
        (["--host", "no.such.host.invalid"], "no such address"),
    ],
)
def test_what_cannot_be_shown_is_one_line(command_line, tmp_path, words, said):
    """Before a port is taken."""
    if "--host" in words:
        write_slide(tmp_path / "s.svs", [synthetic_pixels(300, 200)])
    what = [tmp_path / "nowhere"] if words == ["nowhere"] else [tmp_path, *words]

    code, _, err = command_line("view", *what)

    assert code == 2
    assert re.search(said, err)
    assert err.count("\n") == 1


def test_the_folder_of_another_command_is_called_so(command_line, tmp_path):
    """It holds nothing to look at."""
    (tmp_path / "evaluation.json").write_text("{}")

    code, _, err = command_line("view", tmp_path)

    assert code == 2
    assert "evaluation.json of he2her2 evaluate, not a run" in err


def test_without_the_extra_it_says_how_to_install_it(command_line, tmp_path, monkeypatch):
    """Before anything is read."""
    found = importlib.util.find_spec
    monkeypatch.setattr("he2her2.cli.extras.find_spec", lambda name: None if name == "uvicorn" else found(name))

    code, _, err = command_line("view", tmp_path)

    assert code == 2
    assert "pip install 'he2her2[viewer]'" in err


def test_openseadragon_lies_with_its_licence():
    """The page loads nothing from elsewhere."""
    static = Path(he2her2.viewer.__file__).parent / "static"
    pages = [*static.glob("*.js"), *static.glob("*.css"), static.parent / "templates/index.html"]

    assert "OpenSeadragon contributors" in (static / "openseadragon/LICENSE.txt").read_text()
    assert (static / "openseadragon/openseadragon.min.js").read_text("utf-8").startswith("//! openseadragon 6.1.1")
    assert not [page.name for page in pages if "http://" in page.read_text() or "https://" in page.read_text()]


def test_a_catalogue_holds_what_was_given(tmp_path):
    """Slides of a folder, by name."""
    write_slide(tmp_path / "a.svs", [synthetic_pixels(300, 200)])

    assert isinstance(read_catalogue([tmp_path]), Catalogue)
    assert list(read_catalogue([tmp_path]).slides) == ["a"]
