"""Covariates, features and subgroups: read from tables as people have them, and audited."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from he2her2.errors import EvaluationError
from he2her2.evaluation.audits import shift_audit, shortcut_audit, site_results, subgroup_audit
from he2her2.evaluation.audits.shift import discrepancies
from he2her2.evaluation.cases import by_patient
from he2her2.evaluation.covariates import Covariates, SlideFeatures, columns_named, read_covariates, read_slide_features
from he2her2.evaluation.slide_properties import PROPERTIES, SlideProperties
from he2her2.manifest import read_labels
from tests.made_up_runs import made_up_cases

LABELS = (
    "slide_id,patient_id,her2_status,site,Age (years)\ns1,P1,positive,A,50\ns2,P1,positive,A,50\ns3,P2,negative,B,NA\n"
)


def manifest_in(folder):
    (folder / "labels.csv").write_text(LABELS)
    return read_labels(folder / "labels.csv")


def test_columns_are_numbers_or_names(tmp_path):
    """Of patients, given to all their slides; labels, texts and blanks are left out and named."""
    table = "PATIENT,tissue mm2,ER by IHC,HER2 FISH,empty,MYC_amplified\np1,3.5,+ve,amplified,,yes\np2,NA,-ve,,,no\n"
    (tmp_path / "c.csv").write_text(table)
    found = read_covariates(tmp_path / "c.csv", manifest_in(tmp_path))

    assert found.numbers == {"tissue mm2": {"s1": 3.5, "s2": 3.5}}
    assert found.categories == {
        "ER by IHC": {"s1": "+ve", "s2": "+ve", "s3": "-ve"},
        "MYC_amplified": {"s1": "yes", "s2": "yes", "s3": "no"},
    }
    assert "columns about HER2 are no covariates: HER2 FISH" in found.notes[1]
    assert "not used: empty (is blank)" in found.notes[2]


def test_several_rows_that_differ_are_told(tmp_path):
    """The first is taken; rows that are the same in all that is used are one."""
    (tmp_path / "c.csv").write_text("patient,age\nP1,50\nP1,61\nP2,40\nP2,40\n")
    found = read_covariates(tmp_path / "c.csv", manifest_in(tmp_path))

    assert found.numbers["age"] == {"s1": 50, "s2": 50, "s3": 40}
    assert found.notes[1] == "c.csv: 2 slides have rows that differ, such as s1; the first is taken."


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("x,y\n1,2\n", "names neither slides nor patients"),
        ("patient,y\nQ,2\n", "names no slide or patient"),
        ("patient,her2\np1,2\n", "no column of numbers"),
    ],
)
def test_a_table_without_covariates_is_refused(tmp_path, table, said):
    """With what it has."""
    (tmp_path / "c.csv").write_text(table)
    with pytest.raises(EvaluationError, match=said):
        read_covariates(tmp_path / "c.csv", manifest_in(tmp_path))


def test_a_bound_is_its_number_and_other_cells_are_missing(tmp_path):
    """Most cells of a column of ages are numbers, so it is no column of names; words are told."""
    ages = "".join(f"P{k},{40 + k}\n" for k in range(3, 8))
    (tmp_path / "c.csv").write_text(f"patient,age\nP1,>89\nP2,unclear\n{ages}")
    found = read_covariates(tmp_path / "c.csv", manifest_in(tmp_path))

    assert {s: found.numbers["age"].get(s) for s in ("s1", "s3", "P3")} == {"s1": 89, "s3": None, "P3": 43}
    assert "c.csv: cells that are no numbers count as missing: age (1, such as 'unclear')." in found.notes


@pytest.mark.parametrize("cells", [["0", "1+", "2+", "0", "0", "0"], ["A", "B", "1"], ["no", "no", "no", "1", "2"]])
def test_names_of_which_some_are_numbers_stay_names(tmp_path, cells):
    """IHC scores are mostly 0."""
    rows = "".join(f"P{k},{cell}\n" for k, cell in enumerate(cells, 1))
    (tmp_path / "c.csv").write_text(f"patient,score\n{rows}")

    assert not read_covariates(tmp_path / "c.csv", manifest_in(tmp_path)).numbers


def test_subgroups_are_named_loosely(tmp_path):
    """Columns of the manifest or of the covariates; one that is nowhere is refused with those there are."""
    manifest, ids = manifest_in(tmp_path), np.array(["s1", "s3"])
    found = columns_named(["age years", "Site"], Covariates(), manifest).added_to(SlideProperties(ids, {}))

    assert found.values["Age (years)"].tolist()[0] == 50
    assert found.categories["site"].tolist() == ["A", "B"]
    with pytest.raises(EvaluationError, match=r"has no column ER; it has Age \(years\), site"):
        columns_named(["ER"], Covariates(), manifest)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("date", "date has 60 different names, more than 50"),
        ("split", "split is blank"),
        ("patient_id", "patient_id names slides or patients"),
        ("HER2 status", "her2_status is the label"),
    ],
)
def test_a_column_that_makes_no_subgroups_is_refused_with_the_reason(tmp_path, name, said):
    """It is there, so it is not said to be missing."""
    rows = "".join(f"s{k},P{k},positive,day {k}\n" for k in range(60))
    (tmp_path / "labels.csv").write_text(f"slide_id,patient_id,her2_status,date\n{rows}")

    with pytest.raises(EvaluationError, match=said):
        columns_named([name], Covariates(), read_labels(tmp_path / "labels.csv"))


def test_the_manifests_own_columns_make_subgroups(tmp_path):
    """Its split, stain and resolution; words among numbers are told of the columns that are named."""
    numbers = "".join(f"s{k},P{k},{'train' if k % 2 else 'test'},0.2{k},{k},{k}\n" for k in range(9))
    (tmp_path / "labels.csv").write_text(f"slide_id,patient_id,split,mpp,x,y\n{numbers}s9,P9,test,,odd,odd\n")
    found = columns_named(["split", "mpp", "y"], Covariates(), read_labels(tmp_path / "labels.csv"))

    assert found.categories["split"]["s1"] == "train"
    assert found.numbers["mpp"]["s1"] == 0.21
    assert found.notes == ("labels.csv: cells that are no numbers count as missing: y (1, such as 'odd').",)


IDS = np.array(["s1", "s2", "s3"])


def test_features_come_from_files_and_tables(tmp_path):
    """A vector a slide, or the mean of tiles; means over a patient's slides; none and mixed ones are refused.

    Other programs name a slide's features by its file.
    """
    manifest, folder = manifest_in(tmp_path), tmp_path / "slide_features"
    rows = [replace(row, path=tmp_path / "B.ome.tif") if row.slide_id == "s2" else row for row in manifest.rows]
    manifest = replace(manifest, rows=tuple(rows))
    folder.mkdir()
    for name, values in (("s1", [1.0, 2.0]), ("B", [[3.0, 0.0], [5.0, 0.0]])):
        with h5py.File(folder / f"{name}.h5", "w") as h5:
            h5["features"] = values
    found = read_slide_features(folder, manifest, IDS)
    patients = found.of_patients(IDS, np.array(["P1", "P1", "P2"]))

    assert found.matrix.tolist() == [[1, 2], [4, 0]]
    assert (patients.ids.tolist(), patients.matrix.tolist()) == (["P1"], [[2.5, 1]])
    assert found.notes == ("slide_features: 1 of 3 slides lack features and are left out of the audit of shift: s3.",)
    (tmp_path / "f.csv").write_text("slide,a,b\ns1,1,2\ns3,4,5\n")
    assert read_slide_features(tmp_path / "f.csv", manifest, IDS).matrix.tolist() == [[1, 2], [4, 5]]
    with h5py.File(folder / "s3.h5", "w") as h5:
        h5["features"] = [1.0]
    with pytest.raises(EvaluationError, match="different numbers of features"):
        read_slide_features(folder, manifest, IDS)
    with pytest.raises(EvaluationError, match="holds no features of an evaluated slide"):
        read_slide_features(tmp_path, manifest, IDS)
    (folder / "s3.h5").unlink()
    (folder / "s1.h5").rename(folder / "s1.ome.h5")
    assert read_slide_features(folder, manifest, IDS).matrix.tolist() == [[1, 2], [4, 0]]
    (folder / "s3.h5").write_text("no")
    with pytest.raises(EvaluationError, match=r"s3\.h5: holds no features"):
        read_slide_features(folder, manifest, IDS)


def _external(h5):
    h5["features"] = h5py.ExternalLink("s1.h5", "features")


def _hollow(h5):
    h5.create_dataset("features", (10**9, 256), "f4", chunks=(1000, 256))


def _endless(h5):
    h5["features"] = h5py.SoftLink("/features")


def _single(h5):
    h5["features"] = 3.0


@pytest.mark.parametrize(
    ("fill", "words"),
    [(_external, "lies in another file"), (_hollow, "0 bytes are stored"), (_endless, "too many links"),
     (_single, r"is \(\) float64")],
)  # fmt: skip
def test_features_are_those_of_the_file_itself(tmp_path, fill, words):
    """Links and hollow data sets are one line, not another file's numbers or all memory; no tile is no feature."""
    manifest, folder = manifest_in(tmp_path), tmp_path / "slide_features"
    folder.mkdir()
    for name, values in (("s1", [1.0, 2.0]), ("s2", np.empty((0, 2)))):
        with h5py.File(folder / f"{name}.h5", "w") as h5:
            h5["features"] = values

    assert read_slide_features(folder, manifest, IDS).ids.tolist() == ["s1"]
    with h5py.File(folder / "s3.h5", "w") as h5:
        fill(h5)
    with pytest.raises(EvaluationError, match=rf"s3\.h5: holds no features that can be read .*{words}"):
        read_slide_features(folder, manifest, IDS)


