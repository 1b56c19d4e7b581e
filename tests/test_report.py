"""Pages of a run: what they say, that they need nothing else, that their heatmap is the prediction."""

import functools
import http.server
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from he2her2.config import load_config
from he2her2.domain import Likeness
from he2her2.errors import EvaluationError
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status
from he2her2.models import Aggregated, load_aggregator
from he2her2.phantom import make_spec, write_phantom
from he2her2.report import PagesRequest, find_weights, write_pages
from he2her2.report.case import case_page, failed_page
from he2her2.report.checks import DecidedTiles, check_prediction
from he2her2.report.gallery import choose_tiles
from he2her2.results import Failure, PatientResult, ScoredTiles, open_run
from he2her2.results.notes import OperatingPointNote, TriageNote
from he2her2.results.patients import write_patient_results
from tests.conftest import REPOSITORY
from tests.made_up_bags import logits_of_scores
from tests.made_up_runs import MadeUpSlide, write_labels, write_run
from tests.tissue_slides import tissue_pixels, write_tissue

HOSTILE = "b <i>& 'x'"
LARGEST_PAGE = 5_000_000


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run with its report: a phantom, a slide that fails at its tumour, and one that cannot be opened."""
    folder = tmp_path_factory.mktemp("reported")
    spec = make_spec(seed=5, ihc_score="3+", signal=1.0, size_px=(5120, 4096), pen=1, tumour_share=0.8, foci=1)
    write_phantom(folder / "slides" / "phantom.tif", spec, workers=1)
    write_tissue(folder / "slides" / "texture.svs", tissue_pixels(side=1024))
    (folder / "slides" / f"{HOSTILE}.svs").write_text("no slide at all")
    words = ["predict", str(folder / "slides"), "--workers=0", "--out", str(folder / "run")]
    command = [sys.executable, "-m", "he2her2", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # two slides fail
    return folder / "run"


@pytest.fixture(scope="module")
def pages(reported):
    """The pages of the run: its own, and by slide."""
    run = open_run(reported)
    return write_pages(PagesRequest(run, find_weights(run)), reported / "report")


def text_of(page):
    """Words of a page, without tags, styles and scripts."""
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", page.read_text("utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_every_slide_has_a_page(pages):
    """Failed ones too."""
    assert sorted(pages.cases) == sorted(["phantom", "texture", HOSTILE])
    assert all(page.is_file() for page in pages.cases.values())
    assert pages.failed == 2


def test_pages_name_no_folder_and_no_other_patients_slide(reported, pages):
    """They are passed on, and the run's command holds the paths of all slides."""
    run = open_run(reported)
    path = reported.parent / "Smith, Anna" / "x.tif"
    lost = Failure("x", str(path), "open", f"no file {path}", "check the path")
    told = {name: page.read_text("utf-8") for name, page in pages.cases.items()}
    told |= {"index": (reported / "report" / "index.html").read_text("utf-8")}
    told |= {"lost": failed_page(run, lost, made="now", index="").html}

    far = "https://me:Smith@a.org/y.svs?key=Smith"
    away = Failure("y", str(Path(far)), "open", f"{far}: cannot be fetched", "check the address")
    told |= {"away": failed_page(run, away, made="now", index="").html}

    assert [name for name, page in told.items() if str(reported.parent) in page or "Smith" in page] == []
    assert "Y.svs: cannot be fetched" in told["away"]
    assert "No file x.tif" in told["lost"]
    assert ["--workers=0" in told[name] for name in ("phantom", "index")] == [False, True]


def test_a_page_answers_the_four_questions(pages):
    """Whether the slide is like the training slides first, then the call, how sure, on what, and what for."""
    text = text_of(pages.cases["phantom"])
    parts = [
        "This slide looks like the slides that these weights learned from",
        "What is the call? HER2 positive",
        "How sure is it?",
        "On which tissue does it rest? 300 of",
        "May I use it? No, not for a patient.",
        "trained on phantoms: no clinical meaning",
        "Where in the slide",
        "Which tiles decided",
        "Is the picture the prediction? Yes",
        "What the number means, and for whom",
        "The networks",
        "Where this comes from",
    ]
    at = [text.find(part) for part in parts]

    assert -1 not in at, [part for part, found in zip(parts, at, strict=True) if found < 0]
    assert at == sorted(at)
    assert "Research use only" in text[:200]


