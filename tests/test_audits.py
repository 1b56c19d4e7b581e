"""Audits: what they catch when it is there, and how often they cry when it is not."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.linear_model import Ridge

from he2her2.errors import EvaluationError
from he2her2.evaluation import SlideProperties, join, slide_properties
from he2her2.evaluation.audits import (
    domain_audit,
    run_aggregator,
    seeds_audit,
    shortcut_audit,
    site_audit,
    site_results,
    tile_audits,
)
from he2her2.evaluation.audits.domain import _domain_p, _outside_p
from he2her2.evaluation.audits.heterogeneity import _clustered_share, _moran, _neighbours, heterogeneity
from he2her2.evaluation.audits.shortcuts import (
    _detectable_auc,
    _fitted,
    _measure,
    _ranked,
    any_shape,
    candidates_of,
    permutation_p,
)
from he2her2.evaluation.audits.sites import _threshold_keeping, auc_difference
from he2her2.evaluation.audits.stability import redraw, square_blocks
from he2her2.evaluation.slide_properties import PROPERTIES, stated_properties
from he2her2.geometry import TileGrid
from he2her2.manifest import read_manifest
from he2her2.models import Aggregated, Bag
from he2her2.results import open_run
from he2her2.statistics import Estimate, holm
from tests.made_up_bags import bag_of_scores
from tests.made_up_runs import QUICK, MadeUpSlide, decided_by, made_up_cases, write_labels, write_run


def properties_of(cases, *, size_gap=0.0, seed=0):
    """Noise for every property; tissue area differs between the classes by `size_gap` standard deviations."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=len(cases)) for name in PROPERTIES}
    values["tissue_mm2"] = np.exp(rng.normal(size=len(cases)) + size_gap * cases.truth)
    values["pen_share"] = np.where(rng.random(len(cases)) < 0.8, 0.0, rng.random(len(cases)))
    return SlideProperties(cases.ids, values)


def test_tissue_area_that_encodes_the_label_is_caught():
    """The sentence names the shortcut, its AUC and that the model does no better."""
    patients = made_up_cases(80, gap=1.0)

    audit = shortcut_audit(patients, properties_of(patients, size_gap=2.0))

    assert audit.alarm
    assert audit.sentence.startswith("Tissue area alone predicts the label with an AUC of 0.9")
    assert "the model's AUC is lower by" in audit.sentence or "not shown to be better" in audit.sentence
    named = [row["shortcut"] for row in audit.rows if row["predicts"]]
    assert named == ["tissue area", "all together", "any shape or pair"]


def test_shortcuts_are_silent_where_there_is_none():
    """Over 80 cohorts without one the family cries in about 5 % or fewer; the experiment draws more."""
    alarms = 0
    for seed in range(80):
        patients = made_up_cases(40, seed=seed, sites=("a", "b"))
        rng = np.random.default_rng(seed)
        labels = np.stack([patients.truth, *(rng.permutation(patients.truth) for _ in range(199))])
        found = candidates_of(patients, properties_of(patients, seed=seed + 1000)).values()
        alarms += min(holm([permutation_p(columns, labels) for columns in found])) < 0.05

    assert alarms <= stats.binom.ppf(0.999, 80, 0.05)


def test_a_silent_audit_says_what_it_could_not_see():
    """No alarm in a small cohort is no proof, and the sentence says so."""
    patients = made_up_cases(30, seed=3)

    audit = shortcut_audit(patients, properties_of(patients, seed=5))

    assert not audit.alarm
    assert "None of the 8 shortcuts tried predicts the label beyond chance" in audit.sentence
    assert re.search(r"nor does a relation of any shape \(p = [\d.]+; alarm below 0.01\)", audit.sentence)
    assert "Not seen: site, slide type, scanner, staining batch" in audit.sentence
    assert "of three or more properties" in audit.sentence
    assert f"under {_detectable_auc(12, 18, 0.05 / 8):.2f} could go unseen" in audit.sentence


