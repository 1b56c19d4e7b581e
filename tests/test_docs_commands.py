"""Every command of the documentation is run, in its order, at a small size: `make docs-check`, some minutes.

The words are those of the page; what is added makes it small. What is not run here is in `ELSEWHERE`, with the test
that runs it.
"""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from he2her2.exchange import StoredTiles, write_tiles_files
from he2her2.geometry import Point
from he2her2.models import read_card
from he2her2.phantom import make_spec, write_phantom
from he2her2.viewer import Reviews
from tests.labelled_slides import SIDE, labelled_pixels
from tests.made_up_runs import MadeUpSlide, write_labels, write_run
from tests.test_docs_site import BLOCKS
from tests.test_features import onnx_encoder
from tests.tissue_slides import write_tissue

pytestmark = pytest.mark.skipif(not os.environ.get("HE2HER2_DOCS_CHECK"), reason="some minutes: make docs-check")

ORDER = ("your-slides.md", "your-cohort.md", "encoders.md", "testing-networks.md", "thousands-of-slides.md")
"""Pages that are gone through first; the others follow by name."""

ELSEWHERE = {
    "view": "test_viewer_browser.py",
    "demo": "test_wheel.py",
    "status run --watch": "test_cohort_runs.py",
    "predict s3://bucket/slides": "test_remote_slides.py",
    "predict cohort.csv --out run --scheduler": "test_dask_workers.py",
    "predict cohort.csv --out run --shard $SLURM_ARRAY_TASK_ID/10": "test_cluster_recipes.py",
    "import-weights": "test_import_weights.py",
    "predict my-slide.svs --out run --preset released-code --weights authors": "test_import_weights.py",
    "train slides --manifest manifest.csv --weights bundled --out run --set networks.aggregator=attention":
        "test_add_an_aggregator.py",
    "train slides --manifest manifest.csv --features features/ --aggregator attention": "test_add_an_aggregator.py",
    "predict slide.svs --weights run/weights --out prediction --set networks.aggregator=attention":
        "test_add_an_aggregator.py",
    "manifest tcga-brca": "test_adapters.py",
}  # fmt: skip
"""Commands that need a server, a cluster, a bucket, or files that others hold, and the test that runs each."""

HASHI = ("--set", "adaptive.iterations=2", "--set", "adaptive.points=20")
THREE = ("--set", "selection.n_tiles=3")
REGIONS = ("--annotations-use", "replace")
ANY_TUMOUR = ("--set", "adaptive.threshold=0.0001")  # of networks that have learned nothing
CPU = ("--accelerator", "cpu")
EPOCHS = ("--set", "training.epochs=1")
FEW = ("--set", "tissue.blur_px=1", "--set", "quality.apply=false")
MORE = {
    "predict": HASHI,
    "segment": HASHI,
    "train tumour": (*CPU, *EPOCHS, *HASHI, "--set", "training.patches_per_slide=20", "--set", "training.batch_size=8"),
    "train tiles": (*CPU, *EPOCHS, *FEW, "--set", "training.tiles_per_class=8",
                    "--set", "training.val_tiles_per_class=8"),
    "train slides": (*CPU, *EPOCHS),
    "ablate": (*CPU, *HASHI, *ANY_TUMOUR, *THREE, "--set", "tissue.blur_px=1",
               "--set", "training.tiles.epochs=1", "--set", "training.slides.epochs=1",
               "--set", "training.tiles.tiles_per_class=8", "--set", "training.tiles.val_tiles_per_class=8"),
    "features": ("--threads", "2", *HASHI),
    "test tumour": ("--no-shifts",),
    "phantom": ("--patients", "4", "--set", "size_px=[5120,4096]", "--set", "foci=1", "--set", "tumour_share=0.8"),
    "evaluate": ("--no-plots", "--audit-slides", "0", "--no-leaks"),
}  # fmt: skip
"""Options that make a command small; none contradicts the page's own words."""


def commands():
    """Pages and words, each command once, in the order that a reader takes."""
    rank = {page: k for k, page in enumerate(ORDER)}
    seen = set()
    for page, words in sorted(BLOCKS, key=lambda block: rank.get(block[0], len(rank))):
        if tuple(words) not in seen:
            seen.add(tuple(words))
            yield page, words