def test_an_unlike_slide_is_said_to_be_so_first(reported):
    """Nobody is to read the call before that. A later command on the run is not what made it."""
    run = open_run(reported)
    later = replace(run.description, started="2091-01-01T00:00:00+00:00", versions={"onnxruntime": "99"}, hardware={})
    run = replace(run, description=later)
    result = run.result("phantom")
    assert result is not None
    files = result.files | {"tumour.png": 1}  # painted over
    unlike = replace(result, likeness=Likeness(9.0, 5.0, "blue 154 where they have 187 ± 6.8"), files=files)

    html = case_page(run, unlike, find_weights(run), made="now", index="").html

    assert html.find("Do not rely on the result below") < html.find("HER2 positive</p>")
    assert "blue 154 where they have 187 ± 6.8" in html
    assert "Unknown: the slide is unlike all that was learned from" in html
    assert result.provenance is not None
    assert result.provenance.ended[:10] in html
    assert "Note: files that the prediction wrote were changed since: tumour.png." in html
    assert ("2091" in html, "onnxruntime 99" in html) == (False, False)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("refer to IHC", "What is the call? Refer to IHC"),
        ("rule in", "What is the call? HER2 positive"),
        ("rule out", "What is the call? HER2 positive"),
    ],
)
def test_the_arm_of_the_triage_is_the_call(reported, tmp_path, arm, said):
    """Where it refers, nothing else is called; the promise is told with the patients for whom it holds."""
    run = open_run(reported)
    result = run.result("phantom")
    assert result is not None
    assert result.her2 is not None
    her2 = replace(
        result.her2,
        triage=TriageNote(arm, 0.1, 0.999, 0.04, 0.06, "90 patients of site B", "mean"),
        operating_point=OperatingPointNote(0.05, 0.95, 40, "100 patients of site A", "mean"),
    )
    page = tmp_path / "page.html"
    page.write_text(
        case_page(run, replace(result, her2=her2), find_weights(run), made="now", index="").html, encoding="utf-8"
    )
    text = text_of(page)

    assert said in text
    assert ("By the threshold alone" in text) == (arm == "refer to IHC")
    assert ('fill="var(--positive)" stroke' in page.read_text("utf-8")) == (arm != "refer to IHC")
    assert ("phantom: refer to IHC (he2her2" in text) == (arm == "refer to IHC")
    assert (
        "at most 5 % of HER2-positive patients are missed (95 % sure), for patients like 100 patients of site A" in text
    )
    assert (
        "on average, at most 4 % of HER2-positive patients are ruled out and 6 % of HER2-negative ones ruled in, for "
        "patients like 90 patients of site B" in text
    )


def test_patients_are_shown_as_the_rules_decide_them(command_line, tmp_path):
    """Also one whose guarantee is broken."""
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9), MadeUpSlide("b", probability=0.2)])
    patients = (
        PatientResult("P1", Her2Status.POSITIVE, 0.9, 0.5, None, "rule in", "mean", 1, 0, guaranteed=True),
        PatientResult("P2", None, math.nan, 0.5, 0.25, None, "mean", 0, 2, guaranteed=False),
        PatientResult("P3", Her2Status.POSITIVE, 0.9, 0.5, None, "rule in", "mean", 1, 0, guaranteed=False, unlike=1),
    )
    write_patient_results(run / "patients.csv", patients)

    code, _, err = command_line("report", run)
    text = text_of(run / "report" / "index.html")

    assert code == 0, err
    assert repr(open_run(run).patients) == repr(patients)  # nan is not equal to itself
    assert "P1 positive rule in 0.900 1 with a result, 0 without yes" in text
    assert "P2 no result 0 with a result, 2 without no: 2 slides without a result" in text
    assert "P3 positive rule in 0.900 1 with a result, 0 without no: 1 slide unlike the training slides" in text