def bent(kind, n=100, seed=0):
    """Patients and properties whose relation to the label has no direction; the model knows nothing."""
    patients = made_up_cases(n, gap=0.0, seed=seed)
    properties = properties_of(patients, seed=seed)
    area, red = (np.argsort(np.argsort(properties.values[name])) / n - 0.5 for name in ("tissue_mm2", "red"))
    truth = patients.truth
    if kind == "inverted U":
        truth = np.abs(area) < 0.2
    elif kind == "XOR":
        truth = (area > 0) ^ (red > 0)
    elif kind == "variance":
        for name in ("red", "green", "blue"):
            properties.values[name] *= np.where(truth, 3.0, 1.0)
    elif kind == "three stripes":
        truth = np.cos(6 * np.pi * (area + 0.5)) > 0.2
    return replace(patients, truth=truth), properties


@pytest.mark.parametrize(
    ("kind", "said"),
    [("inverted U", "tissue area"), ("XOR", "tissue area together with red"), ("variance", "red"),
     ("three stripes", "tissue area")],
)  # fmt: skip
def test_a_shortcut_without_direction_is_caught(kind, said):
    """What no linear test sees; the sentence names the properties, and a cross-validated AUC."""
    patients, properties = bent(kind)

    audit = shortcut_audit(patients, properties)

    row = audit.rows[[row["shortcut"] for row in audit.rows].index("any shape or pair")]
    assert row["predicts"]
    assert isinstance(row["auc"], Estimate)
    assert row["auc"].value > 0.75
    assert "elation of any shape (" in audit.sentence
    assert said in audit.sentence


def test_a_shape_is_not_found_where_there_is_none():
    """Over 60 cohorts the p-value of any shape is below 0.05 in about 5 %."""
    below = 0
    for seed in range(60):
        patients = made_up_cases(40, seed=seed, sites=("a", "b"))
        rng = np.random.default_rng(seed)
        labels = np.stack([patients.truth, *(rng.permutation(patients.truth) for _ in range(199))])
        found = any_shape(patients, properties_of(patients, seed=seed + 1000), labels, rng)
        assert found is not None
        below += found.p < 0.05

    assert below <= stats.binom.ppf(0.999, 60, 0.05)


def test_many_patients_are_drawn_for_any_shape():
    """Without regard to the label, and a relation is seen among them."""
    patients, properties = bent("XOR", n=2500)
    rng = np.random.default_rng(0)
    labels = np.stack([patients.truth, *(rng.permutation(patients.truth) for _ in range(19))])

    found = any_shape(patients, properties, labels, rng)

    assert found is not None
    assert len(found.rows) == len(found.score) == 2000
    assert found.p == 1 / 20


@pytest.mark.parametrize("column", ["tumour_mm2", "red_spread"])
def test_tumour_area_and_stain_contrast_are_looked_at(column):
    """They have no row of their own, and a relation to the label is found and named."""
    patients = made_up_cases(80, gap=0.0)
    properties = properties_of(patients)
    properties.values[column][patients.truth] += 2.0

    audit = shortcut_audit(patients, properties)

    assert audit.alarm
    assert {"tumour_mm2": "tumour area", "red_spread": "contrast"}[column] in audit.sentence


def test_slide_type_and_scanner_of_the_manifest_are_shortcuts(tmp_path):
    """However their heading is written."""
    slides = [MadeUpSlide(f"s{k}", f"p{k}", "positive" if k % 2 else "negative", probability=0.5) for k in range(40)]
    run = open_run(write_run(tmp_path / "run", slides))
    lines = write_labels(tmp_path / "m.csv", slides).read_text().splitlines()
    rows = [f"{line},{'frozen' if k % 2 else 'FFPE'},{'A' if k % 3 else 'B'}" for k, line in enumerate(lines[1:])]
    (tmp_path / "m.csv").write_text("\n".join([f"{lines[0]},Slide Type,Scanner", *rows]) + "\n")
    manifest = read_manifest(tmp_path / "m.csv")
    joined = join(run, manifest)
    properties = slide_properties(run, joined.slides.ids, stated_properties(manifest))

    audit = shortcut_audit(joined.patients, properties.of_patients(joined.slides.patients, joined.patients.ids))

    predicts = {str(row["shortcut"]): row["predicts"] for row in audit.rows}
    assert predicts["slide type"] is True
    assert predicts["scanner"] is False