def test_a_feature_that_a_site_lacks_goes_not_the_site(tmp_path):
    """As texts do; a slide goes that lacks nearly all features, or one that nearly all others have; all are told."""
    n = 60
    ids = np.array([f"s{k}" for k in range(n)])
    (tmp_path / "labels.csv").write_text("slide_id,patient_id\n" + "".join(f"s{k},P{k}\n" for k in range(n)))
    rows = [[f"s{k}", f"{k}.5", str(k) if k % 3 else "", f"{k}.1", "text"] for k in range(n)]
    rows[1][1:4], rows[2][3] = ["", "", ""], "odd"
    (tmp_path / "f.csv").write_text("\n".join(map(",".join, [["slide", "a", "b", "c", "d"], *rows])))
    found = read_slide_features(tmp_path / "f.csv", read_labels(tmp_path / "labels.csv"), ids)

    assert found.matrix.shape == (n - 2, 2)
    assert set(ids) - set(found.ids) == {"s1", "s2"}
    assert found.notes[1:] == (
        "f.csv: cells that are no numbers count as missing: c (1, such as 'odd').",
        "f.csv: names are no features: d.",
        "f.csv: features that many slides lack are left out: b.",
        "f.csv: 2 of 60 slides lack features and are left out of the audit of shift: s1, s2.",
    )