def test_a_patient_of_several_slides_is_called_before_each_of_them(command_line, tmp_path):
    """On the page of every slide, failed ones too, and on the run's; the slide's own call is said to be that.

    A probability just below the threshold is not written as one at it.
    """
    run = write_run(
        tmp_path / "run",
        [MadeUpSlide("a", probability=0.9), MadeUpSlide("b", probability=0.4996), MadeUpSlide("c", failure="torn")],
    )
    (run / "planned.csv").write_text("slide_id,path,patient_id\n" + "".join(f"{s},{s}.tif,P1\n" for s in "abc"))
    result = PatientResult("P1", Her2Status.POSITIVE, 0.55, 0.5, None, "refer to IHC", "mean", 2, 1, guaranteed=False)
    write_patient_results(run / "patients.csv", [result])

    code, _, err = command_line("report", run)
    called, failed, cohort = (text_of(run / "report" / name) for name in ("cases/b.html", "cases/c.html", "index.html"))

    assert code == 0, err
    for page in (called, failed):
        assert "What is the call for patient P1? Refer to IHC" in page
        assert "the mean probability of 2 slides is 0.550" in page
        assert "The slides do not agree" in page
        assert "The promise of these rules does not hold: 1 of the patient's 3 slides has no result" in page
    assert called.index("for patient P1?") < called.index("What is the call by this slide alone? HER2 negative")
    assert "P1 refer to IHC 0.550 a 0.900 b 0.4996 c no result" in cohort
    assert "The estimated probability of HER2-positive is 0.4996" in called


def test_a_slide_without_a_page_is_no_link(command_line, tmp_path):
    """One whose name is too long for a file failed, and is in the table of failures by its name."""
    slides = [MadeUpSlide("a", probability=0.9), MadeUpSlide(210 * "x", failure="too long")]
    run = write_run(tmp_path / "my run", slides)

    code, _, err = command_line("report", run)
    html = (run / "report" / "index.html").read_text("utf-8")

    assert code == 0, err
    assert 210 * "x" in html
    assert set(re.findall('href="cases/([^"]*)"', html)) == {"a.html"}
    assert "my run&#39; --manifest" in html  # quoted: to be pasted
    assert "not at hand (bundled: are not the weights that my run was" in html  # no folders: pages are passed on


def test_a_damaged_table_of_patients_is_one_line(command_line, tmp_path):
    """Before anything is drawn, also where one slide is asked for. So is one whose call somebody changed."""
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9)])
    changed = PatientResult("P1", Her2Status.NEGATIVE, 0.9, 0.5, None, None, "mean", 1, 0, guaranteed=True)
    write_patient_results(run / "patients.csv", [changed])
    with pytest.raises(EvaluationError, match=r"it was changed: P1 is negative with 0\.9 of 0\.5"):
        _ = open_run(run).patients
    (run / "patients.csv").write_text("patient_id,status\nP1,perhaps\n")

    code, _, err = command_line("report", run, "--slide", "a")

    assert code == 2
    assert "patients.csv: cannot be read" in err.splitlines()[-1]
    assert not (run / "report").exists()


def test_slides_of_a_patient_are_named_together_where_no_rule_joins_them(command_line, tmp_path):
    """Nothing is decided for the patient, and the page says why."""
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9), MadeUpSlide("b", probability=0.2)])
    (run / "planned.csv").write_text("slide_id,path,patient_id\na,a.tif,P1\nb,b.tif,P1\n")

    code, _, err = command_line("report", run)
    text = text_of(run / "report" / "cases" / "a.html")

    assert code == 0, err
    assert "What is the call for patient P1? None These weights hold no rule that joins the slides" in text
    assert "a (this page) positive 0.900 b negative 0.200" in text


def test_a_failed_slide_says_what_to_do(pages):
    """The reason, the remedy, the step, and what was found until then."""
    text = text_of(pages.cases["texture"])
    unopened = text_of(pages.cases[HOSTILE])

    assert "No result" in text
    assert "What you can do:" in text
    assert "find tissue" in text
    assert "With what was found until it failed." in text
    assert "open the file: failed here" in unopened
    assert "neither HER2-negative nor HER2-positive" in unopened