def test_the_site_is_a_shortcut_where_positives_come_from_one():
    """Sites are tested together, as one property."""
    patients = made_up_cases(60)
    patients = replace(patients, sites=np.where(patients.truth, "a", np.where(np.arange(60) % 2, "a", "b")))

    audit = shortcut_audit(patients, properties_of(patients))

    assert "Site alone predicts the label" in audit.sentence


def test_missing_values_can_be_a_shortcut():
    """Where a property was recorded for the negatives only, that alone tells them apart."""
    patients = made_up_cases(60)
    properties = properties_of(patients)
    properties.values["mpp"][patients.truth] = np.nan

    found = {s.name: s for s in _measure(candidates_of(patients, properties), patients, 0, properties)}

    assert found["scanner resolution"].alarm


def test_too_few_patients_are_said_to_be_too_few():
    """With under five of a class the audit is not made."""
    patients = made_up_cases(8)

    audit = shortcut_audit(patients, properties_of(patients))

    assert not audit.done
    assert audit.sentence == "Not done: 4 of 8 patients are positive, 5 of each class are needed."


def test_shortcuts_of_which_nothing_is_known_are_not_looked_at():
    """Scores of another tool come with no property of a slide: that is no audit which found none."""
    patients = made_up_cases(40)
    nothing = SlideProperties(patients.ids, dict.fromkeys(PROPERTIES, np.full(len(patients), np.nan)))

    audit = shortcut_audit(patients, nothing)

    assert not audit.done
    assert "are not recorded, or the same for all; give others by --covariates" in audit.sentence


def test_what_is_the_same_for_all_is_not_a_shortcut():
    """A constant column is left out; a table names it as not tested."""
    columns = _ranked(np.column_stack([np.arange(6.0), np.ones(6)]))

    assert columns.shape == (6, 1)


def test_the_permutation_test_equals_scipys_for_one_property():
    """For a single column the statistic orders the shuffles as the difference of means does."""
    rng = np.random.default_rng(0)
    column, truth = rng.normal(size=9), np.arange(9) < 4
    every = np.array([np.isin(np.arange(9), chosen) for chosen in itertools.combinations(range(9), 4)])
    labels = np.concatenate([truth[None], every])

    ours = permutation_p(column[:, None], labels)

    theirs = stats.permutation_test(
        (column[truth], column[~truth]), lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)), alternative="greater"
    ).pvalue
    assert ours * len(labels) == pytest.approx(theirs * (len(labels) - 1) + 1)


def test_the_regression_equals_scikit_learns():
    """Weighted ridge regression on standardised columns orders patients as scikit-learn's does."""
    rng = np.random.default_rng(1)
    columns, truth = rng.normal(size=(50, 3)) * (1, 5, 0.2), rng.random(50) < 0.4
    weights = rng.integers(0, 3, 50).astype(float)
    centre = np.average(columns, axis=0, weights=weights)
    spread = np.sqrt(np.average((columns - centre) ** 2, axis=0, weights=weights))

    ours = _fitted(columns, truth, weights)

    standard = (columns - centre) / spread
    theirs = Ridge(alpha=1.0).fit(standard, truth.astype(float), sample_weight=weights).predict(standard)
    assert np.ptp(ours - theirs) == pytest.approx(0, abs=1e-9)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_its_definition(p_values):
    """The k-th smallest is the greatest of the smaller ones times the number of those not yet passed, at most 1."""
    adjusted = holm(p_values)

    ranked_p = sorted(p_values)
    expected = [min(1.0, max((len(p_values) - j) * ranked_p[j] for j in range(k + 1))) for k in range(len(p_values))]
    assert sorted(adjusted) == pytest.approx(expected)
    pairs = list(zip(p_values, adjusted, strict=True))
    assert all(a <= b for p, a in pairs for q, b in pairs if p <= q)