def elsewhere(words):
    """The test that runs a command which is not run here; None for the others."""
    text = " ".join(words)
    return next((test for start, test in ELSEWHERE.items() if text == start or text.startswith(f"{start} ")), None)


def additions(words):
    """What makes a command small."""
    text = " ".join(words)
    more = next((more for start, more in MORE.items() if text.startswith(start)), ())
    tables = [word for word in words if word.endswith(".csv")]
    if words[0] == "predict" and tables:
        more += (*REGIONS, *FEW, *THREE, *(() if "--weights" in words else ("--weights", "untrained:0")))
    if text.startswith("train slides") and "--features" not in words:
        more += (*THREE, *REGIONS, *FEW)
    if words[0] == "features":
        more += () if "--coords" in words else ("--region", "annotated", *FEW)
    return more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages' commands are given, by the names that they use."""
    folder = tmp_path_factory.mktemp("docs")
    spec = make_spec(seed=5, ihc_score="3+", signal=1.0, size_px=(5120, 4096), tumour_share=0.8, foci=1)
    write_phantom(folder / "my-slide.svs", spec, workers=1)
    stained = make_spec(seed=5, ihc_score="3+", stain="IHC", size_px=(4096, 4096), tissue_extent=0.7, pen=0, blur=0)
    write_phantom(folder / "ihc.svs", stained, workers=1)
    (folder / "slides").mkdir()
    for name in ("slides/a.svs", "slides/b.svs", "new.svs", "slide.svs", "case.svs"):
        os.link(folder / "my-slide.svs", folder / name)
    square = "[[[0,0],[4096,0],[4096,4096],[0,4096],[0,0]]]"
    geojson = (
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"objectType":"annotation",'
        f'"classification":{{"name":"Tumor"}}}},"geometry":{{"type":"Polygon","coordinates":{square}}}}}]}}'
    )
    (folder / "regions.geojson").write_text(geojson)
    (folder / "tumour.geojson").write_text(geojson)
    _write_cohorts(folder)
    _write_patches(folder / "patches.npz")
    onnx_encoder(folder / "my-encoder")
    return folder