def test_pages_need_no_other_file(pages):
    """No address but data, anchors and the other pages; small enough to mail; a policy that forbids the rest."""
    for page in [pages.index, *pages.cases.values()]:
        html = page.read_text("utf-8")
        addresses = re.findall(r"""(?:src|href|action|poster)\s*=\s*["']([^"']*)["']""", html)
        outside = [a for a in addresses if not a.startswith(("data:", "#", "cases/", "../index.html"))]

        assert not outside
        assert not re.findall(r"url\((?!['\"]?data:)|@import|fetch\(|XMLHttpRequest", html)
        assert "default-src 'none'" in html
        assert len(html) < LARGEST_PAGE


def test_a_name_is_text_on_a_page(pages):
    """Not markup, on its own page and on that of the run."""
    for page in (pages.cases[HOSTILE], pages.index):
        html = page.read_text("utf-8")

        assert "b <i>" not in html
        assert "b &lt;i&gt;&amp;" in html


def test_the_heatmap_is_drawn_from_the_tiles_on_disk(reported, tmp_path):
    """Other scores there draw another heatmap; and they are found not to give the probability of the run."""
    run = tmp_path / "run"
    shutil.copytree(reported, run)
    before = _case(run)
    with h5py.File(run / "slides" / "phantom" / "tiles.h5", "r+") as file:
        file["scores"][:] = file["scores"][:][::-1]
        file["logits"][:] = -file["logits"][:]
    after = _case(run)

    assert _layer(before, "scores") != _layer(after, "scores")
    assert _layer(before, "tissue") == _layer(after, "tissue")
    assert "Yes: the tiles that are drawn above give the probability" in before
    assert "The tiles on disk give a probability of" in after


def _case(run):
    opened = open_run(run)
    result = opened.result("phantom")
    assert result is not None
    return case_page(opened, result, find_weights(opened), made="now", index="").html


def _layer(html, key):
    found = re.search(rf'<g class="layer-{key}[^"]*">\s*<image href="([^"]+)"', html)
    assert found is not None
    return found[1]


def test_a_slide_that_is_gone_is_said_to_be(reported, tmp_path):
    """Masks and heatmap are there all the same."""
    shutil.copytree(reported, tmp_path / "run")
    (tmp_path / "run" / "planned.csv").unlink()  # it says where the slide is
    run = open_run(tmp_path / "run")
    result = run.result("phantom")
    assert result is not None
    gone = replace(result, inputs=replace(result.inputs, path=str(tmp_path / "gone.tif")))

    html = case_page(run, gone, find_weights(run), made="now", index="").html

    assert "cannot be opened any more" in html
    assert _layer(html, "scores")


def _replaced(reported, folder, change):
    """Page of the phantom from a copy of its file, of equal size in bytes, with a later time of change."""
    run = open_run(reported)
    result = run.result("phantom")
    assert result is not None
    was = result.inputs.slide
    assert was is not None
    path = folder / "phantom.tif"
    shutil.copy2(result.inputs.path, path)
    change(path)
    assert path.stat().st_size <= was.bytes
    os.truncate(path, was.bytes)
    os.utime(path, ns=(was.modified_ns, was.modified_ns + 10**9))
    moved = replace(result, inputs=replace(result.inputs, path=str(path)))
    return case_page(run, moved, find_weights(run), made="now", index="").html


