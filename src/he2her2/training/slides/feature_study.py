"""An aggregator on features under k-fold cross-validation, with patients kept whole."""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from he2her2.errors import ConfigError, ManifestError, few_of
from he2her2.files import read_json, write_json
from he2her2.labels import Policy
from he2her2.manifest import Patient, Split, site_doubts, split_by_shares, split_in_folds
from he2her2.models import Aggregator, AggregatorSpec, Card
from he2her2.models.torch_modules import module_of, run_of
from he2her2.training.run import Execution, fingerprint
from he2her2.training.settings import FeatureTraining
from he2her2.training.slides.feature_data import FeatureCohort, FeatureSlide
from he2her2.training.slides.feature_learning import LabelledBag, Learnt, learn

_FOLDS = "folds"
_VAL_SHARE = 0.15
_MOST_TOLD = 3
_FOLDS_WITH_VAL = 3
_SIDES: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, slots=True)
class FeatureData:
    """Features, labels, and the way of validation.

    Attributes:
        manifest: H&E slides with a status.
        features: Folder of their files of features.
        aggregator: Name of the aggregator.
        folds: Of the cross-validation; 0 trains once, on the manifest's splits train and val.
        repeats: Of the cross-validation, each with another shuffle.
        by_site: Leave whole sites out.
        choices: Values of settings to choose among by validation patients, such as learning_rate: (1e-4, 1e-3).
        policy: Derives a status that the manifest does not state.
        notice: Line that every output of the weights must show.
        licence: Of the data, for the card.
        weights: Folder with a `tumour_cnn/` and a `tile_cnn/` that are copied beside the aggregator, for `predict`.
        encoder: Folder of the encoder that gave the features, copied there, too.
    """

    manifest: Path
    features: Path
    aggregator: str
    folds: int = 0
    repeats: int = 1
    by_site: bool = False
    choices: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    policy: Policy = Policy.GUIDELINE
    notice: str = ""
    licence: str = "not stated"
    weights: Path | None = None
    encoder: Path | None = None

    def check_choices(self) -> None:
        """Check that validation patients can choose.

        Raises:
            ConfigError: There are none, or a setting changes the loss that chooses, or has two lists of values.
        """
        keys = [key for key, _ in self.choices]
        if "class_weights" in keys:
            raise ConfigError("--choose class_weights: changes the loss that chooses; train with each, and compare")
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise ConfigError(
                f"--choose {twice[0]}: is given several times; write its values in one, as {twice[0]}=A,B"
            )
        if keys and 0 < self.folds < _FOLDS_WITH_VAL:
            found = f"of {self.folds} folds none is left to validate"
            raise ConfigError(f"--choose: {found}; use --folds {_FOLDS_WITH_VAL} or more")

    @property
    def inputs(self) -> dict[str, Any]:
        """All but settings and features that changes the result, for `run.json`."""
        return {
            "manifest": fingerprint(self.manifest),
            "aggregator": self.aggregator,
            "folds": self.folds,
            "repeats": self.repeats,
            "by_site": self.by_site,
            "choices": {key: list(values) for key, values in self.choices},
            "policy": self.policy.value,
        }


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Outcome of one fold.

    Attributes:
        repeat: From 1 on.
        fold: From 1 on.
        probabilities: Of the slides that it tests, by slide.
        chosen: Values that its validation patients chose, by setting.
        epoch: Epoch that is kept.
        val_loss: There.
        movement: Relative change of the weights.
        selection_mismatch: See `Learnt`.
        probability_mismatch: See `Learnt`.
    """

    repeat: int
    fold: int
    probabilities: Mapping[str, float]
    chosen: Mapping[str, Any]
    epoch: int
    val_loss: float
    movement: float
    selection_mismatch: float | None
    probability_mismatch: float | None


@dataclass(frozen=True)
class FeatureStudy:
    """One aggregator on one cohort."""

    data: FeatureData
    cohort: FeatureCohort
    settings: FeatureTraining
    spec: AggregatorSpec

    @cached_property
    def patients(self) -> list[Patient]:
        """The cohort's patients, by key.

        Raises:
            ManifestError: Slides of one patient disagree, on the site where whole sites are left out.
        """
        by_key: dict[str, list[FeatureSlide]] = defaultdict(list)
        for slide in self.cohort.slides:
            by_key[slide.row.patient].append(slide)
        sites = {
            key: list(dict.fromkeys(slide.row.site for slide in slides if slide.row.site))
            for key, slides in by_key.items()
        }
        problems = [
            f"{self.data.manifest}: slides of patient {slides[0].row.patient_id!r} {found}"
            for key, slides in by_key.items()
            for found, differ in (
                ("have different HER2 statuses", len({slide.positive for slide in slides}) > 1),
                (f"are of sites {' and '.join(sites[key])}: choose one", self.data.by_site and len(sites[key]) > 1),
            )
            if differ
        ]
        if problems:
            raise ManifestError(problems)
        return [
            Patient(key, str(slides[0].positive), next(iter(sites[key]), key)) for key, slides in sorted(by_key.items())
        ]

    @cached_property
    def stated_splits(self) -> dict[str, Split]:
        """Splits of the manifest, by patient.

        Raises:
            ManifestError: A patient is in two, or a class is missing in train or val.
        """
        splits: dict[str, Split] = {}
        problems = []
        for row in (slide.row for slide in self.cohort.slides if slide.row.split is not None):
            assert row.split is not None
            if splits.setdefault(row.patient, row.split) != row.split:
                problems.append(f"patient {row.patient_id!r} is in {splits[row.patient]} and {row.split}")
        for side, positive in itertools.product(_SIDES, (False, True)):
            if not any(slide.positive == positive for slide in self.slides(splits, side)):
                status = "positive" if positive else "negative"
                problems.append(f"no {status} slide of split {side} has features; give splits, or pass --folds")
        if problems:
            raise ManifestError([f"{self.data.manifest}: {problem}" for problem in problems])
        return splits

    @cached_property
    def candidates(self) -> list[dict[str, Any]]:
        """Values of settings to choose among."""
        keys = [key for key, _ in self.data.choices]
        return [
            dict(zip(keys, values, strict=True)) for values in itertools.product(*(v for _, v in self.data.choices))
        ]

    def bags(self, splits: Mapping[str, Split], side: Split) -> list[LabelledBag]:
        """Bags of one side, in the manifest's order."""
        return [(self._reader(slide), slide.positive) for slide in self.slides(splits, side)]

    def slides(self, splits: Mapping[str, Split], side: Split) -> list[FeatureSlide]:
        """Slides of one side, in the manifest's order."""
        return [slide for slide in self.cohort.slides if splits.get(slide.row.patient) == side]

    @cached_property
    def _readers(self) -> dict[str, Any]:
        return {slide.row.slide_id: partial(self.cohort.bag, slide) for slide in self.cohort.slides}

    def _reader(self, slide: FeatureSlide) -> Any:  # noqa: ANN401  a partial
        return self._readers[slide.row.slide_id]

    @cached_property
    def splits_of_folds(self) -> list[list[dict[str, Split]]]:
        """For each repeat, for each fold, the split by patient; none without folds.

        Raises:
            ManifestError: There are too few patients, or a fold has one class only to train on; all such folds.
        """
        data = self.data
        if not data.folds:
            return []
        repeats = split_in_folds(
            self.patients, data.folds, repeats=data.repeats, seed=self.settings.seed, by_site=data.by_site
        )
        problems = [
            f"repeat {repeat}, fold {fold} has no {'positive' if positive else 'negative'} patient to train on"
            for repeat, folds in enumerate(repeats, start=1)
            for fold, splits in enumerate(folds, start=1)
            for positive in (False, True)
            if not any(slide.positive == positive for slide in self.slides(splits, "train"))
        ]
        if problems:
            remedy = "give more patients of both classes, use more --folds" + (", or no --by-site" * data.by_site)
            raise ManifestError([f"{data.manifest}: {few_of(problems, _MOST_TOLD, between='; ')}; {remedy}"])
        return repeats

    def cross_validate(self, out: Path, execution: Execution) -> list[FoldResult]:
        """Outcomes of all folds; those that are in `out/folds` already are read from there."""
        rows = [slide.row for slide in self.cohort.slides]
        for doubt in site_doubts(rows, self.patients) if self.data.by_site and self.data.folds else ():
            execution.say(f"CAUTION {doubt}")
        tested = {slide.row.patient for slide in self.cohort.slides if slide.row.split == "test"}
        if self.data.folds and tested:
            doubt = f"--folds trains on all patients, {len(tested)} of split test among them"
            execution.say(f"CAUTION {doubt}; to test the weights on these, leave them out of the manifest")
        validated = [
            {slide.positive for slide in self.slides(splits, "val")}
            for folds in self.splits_of_folds
            for splits in folds
        ]
        if one_sided := sum(len(classes) == 1 for classes in validated):
            doubt = f"{one_sided} of {len(validated)} folds validate on one class only, which picks their epoch"
            execution.say(f"CAUTION {doubt}; use fewer --folds")
        if 0 < self.data.folds < _FOLDS_WITH_VAL:
            doubt = f"of {self.data.folds} folds none is left to validate: training slides pick the epoch"
            execution.say(f"CAUTION {doubt}, and the losses are theirs; use --folds {_FOLDS_WITH_VAL} or more")
        results = []
        total = self.data.repeats * self.data.folds
        for repeat, folds in enumerate(self.splits_of_folds, start=1):
            for fold, splits in enumerate(folds, start=1):
                file = out / _FOLDS / f"repeat-{repeat}-fold-{fold}.json"
                results.append(_kept(file) or self._fold(repeat, fold, splits, file))
                execution.progress("folds", len(results), total)
                found = results[-1]
                execution.say(f"repeat {repeat}, fold {fold}: epoch {found.epoch}, val loss {found.val_loss:.3f}")
        return results

    def _fold(self, repeat: int, fold: int, splits: Mapping[str, Split], file: Path) -> FoldResult:
        """Train on a fold, and predict the patients that it tests."""
        learnt, chosen = self.learn(splits, self.settings.seed + 1000 * repeat + fold)
        aggregator = self.aggregator(learnt)
        tested = self.slides(splits, "test")
        result = FoldResult(
            repeat,
            fold,
            {slide.row.slide_id: aggregator(self.cohort.bag(slide)).probability for slide in tested},
            chosen,
            learnt.epoch,
            learnt.val_loss,
            learnt.movement,
            learnt.selection_mismatch,
            learnt.probability_mismatch,
        )
        write_json(file, asdict(result))
        return result

    def learn(self, splits: Mapping[str, Split], seed: int) -> tuple[Learnt, dict[str, Any]]:
        """The best of the candidates by validation loss, and the values that it was made with."""
        train, val = self.bags(splits, "train"), self.bags(splits, "val")
        if not val:  # of two folds there is no third part
            val = train
        tried = [
            (learn(self.spec, train, val, replace(self.settings, **chosen), seed), chosen) for chosen in self.candidates
        ]
        return min(tried, key=lambda one: one[0].val_loss)

    def aggregator(self, learnt: Learnt) -> Aggregator:
        """The trained aggregator, as prediction uses it."""
        card = Card(self.spec, trained=True, notice="", encoder=self.cohort.encoder)
        return Aggregator(card, run_of(self.spec, module_of(self.spec, learnt.weights)))

    def final(self) -> tuple[Learnt, dict[str, Any], dict[str, Split]]:
        """The aggregator that is kept, trained on all patients but those that pick the epoch."""
        if self.data.folds:
            shares: dict[Split, float] = {"train": 1 - _VAL_SHARE, "val": _VAL_SHARE}
            splits = split_by_shares(self.patients, shares, seed=self.settings.seed)
        else:
            splits = self.stated_splits
        learnt, chosen = self.learn(splits, self.settings.seed)
        return learnt, chosen, splits


def _kept(file: Path) -> FoldResult | None:
    """Outcome of a fold that was done before; None where there is none."""
    try:
        return FoldResult(**read_json(file))
    except (OSError, ValueError, TypeError):
        return None