def _write_cohorts(folder):
    """Manifests of small slides: H&E with status and regions, IHC with scores, and labels of made-up scores."""
    mask = np.zeros((SIDE // 32, SIDE // 32), np.uint8)
    mask[:, : SIDE // 64 + 4] = 255
    Image.fromarray(mask).save(folder / "left.png")
    head = "slide_id,path,patient_id,stain,ihc_score,her2_status,site,split,mpp,annotations"
    he, ihc = [head], [head]
    for k in range(16):
        status, score = ("negative", "positive")[k % 2], ("0", "3+")[k % 2]
        split, site = ("train", "train", "val", "val", "test", "test")[k % 6], f"site{k // 2 % 2}"
        write_tissue(folder / f"he{k}.svs", labelled_pixels(status, k))
        he.append(f"he{k},he{k}.svs,P{k},HE,{score},{status},{site},{split},0.25,left.png")
        if k < 8:
            score = ("0", "1+", "2+", "3+")[k % 4]
            write_tissue(folder / f"ihc{k}.svs", labelled_pixels(status, 20 + k))
            ihc.append(f"ihc{k},ihc{k}.svs,Q{k},IHC,{score},,,{'train' if k < 4 else 'val'},0.25,")
    for name in ("cohort", "he", "brca", "regions", "manifest"):
        (folder / f"{name}.csv").write_text("\n".join(he) + "\n")
    for name in ("a", "b", "new"):
        (folder / f"{name}.csv").write_text("\n".join([head, *(row for row in he if ",test," in row)]) + "\n")
    (folder / "ihc.csv").write_text("\n".join(ihc) + "\n")


def _write_patches(path):
    rng = np.random.default_rng(0)
    invasive = np.arange(48) % 2 == 1
    patch = rng.integers(120, 220, (48, 50, 50, 3)).astype(np.uint8)
    patch[invasive] -= 60
    np.savez(path, patch=patch, invasive=invasive, patient=np.array([f"R{k // 4}" for k in range(48)]))


def test_every_command_of_the_docs_runs(folder, command_line, monkeypatch):
    """In one folder, page after page; `commands.log` in it says what ran and how long the processor took."""
    monkeypatch.chdir(folder)
    log, ran, failed = Path("commands.log"), 0, []
    for page, words in commands():
        if elsewhere(words):
            continue
        prepare(page, words)
        code, out, err = command_line(*words, *additions(words))
        ran += 1
        line = f"{page}: he2her2 {' '.join(words)}"
        if code != 0:
            failed.append(f"{line}\n  exit code {code}: {(err or out).strip()[-600:]}")
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.process_time():6.1f} s  {failed[-1] if code else line}\n")

    assert not failed, "\n".join(failed)
    assert ran > 45


def prepare(page, words):
    """Make way for what the page begins afresh, and lay out what it takes for granted."""
    text = " ".join(words)
    out = Path(words[words.index("--out") + 1]) if "--out" in words else None
    if out is not None and out.is_dir():
        shutil.rmtree(out)
    if (page == "your-cohort.md" and text.startswith("evaluate run")) or text.startswith("recalibrate site-run"):
        _many_patients(words[1])
    if "W" in words and not Path("W").exists():  # of the README: any weights
        shutil.copytree("slides/weights", "W")
    if "run/annotations" in words:
        _drawn_in_the_viewer(Path("run/annotations"))
    if text.startswith("compare"):
        for name in ("run", "other-run", "other"):
            _many_patients(name)
    if text.startswith(("predict site.csv", "weights adapt")):
        shutil.copy("cohort.csv", "site.csv")
    if "tumour-run" in words and not Path("tumour-run").exists():
        shutil.copytree("tumour", "tumour-run")
        few = Path("regions.csv").read_text().splitlines()[:3]  # a dense map of each is computed
        Path("regions.csv").write_text("\n".join(few) + "\n")
    if "--coords" in words:
        _coordinates_of_trident()


def _drawn_in_the_viewer(folder):
    """Regions of every slide of the cohort, as the viewer keeps them."""
    reviews, drawn = Reviews(folder), Path("regions.geojson").read_bytes()
    for k in range(16):
        reviews.save_regions(f"he{k}", drawn, Point(0, 0), "none")


def _coordinates_of_trident():
    corners = np.array([(x * 128, y * 128) for x in range(4) for y in range(4)], np.int64)
    for k in range(16):
        tiles = StoredTiles(f"he{k}", corners + 256, side=128, side_px=128, mpp_l0=0.25)
        write_tiles_files(Path("trident"), tiles, "trident")


def _many_patients(name):
    """A run of as many patients as figures need, in place of that of a few slides; its labels, and another's scores."""
    rng = np.random.default_rng(len(name))
    slides = [
        MadeUpSlide(
            f"s{k}", f"M{k}", ("negative", "positive")[k % 2], ("0", "3+")[k % 2], f"site{k // 2 % 2}",
            ("val", "test")[k // 2 % 2], probability=float(np.clip(rng.normal(0.12 + 0.3 * (k % 2), 0.12), 0.01, 0.99)),
        )
        for k in range(160)
    ]  # fmt: skip
    shutil.rmtree(name, ignore_errors=True)
    cards = [
        read_card(Path("slides") / "weights" / role, role).summary for role in ("tumour_cnn", "tile_cnn", "aggregator")
    ]
    write_run(Path(name), slides, weights=cards)
    for table in ("split.csv", "labels.csv", "site.csv"):
        write_labels(Path(table), slides)
    scores = [
        f"{one.slide_id},{one.patient_id},{rng.uniform(0.2, 0.8) + 0.2 * (k % 2):.3f}" for k, one in enumerate(slides)
    ]
    Path("scores.csv").write_text("\n".join(("slide_id,patient_id,probability", *scores)) + "\n")


def test_what_is_not_run_here_is_run_elsewhere():
    """Each exception stands for a command of the pages, and names a test that there is."""
    every = [words for _, words in commands()]
    for start, test in ELSEWHERE.items():
        assert any(elsewhere(words) == test for words in every), start
        assert (Path(__file__).parent / test).is_file(), test