def test_another_slide_of_equal_size_is_not_shown(reported, tmp_path):
    """Its tissue has other colours; the answer about the picture is no plain yes, and the layers stay."""

    def move(path):
        with tifffile.TiffFile(path) as file:
            levels = [page.asarray() for page in file.pages]
        with tifffile.TiffWriter(path) as file:
            for k, pixels in enumerate(levels):
                file.write(
                    np.roll(pixels, pixels.shape[1] // 2, axis=1), tile=(256, 256), photometric="rgb",
                    compression="jpeg", compressionargs={"level": 40}, subfiletype=int(k > 0),
                    resolution=(40_000, 40_000), resolutionunit="CENTIMETER", metadata=None,
                )  # fmt: skip

    html = _replaced(reported, tmp_path, move)

    assert "holds another picture: the colours of its tissue are up to" in html
    assert "Yes: the tiles" not in html
    assert "Of the slide, not sure:" in html
    assert _layer(html, "scores")
    assert "Enlarge tile 1" not in html


def test_a_copy_with_another_time_is_shown_with_a_word(reported, tmp_path):
    """As the viewer does; an unchanged file is not doubted."""
    html = _replaced(reported, tmp_path, lambda _: None)

    assert "was copied or changed after it was predicted; its tissue has the colours that it had" in html
    assert "Enlarge tile 1" in html
    assert "copied or changed" not in _case(reported)


def test_damaged_evidence_does_not_stop_the_others(command_line, reported, tmp_path):
    """Its page says so."""
    shutil.copytree(reported, tmp_path / "run")
    (tmp_path / "run" / "slides" / "phantom" / "tiles.h5").write_bytes(b"no HDF5")

    code, out, _ = command_line("report", tmp_path / "run", "--threads", "1")

    assert (code, "3 pages, 3 of slides without a result" in out) == (0, True)
    assert "is damaged" in text_of(tmp_path / "run" / "report" / "cases" / "phantom.html")


def test_pages_of_slides_of_before_are_told(command_line, tmp_path):
    """A run that was overwritten with other slides keeps the calls of the former ones in its report."""
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9)])
    page = run / "report" / "cases" / "gone.html"
    page.parent.mkdir(parents=True)
    page.write_text("HER2 positive")

    code, out, _ = command_line("report", run)

    assert code == 0
    assert "CAUTION pages of slides that the run has no longer are still there: gone; remove them" in out
    assert page.is_file()


def test_a_run_without_evidence_has_its_table(command_line, tmp_path):
    """As of a model on features: slides without folders are called all the same, and have no page."""
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9), MadeUpSlide("b", failure="no tissue")])
    shutil.rmtree(run / "slides")

    code, out, err = command_line("report", run)
    text = text_of(run / "report" / "index.html")

    assert code == 0, err
    assert "1 page, 1 of slides without a result" in out
    assert "1 called HER2 positive 0 called HER2 negative 1 without a result" in text
    assert "a not checked positive 0.900" in text


def test_reports_of_one_slide_and_of_none(command_line, reported, tmp_path):
    """A slide is chosen by name; a name that is not there is refused."""
    code, out, _ = command_line("report", reported, "--slide", "phantom", "--out", tmp_path / "one")
    missing, _, err = command_line("report", reported, "--slide", "nobody", "--out", tmp_path / "none")

    assert (code, [file.name for file in tmp_path.glob("one/**/*.html")]) == (0, ["phantom.html"])
    assert str(tmp_path / "one" / "cases" / "phantom.html") in out
    assert (missing, "has no slide nobody" in err) == (2, True)


def test_an_evaluation_is_shown_if_it_is_of_the_run(command_line, reported, tmp_path):
    """Its figures with their intervals and its plots."""
    slides = [
        MadeUpSlide(f"s{k}", status=("negative", "positive")[k % 2], ihc_score=("0", "3+")[k % 2], probability=p)
        for k, p in enumerate(np.linspace(0.05, 0.95, 12).round(3).tolist())
    ]
    run, labels = write_run(tmp_path / "run", slides), write_labels(tmp_path / "labels.csv", slides)
    done, _, err = command_line(
        "evaluate", run, "--manifest", labels, "--out", tmp_path / "e", "--no-leaks", "--audit-slides", "0"
    )
    assert done == 0, err

    code, _, err = command_line("report", run, "--evaluation", tmp_path / "e", "--out", tmp_path / "r")
    other, _, refused = command_line("report", reported, "--evaluation", tmp_path / "e", "--out", tmp_path / "o")
    elsewhere = write_run(tmp_path / "b", [MadeUpSlide("s0", probability=0.7)])  # by the same settings and weights
    there, _, refused_there = command_line("report", elsewhere, "--evaluation", tmp_path / "e", "--out", tmp_path / "o")

    html = (tmp_path / "r" / "index.html").read_text("utf-8")
    assert code == 0, err
    assert "12 patients, 6 of them HER2-positive" in text_of(tmp_path / "r" / "index.html")
    assert html.count("data:image/svg+xml;base64,") >= 5
    assert (other, "is no evaluation of" in refused) == (2, True)
    assert (there, "is no evaluation of" in refused_there) == (2, True)