def test_a_site_where_the_model_fails_is_found():
    """The sentence names it, with how much lower its AUC is."""
    cases = made_up_cases(300, gap=3.0, sites=("north", "south"))
    guess = np.random.default_rng(1).random(300)
    cases = replace(cases, probability=np.where(cases.sites == "south", guess, cases.probability))

    audit = site_audit(site_results(cases))

    assert audit.alarm
    assert "against all other sites it differs at" in audit.sentence
    assert {row["site"] for row in audit.rows if row["differs"]} == {"north", "south"}
    less = {one.site: one.difference.value for one in site_results(cases)}
    assert less["south"] == pytest.approx(-less["north"])
    assert less["south"] < -0.3


def test_sites_of_equal_quality_rarely_alarm():
    """Over 40 cohorts of three like sites there are few alarms."""
    results = [site_results(made_up_cases(120, seed=seed, sites=("a", "b", "c"))) for seed in range(40)]

    assert sum(any(site.differs for site in found) for found in results) <= 6


def test_small_sites_of_equal_quality_rarely_alarm():
    """A pair that a good model orders wrongly is not yet a site where it fails: one of 20 cohorts may say so."""
    sites = np.repeat([f"S{k}" for k in range(13)], [150, *[2] * 12])
    cohorts = (made_up_cases(174, gap=2.0, share=0.25, seed=seed) for seed in range(40))
    results = [site_results(replace(cohort, sites=sites)) for cohort in cohorts]

    assert sum(any(site.differs for site in found) for found in results) <= 4


def test_the_sentence_names_two_sites_where_both_are_perfect():
    """Equal AUCs are no reason to name one site twice; a lone site with both classes is not compared with itself."""
    cases = made_up_cases(40, sites=("north", "south"))
    perfect = replace(cases, probability=cases.truth.astype(float))
    lone = perfect.take((perfect.sites == "north") | perfect.truth)

    assert {"at north", "at south"} <= set(re.findall(r"at \w+", site_audit(site_results(perfect)).sentence))
    assert "at north (n = " in site_audit(site_results(lone)).sentence
    assert site_audit(site_results(lone)).sentence.endswith("no other site has both classes.")


def test_one_site_is_no_comparison():
    """Without a second site the audit is not made."""
    assert not site_audit(site_results(made_up_cases(20))).done


def test_a_carried_threshold_finds_its_share_of_the_other_sites_positives():
    """At the greatest such threshold, 95 % of the positives are called positive, and no more than needed."""
    cases = made_up_cases(200, share=0.5)

    threshold = _threshold_keeping(cases, 0.95)

    found = cases.probability[cases.truth]
    assert (found >= threshold).sum() == 95
    assert (found > threshold).sum() == 94


def test_a_carried_threshold_calls_the_patients_at_it():
    """Scores of many digits that several patients have, such as votes of 7: those at the threshold are positive."""
    cases = made_up_cases(40, share=0.5)
    probability = np.where(cases.truth, 3 / 7, 2 / 7)
    cases = replace(cases, probability=probability, sites=np.where(np.arange(40) % 2, "a", "b"))

    assert [(site.carried_sensitivity.value, site.carried_specificity.value) for site in site_results(cases)] == [
        (1, 1),
        (1, 1),
    ]


def test_anauc_difference_of_like_groups_holds_zero():
    """MOVER's interval covers 0 in about 95 of 100 draws."""
    pairs = [(made_up_cases(60, seed=k), made_up_cases(80, seed=k + 500)) for k in range(100)]

    covered = sum((d := auc_difference(one, two)).low <= 0 <= d.high for one, two in pairs)

    assert covered >= 90


def test_p_values_of_like_slides_are_even():
    """Slides of the reference's own kind are outside in about 5 % of draws, also with skewed properties."""
    rng = np.random.default_rng(0)
    p = np.concatenate([_domain_p(*(np.exp(rng.normal(size=(n, 4))) for n in (60, 30))) for _ in range(100)])

    assert 0.03 < (p <= 0.05).mean() < 0.075
    assert 0.45 < (p <= 0.5).mean() < 0.56


