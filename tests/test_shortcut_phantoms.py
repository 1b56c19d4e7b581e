"""The shortcut audit on phantoms: it cries where the size of the tissue encodes the label, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from he2her2.config import Config
from he2her2.evaluation import join, slide_properties
from he2her2.evaluation.audits import shortcut_audit
from he2her2.manifest import read_manifest
from he2her2.phantom import make_spec, write_phantom
from he2her2.preprocessing import tissue_mask
from he2her2.results import open_run
from he2her2.slides import open_slide
from he2her2.units import area_mm2
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

N = 14
TISSUE = Config().tissue


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A run over phantoms without any HER2 signal, every other one with much tissue: sizes and colours as measured."""
    folder, rng = tmp_path_factory.mktemp("phantoms"), np.random.default_rng(0)
    slides = []
    for k in range(N):
        extent = (0.4, 0.65)[k % 2] + rng.uniform(-0.05, 0.05)
        file = folder / f"phantom-{k}.tif"
        write_phantom(file, make_spec(seed=k, size_px=(768, 768), signal=0.0, tissue_extent=extent, foci=1))
        slides.append(measured(MadeUpSlide(f"phantom-{k}", probability=float(rng.random())), file))
    return write_run(folder / "run", slides), slides


def measured(slide, file):
    """The slide with the tissue that preprocessing finds on its file."""
    with open_slide(file) as opened:
        rgb = opened.thumbnail(1.0)
        mm2 = area_mm2(opened.size_l0.w * opened.size_l0.h, opened.mpp)
    tissue = tissue_mask(rgb, TISSUE)
    colour = rgb[tissue].mean(axis=0).tolist()
    return replace(slide, tissue_mm2=float(tissue.mean() * mm2), colour=colour)


def audit_of(phantoms, folder, positive):
    """The audit of the run, its k-th phantom labelled by `positive(k)`."""
    run_folder, slides = phantoms
    labelled = [replace(s, status="positive" if positive(k) else "negative") for k, s in enumerate(slides)]
    run, manifest = open_run(run_folder), read_manifest(write_labels(folder / "manifest.csv", labelled))
    joined = join(run, manifest)
    properties = slide_properties(run, joined.slides.ids)
    return shortcut_audit(joined.patients, properties.of_patients(joined.slides.patients, joined.patients.ids))


def test_tissue_size_that_encodes_the_label_is_caught(phantoms, tmp_path):
    """Phantoms with much tissue are the positive ones: the audit alarms and names the tissue's size."""
    audit = audit_of(phantoms, tmp_path, lambda k: k % 2 == 1)

    assert audit.alarm
    assert "tissue area" in {row["shortcut"] for row in audit.rows if row["predicts"]}
    assert audit.sentence.startswith("Tissue area alone predicts the label with an AUC of ")


def test_the_audit_is_silent_where_tissue_size_says_nothing(phantoms, tmp_path):
    """The same phantoms with labels that know no size: no alarm, and no property predicts."""
    audit = audit_of(phantoms, tmp_path, lambda k: k % 4 >= 2)

    assert audit.done
    assert not audit.alarm
    assert not any(row["predicts"] for row in audit.rows)