def test_the_discrepancy_is_the_mean_over_pairs():
    """A slow loop over all pairs gives the same; a shuffle to patients of equal features is as far as they are."""
    rng = np.random.default_rng(0)
    points, inside = rng.normal(size=(12, 3)), np.arange(12) < 5
    kernel = squareform(np.exp(-pdist(points, "sqeuclidean")))

    def mean(first, second):
        return np.mean([kernel[i, j] for i in first for j in second if i != j])

    one, two = np.flatnonzero(inside), np.flatnonzero(~inside)
    expected = mean(one, one) + mean(two, two) - 2 * mean(one, two)
    assert discrepancies(kernel, inside[None].astype(float), rng)[0] == pytest.approx([expected])
    columns = np.repeat([(0, 0), (1, 0), (0.3, 1)], (6, 3, 3), axis=0)
    first = (np.arange(12) < 6).astype(float)
    apart = pdist((columns - columns.mean(axis=0)) / columns.std(axis=0), "sqeuclidean")
    kernel = squareform(np.exp(-apart / np.median(apart)))
    draws = np.random.default_rng(0).permuted(np.tile(first, (999, 1)), axis=1)
    n_same = int((draws == first).all(axis=1).sum())
    assert discrepancies(kernel, first[None], np.random.default_rng(0))[1] == [(1 + n_same) / 1000]


def features_of(cases, shift, seed, d=30):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(len(cases), d))
    matrix[cases.sites == "b"] += shift
    return SlideFeatures(cases.ids, matrix, "features")


def test_a_shift_is_found_and_none_is_made_up():
    """A site half a standard deviation away is seen; without any, about 5 % of cohorts alarm."""
    alarms = 0
    for seed in range(40):
        cases = made_up_cases(60, seed=seed, sites=("a", "b", "c"))
        alarms += shift_audit(cases, features_of(cases, 0.0, seed), seed).alarm
    cases = made_up_cases(60, sites=("a", "b", "c"))
    found = shift_audit(cases, features_of(cases, 0.5, 0))
    alike = shift_audit(cases, features_of(cases, 0.0, 0))

    assert alarms <= 6
    assert "none of 3 sites with at least" in alike.sentence
    assert found.alarm
    assert "b" in found.sentence
    assert [row["differs"] for row in found.rows if row["site"] == "b"] == [True]
    assert not shift_audit(cases, None).done
    assert not shift_audit(made_up_cases(60), features_of(made_up_cases(60), 0, 0)).done