def test_export_writes_what_qupath_and_others_open(command_line, reported, tmp_path):
    """The selected tiles, or all; the heatmap equal to the run's own."""
    folder = reported / "slides" / "phantom"
    some = command_line("export", reported, "--out", tmp_path / "some")
    every = command_line("export", reported, "--out", tmp_path / "all", "--slide", "phantom", "--all-tiles")
    texts = {name: (tmp_path / name / "phantom.geojson").read_text() for name in ("some", "all")}
    n = {name: text.count('"objectType":"tile"') for name, text in texts.items()}

    assert (some[0], every[0]) == (0, 0)
    with h5py.File(folder / "tiles.h5") as file:
        assert n == {"some": int(file["selected"][:].sum()), "all": len(file["scores"])}
    assert (tmp_path / "some" / "phantom.geojson").read_bytes() == (folder / "tiles.geojson").read_bytes()
    heatmap = (tmp_path / "some" / "phantom.heatmap.ome.tif").stat().st_size
    assert heatmap == (folder / "heatmap.ome.tif").stat().st_size


def tiles_of(scores, selected):
    """Tiles in a row with these scores."""
    n = len(scores)
    grid = TileGrid(np.stack([np.arange(n) * 256, np.zeros(n, np.int64)], axis=1), 256.0, 256, 0.25)
    chosen = np.zeros(n, bool)
    chosen[selected] = True
    return ScoredTiles(grid, np.asarray(scores, float), logits_of_scores(scores), chosen, chosen / max(chosen.sum(), 1))


def checked(aggregator, selected):
    """Checks of 400 tiles by an aggregator of the (n, 4) logits, of which some are said to decide."""
    tiles = tiles_of(np.linspace(0, 3, 400), selected)

    def aggregate(bag):
        return Aggregated(aggregator(bag.features), None, np.arange(1), np.ones(len(bag)) / len(bag))

    written = round(aggregator(tiles.logits), 6)
    return check_prediction(DecidedTiles(tiles, 256, written, 0.5, 20), aggregate)


def best(logits):
    """Mean score of the 20 best tiles, as a probability."""
    return float(np.sort(logits.argmax(axis=1))[-20:].mean() / 3.2)


def test_removing_the_tiles_that_decide_must_matter():
    """It does for those that the aggregator looks at, not for others that are said to decide, nor by a millionth."""
    honest, dishonest = checked(best, np.arange(330, 400)), checked(best, np.arange(150, 220))
    still = checked(lambda logits: 0.5 + 1e-6 * best(logits), np.arange(330, 400))

    assert honest.spread is not None
    assert (honest.spread.flips, honest.spread.low > 0.5) == (0, True)
    assert honest.removal is not None
    assert dishonest.removal is not None
    assert (honest.removal.faithful, honest.removal.as_large) == (True, 0)
    assert not dishonest.removal.faithful
    assert still.removal is not None
    assert still.removal.as_large == still.removal.draws
    assert honest.removal.curve[-1].highest < honest.removal.curve[-1].random


@pytest.mark.parametrize(("name", "least"), [("mean", 300), ("median", 300), ("mlp", 300), ("mean-features", 1)])
def test_an_aggregator_says_how_many_tiles_it_needs(name, least):
    """A ranking one selects so many, with weights or without; the page of a slide of little more was an error."""
    config = load_config(overrides=[f"networks.aggregator={name}"])

    assert load_aggregator("untrained:0", config).least_tiles == least


def test_a_redraw_that_gives_the_same_decides_the_same():
    """Also where the probability reaches the threshold only as predictions write it."""
    found = checked(lambda _: 0.4999997, np.arange(330, 400))

    assert found.spread is not None
    assert found.spread.flips == 0


