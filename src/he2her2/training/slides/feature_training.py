"""`he2her2 train slides --features`: an aggregator on features, cross-validated, exported, and reported."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from he2her2.config import Config
from he2her2.csv_files import write_csv
from he2her2.errors import ConfigError, few_of
from he2her2.files import atomic, digest, read_json, write_json
from he2her2.labels import Her2Status
from he2her2.manifest import Split, hashed_patient, join_records, shared_patients, write_patients, write_record
from he2her2.models import (
    AGGREGATORS,
    ENCODER_FOLDER,
    TILE_CNN,
    UNSTATED_ENCODER,
    aggregator_named,
    load_encoder,
    why_not_of,
)
from he2her2.models.torch_modules import module_of
from he2her2.results import RESEARCH_USE_NOTICE, RUN_FILE, describe_environment, write_failures
from he2her2.rules import is_called
from he2her2.statistics import Estimate
from he2her2.training.report import (
    REPORT,
    Provenance,
    card_metrics,
    distinct_notices,
    estimate_rows,
    export,
    write_report,
)
from he2her2.training.run import Execution, begin_run
from he2her2.training.settings import FeatureTraining
from he2her2.training.slides.feature_data import FeatureCohort, read_feature_cohort
from he2her2.training.slides.feature_learning import Learnt
from he2her2.training.slides.feature_study import FeatureData, FeatureStudy, FoldResult
from he2her2.training.slides.judgement import figures_by_patient

__all__ = ["FeatureData", "train_on_features"]

_OUT_OF_FOLD, _REPEATS = "out-of-fold", "repeats"
_THRESHOLD = 0.5
_COLUMNS = ("slide_id", "path", "status", "probability", "threshold", "notices")


def train_on_features(
    data: FeatureData, out: Path, config: Config, settings: FeatureTraining, execution: Execution
) -> Path:
    """Cross-validate an aggregator and train the one that is kept; `out/out-of-fold` is a run that `evaluate` takes.

    Args:
        data: Features and labels.
        out: Folder of the run; the same command again goes on with the fold that was stopped.
        config: The method's settings, for the record.
        settings: Of the training.
        execution: Resuming and messages.

    Returns:
        The report.

    Raises:
        ManifestError: All problems of the manifest, or too few patients for the folds.
        ConfigError: An unknown aggregator or setting, features of several encoders, or a training that diverged.
        OutputError: The folder cannot be written, or holds something else.
    """
    kind = aggregator_named(data.aggregator)
    if not kind.reads_any_features:
        fit = ", ".join(name for name, spec in AGGREGATORS.items() if spec.reads_any_features)
        raise ConfigError(f"aggregator {kind.name}: ranks the logits of the tile CNN; on features use one of {fit}")
    data.check_choices()
    cohort = read_feature_cohort(data.manifest, data.features, data.policy, places=kind.reads_places)
    cohort = _with_stated_encoder(data, cohort)
    seen = _seen_by_encoder(data, cohort)
    study = FeatureStudy(data, cohort, settings, replace(kind, n_features=cohort.n_features))
    _ = study.splits_of_folds if data.folds else study.stated_splits  # told before the folder is begun
    inputs = data.inputs | {"encoder": asdict(cohort.encoder), "features": cohort.fingerprint}
    begin_run(out, "features", execution, config=config, settings=settings, inputs=inputs)
    for failure in cohort.missing[:5]:
        execution.say(f"CAUTION {failure}")
    if len(cohort.missing) > 5:
        execution.say(f"CAUTION and {len(cohort.missing) - 5} more slides without features")
    if elsewhere := _cut_elsewhere(data.features):
        execution.say(f"CAUTION {elsewhere}")
    if seen:
        execution.say(f"CAUTION the features are of a tile CNN that was trained or chosen with {_some(seen)}")
    results = study.cross_validate(out, execution)
    final = study.final()
    _finish(study, out, execution, results, final, seen)
    return out / REPORT


def _finish(
    study: FeatureStudy,
    out: Path,
    execution: Execution,
    results: Sequence[FoldResult],
    final: tuple[Learnt, dict[str, Any], dict[str, Split]],
    seen: Sequence[str],
) -> None:
    """Write the runs of out-of-fold predictions, the weights that are kept, and the report."""
    data, cohort = study.data, study.cohort
    learnt, chosen, splits = final
    repeats = [_of_repeat(results, repeat) for repeat in range(1, data.repeats + 1)] if data.folds else []
    figures: tuple[Estimate, ...] = ()
    if repeats:
        for k, probabilities in enumerate(repeats, start=1):
            _write_run(study, out / _REPEATS / str(k), probabilities, execution)
        mean = {name: float(np.mean([one[name] for one in repeats])) for name in repeats[0]}
        _write_run(study, out / _OUT_OF_FOLD, mean, execution)
        figures = _figures(study, mean)
    else:
        judge = study.aggregator(learnt)
        figures = _figures(
            study,
            {s.row.slide_id: judge(cohort.bag(s)).probability for s in study.slides(splits, "val")},
        )
    measured = "out-of-fold predictions" if repeats else "the validation slides, which picked the epoch"
    provenance = Provenance(
        data=_data_in_words(study, splits),
        licence=data.licence,
        recipe=_recipe(study, chosen, learnt),
        metrics=card_metrics(figures, measured),
        limits=(
            *(RESEARCH_USE_NOTICE, f"figures are of {measured}, not of a test set"),
            *filter(None, [_cut_elsewhere(data.features)]),
        ),
        notices=distinct_notices(data.notice),
    )
    weights = out / "weights"
    shutil.rmtree(weights / "aggregator", ignore_errors=True)
    module = module_of(study.spec, learnt.weights)
    export(module, study.spec, weights / "aggregator", provenance, encoder=cohort.encoder)
    _copy_beside(data, weights)
    write_patients(weights, _record(study, splits), [] if data.weights is None else [data.weights])
    write_report(
        out,
        "feature_training.md",
        provenance,
        figures=estimate_rows(figures),
        measured=measured,
        repeats=[(k, *_cells(study, found)) for k, found in enumerate(repeats, start=1)],
        folds=results,
        final=learnt,
        chosen=chosen,
        missing=cohort.missing,
        run=out / _OUT_OF_FOLD if repeats else None,
        seen=_some(seen) if seen else "",
        mismatches=[found for found in results if found.selection_mismatch is not None],
    )


def _copy_beside(data: FeatureData, weights: Path) -> None:
    """Copy the networks that `predict` needs beside the aggregator."""
    sources = {role: data.weights / role for role in ("tumour_cnn", "tile_cnn")} if data.weights is not None else {}
    for name, source in (sources | ({ENCODER_FOLDER: data.encoder} if data.encoder is not None else {})).items():
        if source.is_dir():
            with atomic(weights / name) as draft:
                shutil.copytree(source, draft)


def _with_stated_encoder(data: FeatureData, cohort: FeatureCohort) -> FeatureCohort:
    """The cohort, whose encoder is the given one where its files name none.

    Raises:
        WeightsError: The encoder's folder, or that of the tile CNN that is copied as the encoder, cannot be used.
        ConfigError: It is not that of the features.
    """
    found = cohort.encoder
    if data.encoder is None:
        there = found.name == TILE_CNN and data.weights is not None and (data.weights / "tile_cnn").is_dir()
        if there and found.sha256 not in ("", load_encoder(TILE_CNN, data.weights, "cpu").identity):
            raise ConfigError(f"--weights {data.weights}: another tile CNN gave the features; give its weights")
        return cohort
    encoder = load_encoder(str(data.encoder), data.weights, "cpu")
    if reason := why_not_of(encoder, found, cohort.n_features):
        raise ConfigError(
            f"--encoder {data.encoder}: is not the encoder that gave the features: {reason}; give that one"
        )
    if found.name != UNSTATED_ENCODER:
        return cohort
    return replace(cohort, encoder=replace(found, name=encoder.card.name, sha256=encoder.identity))


def _cut_elsewhere(features: Path) -> str:
    """Caution that the tiles of a folder of features were cut elsewhere than `predict` cuts; empty if they were not."""
    try:
        region = read_json(features / RUN_FILE).get("region")
    except (OSError, ValueError):
        region = None
    if region in ("tumour", "annotated"):
        return ""
    where = "are of all tissue" if region == "tissue" else "do not say where tiles were cut, which may be all tissue"
    return f"the features {where}: predict cuts the tumour that it finds, and so decides by other tiles than these"


def _seen_by_encoder(data: FeatureData, cohort: FeatureCohort) -> tuple[str, ...]:
    """Patients of the cohort with whom the tile CNN that gave the features was trained or chosen, by name.

    Raises:
        ManifestError: The record of its patients is damaged.
    """
    if cohort.encoder.name != TILE_CNN or data.weights is None:
        return ()
    return shared_patients((slide.row for slide in cohort.slides), data.weights)


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} of these patients ({few_of(names)}): figures of theirs are no test"


def _of_repeat(results: Sequence[FoldResult], repeat: int) -> dict[str, float]:
    """Out-of-fold probability of every slide in one repeat."""
    return {name: p for found in results if found.repeat == repeat for name, p in found.probabilities.items()}


def _write_run(study: FeatureStudy, folder: Path, probabilities: Mapping[str, float], execution: Execution) -> None:
    """Write predictions as a run of `predict` has them; every slide by weights that never saw its patient."""
    rows = (slide.row for slide in study.cohort.slides)
    write_csv(
        folder / "predictions.csv",
        _COLUMNS,
        (
            (row.slide_id, row.path, _status(probabilities[row.slide_id]), f"{probabilities[row.slide_id]:.6f}",
             _THRESHOLD, study.data.notice)
            for row in rows
        ),
        line_end="\r\n",
    )  # fmt: skip
    write_failures(folder / "failures.csv", study.cohort.missing)
    described = {
        "digest": digest(study.data.inputs, asdict(study.settings), study.cohort.encoder),
        "out_of_fold": {"folds": study.data.folds, "repeats": study.data.repeats, "aggregator": study.data.aggregator},
        "training_patients": [],  # of the weights that predicted a slide, none is its own patient
        "validation_patients": [],
    }
    if study.cohort.encoder.name == TILE_CNN:
        write_record(folder, join_records([(TILE_CNN, study.data.weights)]))
    write_json(folder / "run.json", describe_environment(execution.command) | described, ascii_only=True)


def _status(probability: float) -> str:
    return (Her2Status.POSITIVE if is_called(probability, _THRESHOLD) else Her2Status.NEGATIVE).value


def _figures(study: FeatureStudy, probabilities: Mapping[str, float]) -> tuple[Estimate, ...]:
    """Figures of the slides that have a probability."""
    slides = [slide for slide in study.cohort.slides if slide.row.slide_id in probabilities]
    found = [probabilities[slide.row.slide_id] for slide in slides]
    truth, decided = [slide.positive for slide in slides], [is_called(p, _THRESHOLD) for p in found]
    return figures_by_patient([slide.row for slide in slides], truth, found, decided)


def _cells(study: FeatureStudy, probabilities: Mapping[str, float]) -> Iterator[str]:
    """Figures of one repeat as cells."""
    return (figure.text(3) for figure in _figures(study, probabilities))


def _record(study: FeatureStudy, splits: Mapping[str, Split]) -> dict[str, str | list[str]]:
    """Record of the patients of the weights that are kept."""

    def hashes(side: Split) -> list[str]:
        return sorted({hashed_patient(slide.row.patient_id) for slide in study.slides(splits, side)})

    return {
        "manifest": study.data.manifest.name,
        "training_patients": hashes("train"),
        "validation_patients": hashes("val"),
    }


def _data_in_words(study: FeatureStudy, splits: Mapping[str, Split]) -> str:
    parts = []
    uses: dict[Split, str] = {"train": "trained on", "val": "epoch picked on"}
    for side, use in uses.items():
        slides = study.slides(splits, side)
        positive, tiles = sum(slide.positive for slide in slides), sum(slide.n_tiles for slide in slides)
        parts.append(f"{use} {len(slides)} H&E slides ({positive} positive), {tiles} tiles")
    return f"{study.data.manifest.name}: {'; '.join(parts)}; features of {study.cohort.encoder.name}"


def _recipe(study: FeatureStudy, chosen: Mapping[str, Any], learnt: Learnt) -> str:
    data, settings = study.data, asdict(replace(study.settings, **chosen))
    folds = f"{data.folds} folds by {'site' if data.by_site else 'patient'}, {data.repeats} repeats; " * bool(
        data.folds
    )
    return (
        f"he2her2 train slides --features, {data.aggregator} aggregator on {study.cohort.n_features} features; {folds}"
        f"{len(learnt.history)} epochs, the best kept; {json.dumps(settings, sort_keys=True)}"
    )