def test_a_covariate_is_tried_as_a_shortcut():
    """A number and a category that tell the label; one that does not is silent."""
    cases = made_up_cases(100, seed=2)
    rng = np.random.default_rng(0)
    nothing = dict.fromkeys(PROPERTIES, np.full(100, np.nan))
    numbers = {"section mm2": rng.normal(size=100) + 2 * cases.truth}
    categories = {"stain batch": np.where(cases.truth, "x", rng.choice(["x", "y"], 100))}
    found = shortcut_audit(cases, SlideProperties(cases.ids, nothing | numbers, categories))
    silent = shortcut_audit(cases, SlideProperties(cases.ids, nothing | {"section mm2": rng.normal(size=100)}))

    assert found.alarm
    assert {row["shortcut"] for row in found.rows if row["predicts"]} >= {"section mm2", "stain batch", "all together"}
    assert not silent.alarm


def test_a_subgroup_where_the_model_fails_is_found():
    """Its AUC differs; a column of numbers is cut into thirds; a group of few patients is not looked at."""
    cases = made_up_cases(240, gap=3.0, seed=1)
    rng = np.random.default_rng(0)
    group = rng.choice(np.array(["old", "new", "few"]), 240, p=[0.6, 0.4, 0.0])
    group[:3] = "few"
    probability = np.where(group == "new", rng.random(240), cases.probability)
    broken = replace(cases, probability=probability)
    found = subgroup_audit(broken.decided_at(0.5), {"age": rng.uniform(30, 80, 240)}, {"scanner": group})

    assert found.alarm
    assert "scanner new" in found.sentence
    assert {row["group"] for row in found.rows if row["column"] == "scanner"} <= {"old", "new"}
    assert [row["n"] for row in found.rows if row["column"] == "age"] == [80, 80, 80]
    assert str(found.rows[0]["group"]).startswith("<")


def test_no_p_value_of_a_subgroup_is_0():
    """Every positive of one group is missed, and none of another."""
    cases = made_up_cases(240, share=0.5)
    group = np.where(np.arange(240) < 120, "x", "y")
    missed = replace(cases, probability=np.where(group == "x", 0.1, 0.9)).decided_at(0.5)

    found = [row["p_rates_holm"] for row in subgroup_audit(missed, {}, {"scanner": group}).rows]

    assert all(isinstance(p, float) and 0 < p < 1e-20 for p in found)


@pytest.mark.parametrize(
    ("numbers", "groups"),
    [
        ([20230115, 20230116], ["20230115", "20230116"]),
        ([1e-9, 1.0000001e-9], ["1e-09", "1.0000001e-09"]),
        ([0.1, 0.3, 0.1 + 0.2], ["0.1", "0.3"]),
        ([1, 2, 2.5], ["1", "2", "2.5"]),
        ([1, 2, 3, 4], ["1", "2", "3", "4"]),
        (range(20230101, 20230107), ["<20230103", "20230103 to 20230104", "20230104 or more"]),
        ([1000.01, 1000.02, 1000.03, 1000.04, 1000.05], ["<1000.02", "1000.02 to 1000.04", "1000.04 or more"]),
        ([*[0] * 12, 1, 2, 3, 4, 5], ["<1", "1 or more"]),
    ],
)
def test_numbers_that_differ_are_groups_that_differ(numbers, groups):
    """Days and serial numbers too, whose first digits are the same, and counts that are 0 of most patients."""
    column = np.repeat(np.array(numbers, float), 12)
    cases = made_up_cases(len(column), seed=1)

    found = subgroup_audit(cases, {"scanner": column}, {})

    assert [row["group"] for row in found.rows] == groups


def test_equal_subgroups_alarm_in_one_of_twenty_cohorts():
    """With six groups of two columns that mean nothing."""
    alarms = 0
    for seed in range(40):
        cases = made_up_cases(100, seed=seed)
        rng = np.random.default_rng(seed)
        columns = {name: rng.choice(np.array(["x", "y", "z"]), 100) for name in ("one", "two")}
        alarms += subgroup_audit(cases, {}, columns).alarm

    assert alarms <= 5


def test_two_other_patients_are_no_comparison():
    """Their AUC is 0 or 1, whatever the model."""
    truth = np.arange(20) % 3 == 0
    group = np.array(["few", "few", *["many"] * 18])
    scores = np.where(group == "few", truth, 1 - truth) + 0.01 * np.arange(20)
    cases = replace(made_up_cases(20), truth=truth, probability=scores, decided=truth)

    assert not subgroup_audit(cases, {}, {"grp": group}).alarm