def test_leaving_one_out_equals_doing_it():
    """The closed form's p-values are those of recomputing centre and covariance without each reference slide."""
    rng = np.random.default_rng(2)
    reference, slides = rng.normal(size=(25, 3)), rng.normal(size=(10, 3)) * 2

    ours = _domain_p(reference, slides)

    middle = np.median(reference, axis=0)
    unit = np.median(np.abs(reference - middle), axis=0) / 0.6745
    cut = np.clip((reference - middle) / unit, -3, 3)

    def distance(point, of):
        covariance = np.cov(of.T, bias=True) + 0.05 * np.eye(3)
        offset = (point - middle) / unit - of.mean(axis=0)
        return offset @ np.linalg.inv(covariance) @ offset

    own = np.array([distance(reference[k], np.delete(cut, k, axis=0)) for k in range(25)])
    theirs = [(1 + (own >= distance(slide, cut)).sum()) / 26 for slide in slides]
    assert theirs == pytest.approx(ours.tolist())


def test_slides_of_another_scanner_are_flagged():
    """A shift of colour puts slides outside, and the sentence says that chance does not explain it."""
    reference, slides = (properties_of(made_up_cases(n, seed=n), seed=n) for n in (60, 40))
    slides.values["red"][:20] += 8

    audit = domain_audit(slides, slides.ids, reference, "the training run")

    assert audit.alarm
    assert all(row["outside"] for row in audit.rows[:20])
    assert "more than chance explains" in audit.sentence


def test_slides_of_which_too_little_is_known_are_not_called_alike():
    """Nothing was measured, so nothing is said of it."""
    reference, slides = (properties_of(made_up_cases(n, seed=n), seed=n) for n in (60, 3))
    for k, name in enumerate(("red", "green", "blue")):
        slides.values[name][k] = np.nan

    audit = domain_audit(slides, slides.ids, reference, "the training run")

    assert not audit.rows
    assert "no slide has all that is known of those of the training run" in audit.sentence


def test_a_reference_without_colours_has_no_slides_to_go_by():
    """As a table of scores that was given for validation beside a run."""
    reference, slides = (properties_of(made_up_cases(n, seed=n), seed=n) for n in (60, 3))
    for values in reference.values.values():
        values[:] = np.nan

    audit = domain_audit(slides, slides.ids, reference, "validation run v.csv")

    assert audit.sentence == "Not done: validation run v.csv has 0 slides with colour and scores, 20 are needed."


def test_a_share_is_the_number_that_it_came_from():
    """Also where k / n * n falls short of k: 15 of 22 are not 14."""
    shares = [(k, n) for n in range(1, 120) for k in range(n + 1)]

    for k, n in shares:
        assert _outside_p(k / n, n, 99) == pytest.approx(stats.betabinom.sf(k - 1, n, 5, 95), rel=1e-12)


