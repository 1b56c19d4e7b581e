"""The study on real patients: who is in it, and that no model sees the patients whom it judges."""

import numpy as np
import pytest
from experiments.tcga_cohort import Cohort, out_of_fold, random_folds, read_cohort, site_alone, site_folds
from experiments.tcga_hif import carried, within_site_auc

from he2her2.statistics import auc


@pytest.fixture(scope="module")
def cohort(data_dir) -> Cohort:
    """The patients of the study."""
    return read_cohort(data_dir)


class Memory:
    """A model that knows the label of every patient it learned from, and nothing else."""

    def __init__(self, seed):
        self._known: dict[bytes, bool] = {}
        self.seed = seed

    def fit(self, x, y):
        self._known = dict(zip(map(bytes, x), map(bool, y), strict=True))

    def predict_proba(self, x):
        p = np.array([float(self._known.get(bytes(row), 0.5)) for row in x])
        return np.stack([1 - p, p], axis=1)


def test_the_cohort_is_the_one_that_the_page_reports(cohort):
    """Counts of patients, positives, sites, those without a status, and IHC 2+."""
    assert (len(cohort.ids), int(cohort.truth.sum()), len(np.unique(cohort.sites))) == (582, 122, 33)
    assert cohort.unlabelled.shape == (114, 607)
    assert int((cohort.ihc == 2).sum()) == 122


def test_no_model_sees_the_patients_of_its_fold(cohort):
    """What a model could only know from them stays unknown; a left-out site is left out whole."""
    for fold in (random_folds(cohort, 0), site_folds(cohort)):
        assert (out_of_fold(cohort, fold, Memory, 0) == 0.5).all()
    assert all(len(np.unique(cohort.sites[site_folds(cohort) == k])) == 1 for k in range(33))


def test_the_site_alone_does_not_hold_the_patients_own_label(cohort):
    """Within a site a positive patient sees fewer positives among the others than a negative one."""
    score = site_alone(cohort, random_folds(cohort, 0))

    assert auc(cohort.truth, score) > 0.6
    assert within_site_auc(cohort, score).value < 0.45


def test_the_auc_within_sites_is_that_of_pairs_within_sites(cohort):
    """A slow loop gives the same; a score of the site alone has no order within sites."""
    rng = np.random.default_rng(0)
    score = np.round(rng.random(582) + 0.1 * cohort.truth, 2)
    won, pairs = 0.0, 0
    for i in np.flatnonzero(cohort.truth):
        for j in np.flatnonzero(~cohort.truth & (cohort.sites == cohort.sites[i])):
            won += (score[i] > score[j]) + (score[i] == score[j]) / 2
            pairs += 1
    found = within_site_auc(cohort, score)

    assert found.value == pytest.approx(won / pairs)
    assert found.n == pairs
    assert found.low < found.value < found.high
    assert within_site_auc(cohort, site_folds(cohort).astype(float)).value == 0.5


def test_a_carried_threshold_is_chosen_on_the_other_folds(cohort):
    """A perfect score misses no more than was promised and saves nearly all tests of the negatives."""
    score = np.where(cohort.truth, 0.9, 0.1) + np.random.default_rng(0).uniform(-0.05, 0.05, 582)
    found = carried("x", cohort, score, random_folds(cohort, 0))

    assert found.missed.value <= 0.05
    assert 0.75 < found.saved.value < 0.85