def test_a_probability_that_the_tiles_do_not_give_is_seen():
    """Then nothing else is said of them."""
    tiles = tiles_of(np.linspace(0, 3, 100), np.arange(90, 100))
    found = check_prediction(
        DecidedTiles(tiles, 256, 0.2, 0.5, 10), lambda bag: Aggregated(0.9, None, np.arange(1), np.ones(len(bag)))
    )

    assert (found.same, found.spread, found.removal) == (False, None, None)


@given(
    at=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60, unique=True),
    seed=st.integers(0, 9),
)
def test_tiles_that_are_shown_do_not_overlap(at, seed):
    """Neither within a kind nor between kinds; deciding ones are selected."""
    scores = np.random.default_rng(seed).uniform(0, 3, len(at))
    grid = TileGrid(np.array(at, np.int64) * 64, side_l0=256.0, side_px=256, mpp=0.25)
    selected = scores >= np.median(scores)
    tiles = ScoredTiles(grid, scores, logits_of_scores(scores), selected, selected / selected.sum())

    chosen = choose_tiles(tiles)

    shown = [k for kind in chosen.values() for k in kind]
    origins = grid.origins_l0[shown]
    apart = np.abs(origins[:, None] - origins[None]).max(axis=2) >= 256
    assert (apart | np.eye(len(shown), dtype=bool)).all()
    assert selected[chosen["deciding"]].all()
    assert chosen["deciding"][0] == int(np.argmax(scores))


@pytest.fixture
def visit(browser):
    """Open a page from disk, without a network; an error in its scripts and a request for anything fail the test."""
    contexts, faults = [], []

    def visit(address, *, scheme="light", width=1280):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda asked: faults.extend([asked.url] * (not asked.url.startswith(("file:", "data:")))))
        page.goto(address if "://" in str(address) else Path(address).as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, pages, scheme):
    """On the page of the run, of a case with every card open, and of failed slides; moderate findings too."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415

    found = []
    for file in (pages.index, *pages.cases.values()):
        page = visit(file, scheme=scheme)
        page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
        found += [
            (file.name, one["id"], [node["html"][:160] for node in one["nodes"]][:3])
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("critical", "serious", "moderate")
        ]

    assert not found


CROSSED = """() => {
    const texts = [...document.querySelectorAll(".verdict .chart text")];
    const boxes = texts.map((text) => [text, text.getBoundingClientRect()]);
    const cross = (a, b) => a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom;
    return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) => cross(a, b)).map(([other]) =>
        `${one.textContent} / ${other.textContent}`));
}"""


def test_a_threshold_near_the_end_of_the_scale_can_be_read(visit, reported, tmp_path):
    """No words of the chart lie on others, and a triage that rules nobody in names no probability above 1."""
    run = open_run(reported)
    result = run.result("phantom")
    assert result is not None
    assert result.her2 is not None
    triage = TriageNote("refer to IHC", 0.06, 1.01, 0.05, 0.05, "100 patients", "mean")
    her2 = replace(result.her2, probability=0.07, threshold=0.08, triage=triage)
    file = tmp_path / "page.html"
    page = case_page(run, replace(result, her2=her2), find_weights(run), made="now", index="")
    file.write_text(page.html, encoding="utf-8")

    assert visit(file).evaluate(CROSSED) == []
    assert "From 0.06 on the stored triage decides nothing" in text_of(file)


def test_layers_are_switched_without_a_server(visit, pages):
    """Each box hides its layer and shows it again; the colours take their strength from the slider."""
    page = visit(pages.cases["phantom"])
    keys = page.eval_on_selector_all("[id^=layer-]", "all => all.map((one) => one.id)")

    assert {"layer-scores", "layer-tumour", "layer-tissue", "layer-map", "layer-samples", "layer-selected"} <= set(keys)
    for key in keys:
        layer = page.locator(f"svg .{key}")
        shown = page.locator(f"#{key}").is_checked()
        assert layer.is_visible() == shown
        page.locator(f"#{key}").set_checked(not shown)
        assert layer.is_visible() != shown
    page.locator("#strength").fill("20")
    assert page.locator("svg .layer-scores").evaluate("(one) => one.style.opacity") == "0.2"


def test_a_tile_opens_at_full_resolution(visit, pages):
    """Its picture has the pixels of the slide's tile and its surroundings, and closes by the keyboard."""
    page = visit(pages.cases["phantom"])
    page.get_by_role("button", name="Enlarge tile 1", exact=True).press("Enter")

    assert page.locator("dialog img").evaluate("(one) => one.naturalWidth") == 384
    assert "rank 1" in page.locator("dialog .what").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_the_table_sorts_and_filters(visit, pages):
    """By mouse and keyboard; slides without a value come last both ways."""
    page = visit(pages.index)

    def names():
        return page.eval_on_selector_all(
            "#table tbody tr:not([hidden])", "all => all.map((row) => row.cells[1].dataset.v)"
        )

    page.get_by_role("button", name="Probability").press("Enter")
    up = names()
    page.get_by_role("button", name="Probability").click()
    down = names()
    page.get_by_role("button", name="failed 2").click()
    failed = names()
    page.eval_on_selector("#table a[href$='texture.html']", "link => { link.textContent = 'textu\u0308re'; }")
    page.get_by_role("searchbox").fill("text\u00fcre")  # as a keyboard writes what macOS has in the file's name
    composed = names()
    page.eval_on_selector("#table a[href$='texture.html']", "link => { link.textContent = 'texture'; }")
    page.get_by_role("searchbox").fill("texture")

    assert composed == ["texture"]
    assert (up[0], down[0]) == ("phantom", "phantom")
    assert sorted(failed) == sorted(["texture", HOSTILE])
    assert names() == ["texture"]
    assert page.locator("#shown").inner_text() == "1 of 3 shown"
    assert page.locator("th[data-key=p]").get_attribute("aria-sort") == "descending"
    page.get_by_role("link", name="texture").first.click()
    assert page.locator("h1").inner_text() == "texture"