def test_like_slides_do_not_alarm():
    """Over 200 pairs of like runs about 5 % alarm, or fewer, whatever the size of the reference."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(200):
        outside = _domain_p(rng.normal(size=(25, 3)), rng.normal(size=(50, 3))) <= 0.05
        alarms += _outside_p(float(outside.mean()), 50, 25) < 0.05

    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


def grid_of(height, width, stride_px=256):
    """A full grid of tiles."""
    y, x = np.divmod(np.arange(height * width), width)
    return TileGrid(np.stack([x, y], axis=1) * stride_px, 256.0, 256, 0.25)


def indexed(*arguments, **options):
    found = heterogeneity(*arguments, **options)
    assert found is not None
    return found


def test_morans_index_equals_the_double_sum():
    """The pair list gives what the definition gives with its full weight matrix."""
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 6, (25, 2)), axis=0)
    values = rng.normal(size=len(cells))

    ours = _moran(values[None], _neighbours(cells))[0]

    near = np.abs(cells[:, None] - cells[None]).max(axis=2) == 1
    centred = values - values.mean()
    theirs = len(cells) / near.sum() * (near * np.outer(centred, centred)).sum() / (centred @ centred)
    assert ours == pytest.approx(theirs)


def test_clustered_scores_have_order_and_shuffled_ones_do_not():
    """A half of high tiles gives a high index at the least p-value; the same tiles at random do not."""
    rng = np.random.default_rng(0)
    halves = np.repeat([0.0, 3.0], 60)
    grid = grid_of(12, 10)

    ordered = indexed(grid, halves, 256, rng)
    mixed = indexed(grid, rng.permutation(halves), 256, rng)

    assert ordered.moran > 0.8
    assert ordered.p == pytest.approx(1 / 200)
    assert abs(mixed.moran) < 0.2
    assert mixed.p > 0.05
    assert (ordered.clustered, ordered.high_share) == (1.0, 0.5)


def test_spatial_order_is_found_no_oftener_than_its_level():
    """Of 80 slides without order 5 % have a p-value of at most 0.05."""
    rng = np.random.default_rng(1)
    grid = grid_of(6, 6)
    found = [indexed(grid, rng.integers(0, 4, 36).astype(float), 256, rng, draws=39) for _ in range(80)]

    assert sum(index.p <= 0.05 for index in found) <= stats.binom.ppf(0.999, 80, 0.05)


def test_overlap_makes_no_order():
    """Tiles that overlap by half are thinned to those that share no pixel."""
    fine = grid_of(20, 20, stride_px=128)
    rng = np.random.default_rng(0)
    noise = rng.normal(1.5, 1, (21, 21))
    smooth = ndimage.uniform_filter(noise, 2)[:20, :20]

    index = indexed(fine, smooth.ravel(), 128, rng)

    assert index.n_tiles == 100
    assert index.p > 0.05


@given(high=st.lists(st.booleans(), min_size=30, max_size=30))
def test_clusters_agree_with_growing_them_by_hand(high):
    """Connected groups of at least five high tiles, found by a slow walk."""
    cells = np.stack(np.divmod(np.arange(30), 6)[::-1], axis=1)
    scores = np.where(high, 3.0, 0.0)

    ours = _clustered_share(cells, scores)

    todo = {tuple(cell) for cell, yes in zip(cells.tolist(), high, strict=True) if yes}
    sizes = []
    while todo:
        group, edge = set(), {todo.pop()}
        while edge:
            x, y = edge.pop()
            group.add((x, y))
            near = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)} & todo
            todo -= near
            edge |= near
        sizes.append(len(group))
    assert (sum(s for s in sizes if s >= 5) / sum(sizes) if sizes else np.nan) == pytest.approx(ours, nan_ok=True)


def test_a_handful_of_tiles_has_no_index():
    """Under 20 tiles nothing is said."""
    assert heterogeneity(grid_of(3, 4), np.arange(12.0), 256, np.random.default_rng(0)) is None


def bag_of_numbers(numbers):
    return Bag(numbers[:, None], np.zeros((len(numbers), 2)), np.ones(len(numbers), bool))


def mean_of_bag(bag):
    """An aggregator that takes all tiles and averages their only feature."""
    n = len(bag)
    return Aggregated(bag.features.mean(), None, np.arange(n), np.full(n, 1 / n))


def test_equal_scores_redraw_to_the_same_probability():
    """Where all tiles say the same, other tiles change nothing."""
    found = redraw(bag_of_numbers(np.full(40, 2.0)), None, 5, mean_of_bag, np.random.default_rng(0))

    assert set(found.tolist()) == {2.0}


def test_redraws_spread_as_the_theory_says():
    """With all tiles selected and the mean as aggregator, the spread is the standard error of the mean."""
    rng = np.random.default_rng(0)
    scores = rng.normal(1.5, 0.5, 100)

    found = redraw(bag_of_numbers(scores), None, 100, mean_of_bag, rng, draws=2000)

    assert scores.std() / 10 == pytest.approx(found.std(), rel=0.08)


def test_square_blocks_like_tiles_spread_more_than_tiles():
    """Where neighbours are alike, redrawing tile by tile flatters."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.divmod(np.arange(400), 20)[::-1], axis=1)
    scores = np.kron(rng.normal(1.5, 0.5, (5, 5)), np.ones((4, 4))).ravel().astype(np.float64)
    bag = bag_of_numbers(scores)

    by_tile = redraw(bag, None, 300, mean_of_bag, rng)
    by_block = redraw(bag, square_blocks(cells, 4), 300, mean_of_bag, rng)

    assert by_block.std() > 2 * by_tile.std()


@pytest.fixture(scope="module")
def tiled_run(tmp_path_factory):
    """A run of six slides with tiles, decided by the untrained MLP of the settings."""
    rng = np.random.default_rng(0)
    slides = [
        decided_by(MadeUpSlide(f"s{k}", status="positive", scores=rng.integers(0, 4, (10, 10)).astype(float)))
        for k in range(6)
    ]
    return write_run(tmp_path_factory.mktemp("tiled") / "run", slides)