def test_groups_that_are_not_looked_at_are_counted():
    """The largest twelve are; patients whose slides differ are in no group."""
    cases = made_up_cases(200)
    names = np.array(["several", *[f"reader {k}" for k in (*range(14), *range(13)) for _ in range(7)], *["x"] * 10])
    found = subgroup_audit(cases, {}, {"reader": names})

    assert {row["n"] for row in found.rows} == {14}
    assert found.sentence.endswith(
        "Not looked at: 3 smaller groups of reader; 1 patient with slides of several groups of reader."
    )


def test_columns_that_are_not_named_are_no_subgroups():
    """And a group of everybody has nobody to compare with."""
    cases = made_up_cases(20)

    assert not subgroup_audit(cases, {}, {}).done
    assert not subgroup_audit(cases, {}, {"stain": np.full(20, "HE")}).done


def test_the_command_takes_them_all(tmp_path, command_line):
    """From tables beside the labels; what was read is printed."""
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    status = np.where(truth, "positive", "negative")
    lines = {
        "labels": ["patient,her2_status,site"] + [f"P{k},{status[k]},{'AB'[k % 2]}" for k in range(60)],
        "scores": ["patient,score"] + [f"P{k},{rng.random():.3f}" for k in range(60)],
        "covariates": ["patient,age,ER"] + [f"P{k},{rng.integers(30, 80)},{'+-'[k % 2]}ve" for k in range(60)],
        "features": ["patient,a,b"] + [f"P{k},{k % 2},{rng.random():.3f}" for k in range(60)],
    }
    for name, rows in lines.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
    line = ["evaluate", tmp_path / "scores.csv", "-m", tmp_path / "labels.csv", "-o", tmp_path / "out", "--no-plots"]
    line += ["--covariates", tmp_path / "covariates.csv", "--features", tmp_path / "features.csv", "--by", "ER"]
    code, said, error = command_line(*line)
    page = (tmp_path / "out" / "evaluation.md").read_text()

    assert (code, error) == (0, "")
    assert "read     covariates.csv: patients in 'patient'; covariates age, ER." in said
    assert "By the features of features.csv 2 of 2 sites" in said
    assert "| ER | +ve | 30 |" in page
    assert "| age | " in page


def test_a_blank_site_is_none_and_several_are_no_site():
    """A patient's site is that of the slides that have one, in any order; who has two is at neither."""
    slides = made_up_cases(90, slides_a_patient=3)
    sites = np.array(["A", "", "A", "", "B", "B", "B", "A", ""] * 10)
    slides = replace(slides, sites=sites, true_score=np.where(sites == "", -1, 2))
    patients, _ = by_patient(slides, "mean")
    scanner = SlideProperties(slides.ids, {}, {"scanner": sites}).of_patients(slides.patients, patients.ids)

    assert patients.sites.tolist() == scanner.categories["scanner"].tolist() == ["A", "B", "several"] * 10
    assert set(patients.true_score.tolist()) == {2}
    assert {result.site: result.n for result in site_results(patients)} == {"A": 10, "B": 10}
    assert not shift_audit(patients, SlideFeatures(patients.ids, np.eye(30), "x")).rows[2:]


def test_patients_of_several_sites_are_counted(tmp_path, command_line):
    """On the console and the page."""
    rows = [f"s{k}{part},P{k},{'positive' if k % 3 else 'negative'}" for k in range(30) for part in "ab"]
    sites = [("A", "B")[k % 2 if k else part == "a"] for k in range(30) for part in "ab"]
    table = "\n".join(f"{row},{site}" for row, site in zip(rows, sites, strict=True))
    (tmp_path / "labels.csv").write_text(f"slide_id,patient_id,her2_status,site\n{table}\n")
    scores = "".join(f"{row.split(',')[0]},0.{k * 37 % 97}\n" for k, row in enumerate(rows))
    (tmp_path / "scores.csv").write_text(f"slide_id,score\n{scores}")
    line = ["evaluate", tmp_path / "scores.csv", "-m", tmp_path / "labels.csv", "-o", tmp_path / "out", "--no-plots"]
    _, said, _ = command_line(*line)

    told = "labels.csv: 1 of 30 patients have slides of more than one site: P0."
    assert told in said
    assert told in (tmp_path / "out" / "evaluation.md").read_text()
