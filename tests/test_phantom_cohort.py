"""A cohort of phantoms: labels, splits, manifest, bytes, and bad parameters."""

import csv
import time
from multiprocessing import active_children

import openslide
import pytest

from he2her2.cli.phantoms import phantom
from he2her2.errors import He2Her2Error, PhantomError
from he2her2.phantom import load_cohort, write_cohort
from he2her2.phantom.cohort import _plan_slides
from he2her2.phantom.processes import drawing_processes

TINY = {"size_px": [600, 520], "tissue_extent": 0.5, "foci": 1}


def rows_of(manifest):
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifest_names_every_slide(tmp_path, capsys):
    """One row a slide, with labels, and a path that opens from the manifest's folder."""
    manifest = tmp_path / "out" / "manifest.csv"

    phantom(tmp_path / "out", n=4, seed=3, stain=["HE", "IHC"], settings=["size_px=[600, 520]"], threads=1)
    rows = rows_of(manifest)
    *lines, last = capsys.readouterr().out.splitlines()

    assert len(rows) == len(lines) == 8
    assert str(manifest) in last
    assert {row["stain"] for row in rows} == {"HE", "IHC"}
    assert sorted({row["ihc_score"] for row in rows}) == ["0", "1+", "2+", "3+"]
    for row in rows:
        positive = row["ihc_score"] == "3+" or row["ish"] == "positive"
        assert row["her2_status"] == ("positive" if positive else "negative")
        assert (row["ish"] != "") == (row["ihc_score"] == "2+")
        with openslide.OpenSlide(manifest.parent / row["path"]) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == float(row["mpp"])
        assert (manifest.parent / "truth" / row["slide_id"] / "truth.json").exists()


def test_a_patient_is_in_one_split():
    """Both slides of a patient share label, site and split; splits and labels keep their shares."""
    slides = _plan_slides(load_cohort(n=40, seed=1, stains=("HE", "IHC"), sites=("her2sc-like", "brca-like")))

    by_patient: dict[str, set[tuple[str, ...]]] = {}
    for slide in slides:
        by_patient.setdefault(slide.patient_id, set()).add((slide.split, slide.spec.site, slide.spec.ihc_score))
    splits = [next(iter(kinds))[0] for kinds in by_patient.values()]
    assert all(len(kinds) == 1 for kinds in by_patient.values())
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (24, 8, 8)
    assert len({slide.spec.seed for slide in slides}) == 40


def test_the_same_seed_gives_the_same_cohort(tmp_path):
    """Two runs write the same bytes everywhere."""
    folders = [tmp_path / name for name in ("one", "two")]

    for folder in folders:
        write_cohort(folder, load_cohort(n=2, seed=9, slide=TINY))
    files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders]

    assert len(files[0]) > 4
    assert files[0] == files[1]


def test_a_toml_file_has_settings_and_options_override_it(tmp_path):
    """Options on the command line override the file."""
    file = tmp_path / "cohort.toml"
    file.write_text('n = 7\nsites = ["brca-like"]\n[slide]\nsignal = 0.9\npen = 2\n', "utf-8")

    cohort = load_cohort(file, n=3, slide={"pen": 1})

    assert (cohort.n, cohort.sites, cohort.slide) == (3, ("brca-like",), {"signal": 0.9, "pen": 1})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"n": 0}, "n: "),
        ({"stain": ["PAS"]}, "stains"),
        ({"site": ["home"]}, "sites"),
        ({"settings": ["signal=2"]}, "signal"),
        ({"settings": ["signal"]}, "key=value"),
        ({"settings": ["signal=0.3\nfoci=2"]}, "holds several lines"),  # all but the first were dropped
        ({"settings": [f"foci={'[' * 3000}"]}, "foci"),
        ({"settings": ["colour=red"]}, "colour is not a setting"),
        ({"settings": ["seed=3"]}, r"drawn for each patient; set the cohort's seed \(--seed\)"),
        ({"settings": ["ihc_score=3+"]}, r"set the cohort's scores, such as scores = \[0, 0, 0, 1\] .* --config"),
    ],
)
def test_a_bad_option_is_one_line_and_writes_nothing(tmp_path, options, names):
    """Nothing is drawn before every setting is checked."""
    with pytest.raises(He2Her2Error, match=names) as caught:
        phantom(tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_processes_draw_slides_in_order_and_the_same_bytes(tmp_path):
    """Two processes, each with slides of its own, write what one writes; slides are told of in order."""
    cohort, told = load_cohort(n=3, seed=9, slide=TINY), []
    write_cohort(tmp_path / "one", cohort)
    write_cohort(tmp_path / "two", cohort, workers=2, on_slide=lambda slide, _: told.append(slide.slide_id))
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "one", tmp_path / "two")
    )

    assert [f"phantom-9-000{k}-HE" for k in range(3)] == told
    assert one == two


def test_at_least_one_process_draws(tmp_path):
    """A cohort that no process would draw is refused before anything is written."""
    with pytest.raises(ValueError, match="workers"):
        write_cohort(tmp_path / "out", load_cohort(n=1, slide=TINY), workers=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["n = ", "m = 3", "slide = 4", "[slide]\nsignal = 'much'", f"n = {'[' * 3000}"])
def test_a_bad_file_is_one_line(tmp_path, text):
    """A broken or wrong TOML file raises an error of one line."""
    file = tmp_path / "cohort.toml"
    file.write_text(text, "utf-8")

    with pytest.raises(PhantomError) as caught:
        phantom(tmp_path / "out", config=file)
    assert "\n" not in str(caught.value)


def test_an_existing_cohort_is_not_overwritten(tmp_path):
    """A folder that holds a cohort is left alone."""
    (tmp_path / "manifest.csv").write_text("slide_id\n", "utf-8")

    with pytest.raises(PhantomError, match="exists"):
        phantom(tmp_path, n=1)


def test_a_stopped_cohort_has_no_manifest(tmp_path):
    """The manifest comes last, and only complete slides stay."""

    def stop(_slide, _truth):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path, load_cohort(n=2, slide=TINY), on_slide=stop)

    assert not (tmp_path / "manifest.csv").exists()
    assert len(list((tmp_path / "slides").iterdir())) == 1


def interrupted_drawing():
    with drawing_processes(2) as pool:
        drawing = pool.submit(time.sleep, 300)
        while not drawing.running():
            time.sleep(0.01)
        raise KeyboardInterrupt


def test_interrupted_drawing_ends_its_processes_at_once():
    """Ctrl-C and SIGTERM do not wait for the slides that are being drawn."""
    start = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        interrupted_drawing()

    assert not active_children()
    assert time.monotonic() - start < 100