def test_a_page_prints_with_its_notice_on_every_sheet(visit, pages, tmp_path):
    """A few sheets, each with the notice; cards are opened for it; a narrow screen needs no sideways scrolling."""
    page = visit(pages.cases["phantom"])
    page.pdf(path=tmp_path / "case.pdf", prefer_css_page_size=True, print_background=True)
    sheets = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "case.pdf").read_bytes()))
    narrow = visit(pages.cases["phantom"], width=390)

    assert 3 <= sheets <= 12
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390


def test_long_names_and_paths_stay_on_the_sheet(visit, command_line, tmp_path):
    """Else the columns beside them would be cut off."""
    failed = MadeUpSlide(120 * "x", failure=f"no file /{100 * 'y'}.svs")
    run = write_run(tmp_path / "run", [MadeUpSlide("a", probability=0.9), failed])
    assert command_line("report", run)[0] == 0
    page = visit(run / "report" / "index.html", width=700)
    page.emulate_media(media="print")

    assert page.evaluate("document.documentElement.scrollWidth") == 700


def test_a_page_from_disk_is_the_page_that_is_served(browser, visit, pages, tmp_path):
    """The same picture, pixel for pixel."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(pages.index.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    from_disk = visit(pages.cases["phantom"]).screenshot(full_page=True)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/cases/phantom.html")
        served = page.screenshot(full_page=True)
        context.close()
        server.shutdown()

    assert from_disk == served


def test_no_page_of_ours_names_another_host():
    """In the templates themselves."""
    folder = REPOSITORY / "src" / "he2her2" / "pages" / "templates"
    texts = [file.read_text("utf-8") for file in folder.iterdir() if file.suffix in (".html", ".css", ".js")]

    assert len(texts) >= 8
    assert not [found for text in texts for found in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text)]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_run_stays_as_it_is(command_line, tmp_path, name):
    """A wrong path is one line, and no folder is made of it."""
    (tmp_path / "empty").mkdir()

    code, out, err = command_line("report", tmp_path / name)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "give the --out folder of he2her2 predict" in err
    assert not (tmp_path / "nowhere").exists()
    assert not list((tmp_path / "empty").iterdir())