def cases_of(folder):
    run = open_run(folder)
    ids = np.array(list(run.predictions))
    cases = made_up_cases(len(ids))
    return run, replace(cases, ids=ids, patients=ids, probability=run.probabilities(ids))


def test_stability_redraws_the_runs_own_tiles(tiled_run):
    """Selection and aggregator of the run give back its probabilities, and then the spread."""
    run, slides = cases_of(tiled_run)

    stability, heterogeneous = tile_audits(run, slides, run_aggregator(run.config, "untrained:0"))

    assert len(stability.rows) == len(heterogeneous.rows) == 6
    assert "moves by a standard deviation of 0.0" in stability.sentence


def test_other_weights_than_the_runs_are_refused(tiled_run):
    """A spread by other weights would be of another model."""
    run, slides = cases_of(tiled_run)

    with pytest.raises(EvaluationError, match="these weights make"):
        tile_audits(run, slides, run_aggregator(run.config, "untrained:1"))


def test_without_weights_an_mlp_cannot_be_redrawn():
    """A baseline needs none."""
    mean = replace(QUICK, networks=replace(QUICK.networks, aggregator="mean"))

    by_mean = run_aggregator(mean, None)

    assert run_aggregator(QUICK, None) is None
    assert by_mean is not None
    assert by_mean(bag_of_scores(np.full(12, 2.0))).probability == 1.0


def test_only_a_sample_of_many_slides_is_read(tiled_run):
    """The sentence says of how many it was drawn."""
    run, slides = cases_of(tiled_run)

    stability, _ = tile_audits(run, slides, run_aggregator(run.config, "untrained:0"), n_slides=2)

    assert len(stability.rows) == 2
    assert "of 2 slides drawn from 6" in stability.sentence


def test_seeds_that_disagree_are_counted():
    """A slide counts once, whichever run decides it otherwise."""
    cases = made_up_cases(4)
    same = np.array([0.9, 0.9, 0.1, 0.1])
    other = np.array([0.9, 0.2, 0.1, np.nan])

    audit = seeds_audit(replace(cases, probability=same), np.stack([same, same, other]))

    assert "1 of 3 slides" in audit.sentence
    assert [row["flips"] for row in audit.rows] == [False, True, False]


def test_properties_come_from_the_records(tmp_path):
    """Sizes in mm², colours by channel, spread of the tile scores; what a record lacks is nan."""
    slide = MadeUpSlide("s", status="positive", probability=0.5, size=40_000, scores=np.array([[0.0, 3.0]] * 10))
    run = open_run(write_run(tmp_path / "run", [slide]))

    values = slide_properties(run, np.array(["s", "gone"])).values

    assert [values[name][0] for name in ("slide_mm2", "red", "score_mean", "score_spread")] == [100.0, 200.0, 1.5, 1.5]
    assert np.isnan(values["slide_mm2"][1])


def test_a_patients_property_is_the_mean_over_slides():
    """Slides without the property do not count."""
    slides = SlideProperties(np.array(["a", "b", "c"]), {"mpp": np.array([0.2, 0.4, np.nan])})

    patients = slides.of_patients(np.array(["p", "p", "q"]), np.array(["q", "p"]))

    assert np.isnan(patients.values["mpp"][0])
    assert patients.values["mpp"][1] == pytest.approx(0.3)


@pytest.mark.parametrize("value", [0.4992, -0.23, 30_000.7, 1e300, 1e-305, 0.0])
def test_what_all_slides_have_differs_between_no_patients(value):
    """The rounding of a mean tells the number of slides: where positives have more it looked like a shortcut."""
    owners = np.repeat(np.arange(1, 9), np.arange(1, 9)).astype(str)
    slides = SlideProperties(owners, {"mpp": np.full(len(owners), value)})

    means = slides.of_patients(owners, np.unique(owners)).values["mpp"]

    assert np.ptp(means) == 0
    assert means[0] == pytest.approx(value, rel=1e-11, abs=1e-300)
