"""`he2her2 ablate`: the six methods of Tables 3 and 4 (paper, 5.4), from manifests to tables, in one resumable folder.

Every step leaves its result in the run's folder and is not done again unless what it is made of has changed: tumour is
found on the training slides (`bags/`), the tile CNN learns from IHC (`tiles/`) and, where asked for, from H&E tiles
(`adapted/`), six trainings on slides (`methods/`), six verdicts on every test slide (`tests/`), tables (`tables/`,
`report.md`).
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from he2her2.ablation.cohorts import Study
from he2her2.ablation.methods import METHODS, AblationSettings
from he2her2.ablation.report import write_tables
from he2her2.ablation.steps import AblationData, Steps
from he2her2.ablation.testing import decide_cohort, load_trained
from he2her2.models import CARD_FILE, cnn_named
from he2her2.training.run import Execution, begin_run, fingerprint
from he2her2.training.slides.bags import TumourTiler, build_bags
from he2her2.training.slides.data import load_tumour_cnn

_FOLDERS = ("bags", "tiles", "adapted", "start", "methods", "tests", "tables")


def ablate(data: AblationData, out: Path, settings: AblationSettings, execution: Execution) -> Path:
    """Train the six methods, test them on every cohort, and write the paper's tables of them.

    Args:
        data: Slides and weights.
        out: Folder of the run; one that was stopped goes on.
        settings: How.
        execution: How it is carried out; `resume` is taken for granted.

    Returns:
        The report.

    Raises:
        ManifestError: All that is wrong with manifests and training slides, before any training.
        ConfigError: Settings, weights or hardware that do not fit, or a run of other settings in the folder.
        WeightsError: The weights cannot be used.
        OutputError: The folder cannot be written, or holds something else.
    """
    study = data.read()
    tumour_cnn = load_tumour_cnn(data.weights, data.annotations_use, settings.config)
    execution = replace(execution, resume=True)
    _open(data, out, settings, execution)
    spec = cnn_named(settings.config.networks.tile_cnn, "tile_cnn")
    recipe = TumourTiler(spec.input, settings.config, tumour_cnn, data.annotations_use)
    rows = study.training_rows
    execution.say(f"tumour on {len(rows)} training slides")
    build_bags(
        rows,
        recipe,
        out / "bags",
        policy=data.policy,
        progress=execution.progress,
    )
    run = Steps(data, out, settings, study, spec, recipe, replace(execution, overwrite=False))
    run.learn_tiles()
    for method in sorted(METHODS, key=lambda method: not method.pretrained):  # those of one start share its logits
        run.prepare(method)
        run.train(method)
    trained = {
        method: load_trained(
            run.folder_of(method) / "weights",
            method.config(settings.config),
            [run.tile_weights] if method.pretrained else [],
        )
        for method in METHODS
    }
    results = []
    for cohort in study.tests:
        execution.say(f"six methods decide on {len(cohort.rows)} slides of {cohort.name}")
        folder = out / "tests" / cohort.name
        results.append(decide_cohort(cohort, trained, recipe, folder, policy=data.policy, progress=execution.progress))
    return write_tables(
        out,
        results,
        {method: run.folder_of(method) for method in METHODS},
        tile_run=run.tile_run,
        about=_about(data, study, settings),
        notice=data.notice,
    )


def _about(data: AblationData, study: Study, settings: AblationSettings) -> str:
    """What was trained on what, in words."""
    ihc = f"{len(study.ihc_rows)} IHC slides" if study.ihc_rows else "given weights"
    adapted = " then H&E tiles by their slide's score (not in the paper)," if data.adapt else ""
    networks, slides = settings.config.networks, settings.slides
    frozen = "; the tile CNN is frozen there, only MLPs learn" if slides.freeze_cnn else ""
    return (
        f"Preset {settings.config.preset}: {networks.tile_cnn} from {ihc},{adapted} then {slides.epochs} epochs on "
        f"{len(study.training_rows)} H&E slides (train and val), {settings.config.selection.n_tiles} tiles a slide, "
        f"β = {settings.config.scoring.beta:g} in prediction{frozen}. All settings: `run.json`."
    )


def _open(data: AblationData, out: Path, settings: AblationSettings, execution: Execution) -> None:
    """Check that the run may use its folder, and write `run.json` there."""
    files = data.files
    inputs: dict[str, Any] = {
        "ihc": fingerprint(files.ihc),
        "train": fingerprint(files.train),
        "tests": {name: fingerprint(path) for name, path in files.tests.items()},
        "annotations_use": data.annotations_use,
        "adapt": data.adapt,
        "policy": data.policy.value,
        "notice": data.notice,
        "licence": data.licence,
        "tile_cnn": data.tile_weights and fingerprint(data.tile_weights / "tile_cnn" / CARD_FILE),
        "tumour_cnn": None,
    }
    if data.annotations_use != "replace" and data.weights is not None:
        inputs["tumour_cnn"] = fingerprint(data.weights / "tumour_cnn" / CARD_FILE)
    begin_run(out, "ablation", execution, config=settings.config, settings=settings.trainings, inputs=inputs)
    for name in _FOLDERS if execution.overwrite else ():
        shutil.rmtree(out / name, ignore_errors=True)
