"""Splits: whoever is split, no patient is on two sides, classes and shares are kept, and a seed fixes everything."""

import math
from collections import Counter, defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from he2her2.errors import ManifestError
from he2her2.files import digest
from he2her2.manifest import SPLITS as SIDES
from he2her2.manifest import (
    Patient,
    classes_missing,
    patients_of,
    read_manifest,
    split_by_shares,
    split_in_folds,
    with_splits,
)
from he2her2.manifest.stratification import sides_of_groups, stratified_counts

cohorts = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=3, max_size=60).map(
    lambda drawn: tuple(Patient(f"p{i:03d}", label, f"s{site}") for i, (label, site) in enumerate(drawn))
)
weights = st.tuples(*[st.integers(1, 20)] * 3).map(lambda drawn: dict(zip(SIDES, map(float, drawn), strict=True)))
seeds = st.integers(0, 2**31)


def sizes(splits):
    """How many patients are on each side."""
    counted = Counter(splits.values())
    return [counted[side] for side in SIDES]


@pytest.fixture
def manifest_file(tmp_path):
    """Write a manifest of (patient, status, site) with an H&E and an IHC slide each; gives its path."""

    def write(patients):
        lines = ["slide_id,path,patient_id,stain,her2_status,site"]
        for name, status, site in patients:
            lines += [f"{name}-{stain},{name}-{stain}.svs,{name},{stain},{status},{site}" for stain in ("HE", "IHC")]
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@given(patients=cohorts, shares=weights, seed=seeds)
def test_sides_are_within_one_patient_of_their_shares(patients, shares, seed):
    """Every side's number of patients is a rounding of its share."""
    splits = split_by_shares(patients, shares, seed=seed)

    for side, n in zip(SIDES, sizes(splits), strict=True):
        assert abs(n - len(patients) * shares[side] / sum(shares.values())) < 1


@given(patients=cohorts, shares=weights, seed=seeds, by_site=st.booleans())
def test_everybody_is_on_exactly_one_side(patients, shares, seed, by_site):
    """Nobody is lost, nobody is twice; by site no side is empty."""
    if by_site and len({patient.site for patient in patients}) < 3:
        return
    splits = split_by_shares(patients, shares, seed=seed, by_site=by_site)

    assert splits.keys() == {patient.key for patient in patients}
    assert not by_site or min(sizes(splits)) > 0


@given(counts=st.lists(st.integers(3, 30), min_size=1, max_size=4), shares=weights, seed=seeds)
def test_every_class_is_on_every_side_where_the_sizes_allow_it(counts, shares, seed):
    """With three patients of each class, and sides that hold as many as there are classes, none is missing."""
    patients = [Patient(f"{c}-{i}", str(c), "s") for c, n in enumerate(counts) for i in range(n)]
    splits = split_by_shares(patients, shares, seed=seed)
    smallest = min(math.floor(len(patients) * share / sum(shares.values()) + 1e-9) for share in shares.values())

    if smallest >= len(counts):
        assert classes_missing(patients, splits) == ()


@given(patients=cohorts, shares=weights, seed=seeds, by_site=st.booleans(), random=st.randoms(use_true_random=False))
def test_a_seed_gives_the_same_split_whatever_the_order(patients, shares, seed, by_site, random):
    """The order of the manifest's rows changes nothing."""
    if by_site and len({patient.site for patient in patients}) < 3:
        return
    shuffled = list(patients)
    random.shuffle(shuffled)

    first, second = (split_by_shares(some, shares, seed=seed, by_site=by_site) for some in (patients, shuffled))

    assert first == second


def test_another_seed_gives_another_split():
    """The seed does something."""
    patients = [Patient(f"p{i}", "ab"[i % 2], "s") for i in range(40)]
    splits = [split_by_shares(patients, dict.fromkeys(SIDES, 1.0), seed=seed) for seed in range(3)]

    assert splits[0] != splits[1] != splits[2]


@given(patients=cohorts, shares=weights, seed=seeds)
def test_sites_stay_whole(patients, shares, seed):
    """All patients of a site are on one side."""
    if len({patient.site for patient in patients}) < 3:
        return
    splits = split_by_shares(patients, shares, seed=seed, by_site=True)

    sides_of = defaultdict(set)
    for patient in patients:
        sides_of[patient.site].add(splits[patient.key])
    assert all(len(sides) == 1 for sides in sides_of.values())


def test_sites_of_equal_size_meet_the_shares():
    """Ten sites of ten patients, both classes in each: 6, 2 and 2 sites."""
    patients = [Patient(f"{s}-{i}", "ab"[i % 2], str(s)) for s in range(10) for i in range(10)]

    splits = split_by_shares(patients, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=4, by_site=True)

    assert sizes(splits) == [60, 20, 20]


def test_sites_spread_a_rare_class():
    """Three of nine sites have positives: each side gets one of them."""
    patients = [
        Patient(f"{s}-{i}", "positive" if s < 3 and i == 0 else "negative", str(s)) for s in range(9) for i in range(5)
    ]

    for seed in range(5):
        splits = split_by_shares(patients, dict.fromkeys(SIDES, 1.0), seed=seed, by_site=True)

        assert classes_missing(patients, splits) == ()


@given(patients=cohorts, folds=st.integers(2, 5), seed=seeds)
def test_folds_test_everybody_once(patients, folds, seed):
    """Over the folds of a repeat each patient is tested once, and validates once from three folds on."""
    if len(patients) < folds:
        return
    (repeat,) = split_in_folds(patients, folds, seed=seed)

    roles = Counter((key, side) for splits in repeat for key, side in splits.items())
    for patient in patients:
        assert roles[patient.key, "test"] == 1
        assert roles[patient.key, "val"] == (1 if folds > 2 else 0)
        assert roles[patient.key, "train"] == folds - 1 - (folds > 2)


@given(counts=st.lists(st.integers(5, 30), min_size=2, max_size=3), folds=st.integers(2, 5), seed=seeds)
def test_folds_are_stratified(counts, folds, seed):
    """Each class is spread over the folds within one patient, and so are all patients."""
    patients = [Patient(f"{c}-{i}", str(c), "s") for c, n in enumerate(counts) for i in range(n)]
    (repeat,) = split_in_folds(patients, folds, seed=seed)

    tested = [[patient for patient in patients if splits[patient.key] == "test"] for splits in repeat]
    for label in (None, *{patient.label for patient in patients}):
        numbers = [sum(label in (None, patient.label) for patient in part) for part in tested]
        assert max(numbers) - min(numbers) <= 1


@given(seed=seeds, folds=st.integers(2, 4))
def test_folds_by_site_keep_sites_whole(seed, folds):
    """A site is tested in one fold only."""
    patients = [Patient(f"{s}-{i}", "ab"[(s + i) % 2], str(s)) for s in range(8) for i in range(6)]
    (repeat,) = split_in_folds(patients, folds, seed=seed, by_site=True)

    for site in {patient.site for patient in patients}:
        tested = [any(splits[p.key] == "test" for p in patients if p.site == site) for splits in repeat]
        assert sum(tested) == 1


@pytest.mark.parametrize("seed", range(5))
def test_folds_by_site_are_as_even_as_scikit_learns(seed):
    """Unequal sites: the largest deviation of a class in a fold is at most that of StratifiedGroupKFold."""
    rng = Random(seed)
    patients = [Patient(f"p{i:03d}", rng.choice("aab"), f"s{int(rng.expovariate(0.1))}") for i in range(120)]
    labels, sites = [p.label for p in patients], [p.site for p in patients]
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
    theirs = [[patients[i] for i in test] for _, test in splitter.split(labels, labels, sites)]
    (repeat,) = split_in_folds(patients, 4, seed=seed, by_site=True)
    ours = [[p for p in patients if splits[p.key] == "test"] for splits in repeat]

    def unevenness(parts):
        return sum(abs(sum(p.label == c for p in part) - labels.count(c) / 4) for part in parts for c in "ab")

    assert unevenness(ours) <= unevenness(theirs)


def test_repeats_are_shuffled_anew():
    """Two repeats differ; the same seed gives both again."""
    patients = [Patient(f"p{i}", "ab"[i % 2], "s") for i in range(20)]

    first = split_in_folds(patients, 4, repeats=2, seed=5)

    assert first[0] != first[1]
    assert first == split_in_folds(patients, 4, repeats=2, seed=5)


@given(
    numbers=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    parts=st.lists(st.integers(1, 9), min_size=2, max_size=3),
)
def test_apportioning_is_as_near_as_a_search_finds(numbers, parts):
    """No other whole numbers with rounded totals lack fewer classes, or are nearer to the shares."""
    if sum(numbers) == 0:
        return
    shares = [part / sum(parts) for part in parts]
    found = stratified_counts(numbers, shares)

    assert [sum(row) for row in found] == numbers
    lacking, distance = min(quality(table, numbers, shares) for table in tables(numbers, shares))
    assert quality(found, numbers, shares) <= (lacking, distance + 1e-6)


def quality(table, numbers, shares):
    """Cells that lack their class, and the distance from the shares; a comparable pair."""
    cells = [
        (n, size * share)
        for row, size in zip(table, numbers, strict=True)
        for n, share in zip(row, shares, strict=True)
    ]
    return sum(n == 0 for n, _ in cells), sum(abs(n - wish) for n, wish in cells)


def tables(numbers, shares):
    """Every table of whole numbers with these row sums and totals that round the shares: the slow way."""
    total = [sum(numbers) * share for share in shares]

    def rows(n, k):
        if k == 1:
            yield (n,)
            return
        for first in range(n + 1):
            for rest in rows(n - first, k - 1):
                yield (first, *rest)

    def fill(done, left):
        if not left:
            sums = [sum(column) for column in zip(*done, strict=True)]
            if all(math.floor(t + 1e-9) <= s <= math.ceil(t - 1e-9) for s, t in zip(sums, total, strict=True)):
                yield done
            return
        for row in rows(left[0], len(shares)):
            sums = [sum(column) for column in zip(*done, row, strict=True)]
            if all(s <= math.ceil(t - 1e-9) for s, t in zip(sums, total, strict=True)):
                yield from fill([*done, row], left[1:])

    return fill([], numbers)


def test_groups_fill_every_side():
    """As many groups as sides: each side gets one."""
    for seed in range(20):
        sides = sides_of_groups([[50, 1], [1, 0], [1, 1]], [0.8, 0.1, 0.1], Random(seed))

        assert sorted(sides) == [0, 1, 2]
        assert sides[0] == 0


def test_groups_spread_classes_before_they_meet_shares():
    """The nearest sizes would leave one side without the rare class; both sides get it instead."""
    for seed in range(10):
        sides = sides_of_groups([[8, 2], [9, 0], [7, 0], [6, 2]], [0.8, 0.2], Random(seed))

        assert sides[0] != sides[3]


def test_patients_of_one_name_stay_together(manifest_file):
    """Both slides of a patient, and both spellings of its barcode, get one split."""
    path = manifest_file([("TCGA-A1-A0S1", "positive", "a"), ("TCGA-A1-A0S2", "negative", "a"), ("q", "negative", "b")])
    path.write_text(path.read_text().replace("TCGA-A1-A0S1,IHC", "TCGA-A1-A0S1-01Z-00-DX1,IHC"))
    manifest = read_manifest(path)
    cohort = patients_of(manifest)

    done = with_splits(manifest, split_by_shares(cohort.patients, dict.fromkeys(SIDES, 1.0), seed=0))

    assert [patient.key for patient in cohort.patients] == ["q", "tcga-a1-a0s1", "tcga-a1-a0s2"]
    assert done.rows[0].split == done.rows[1].split is not None


def test_contradictions_are_told_before_anything_is_split(manifest_file):
    """A patient with two statuses, and one at two sites: both are told, with their lines."""
    path = manifest_file([("a", "positive", "x"), ("b", "negative", "x"), ("c", "negative", "y")])
    text = path.read_text().replace("a-IHC.svs,a,IHC,positive", "a-IHC.svs,a,IHC,negative")
    path.write_text(text.replace("b,IHC,negative,x", "b,IHC,negative,z"))

    with pytest.raises(ManifestError) as caught:
        patients_of(read_manifest(path))

    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["lines 2, 3", "lines 4, 5"]


def test_too_few_patients_or_sites_are_refused():
    """Sides cannot be filled by nobody."""
    two = [Patient("a", "x", "s"), Patient("b", "y", "s")]

    with pytest.raises(ManifestError, match="2 labelled patients cannot fill 3 splits"):
        split_by_shares(two, dict.fromkeys(SIDES, 1.0), seed=0)
    with pytest.raises(ManifestError, match="1 sites cannot fill 3 splits whole"):
        split_by_shares(two, dict.fromkeys(SIDES, 1.0), seed=0, by_site=True)
    with pytest.raises(ManifestError, match="1 sites cannot fill 2 splits whole"):
        split_in_folds(two, 2, by_site=True)


def test_split_writes_a_manifest_and_tells_what_is_in_it(command_line, manifest_file, tmp_path):
    """Patients without a label get no split, and that is told."""
    patients = [(f"p{i}", ("positive", "negative")[i % 2], "a") for i in range(10)]
    path = manifest_file([*patients, ("q", "", "a")])

    code, out, err = command_line("split", path, "--out", tmp_path / "split.csv", "--seed", 3)

    assert code == 0, err
    rows = read_manifest(tmp_path / "split.csv").rows
    assert Counter(row.split for row in rows) == {"train": 12, "val": 4, "test": 4, None: 2}
    assert "1 patients have no her2_status and get no split" in out
    assert "split train: 12 slides of 6 patients; HE: 6, IHC: 6" in out


def test_split_writes_a_manifest_for_each_fold(command_line, manifest_file, tmp_path):
    """Folds and repeats, as files whose names say which."""
    path = manifest_file([(f"p{i}", ("positive", "negative")[i % 2], f"s{i % 4}") for i in range(12)])

    code, _, err = command_line("split", path, "--out", tmp_path / "f", "--folds", 3, "--repeats", 2, "--by-site")

    assert code == 0, err
    assert sorted(file.name for file in (tmp_path / "f").iterdir()) == [
        f"repeat-{r}-fold-{f}.csv" for r in (1, 2) for f in (1, 2, 3)
    ]
    tested = [
        {row.patient_id for row in read_manifest(tmp_path / "f" / f"repeat-1-fold-{f}.csv").select(split="test")}
        for f in (1, 2, 3)
    ]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 12


def test_folds_stand_by_themselves(command_line, manifest_file, tmp_path):
    """Not beside folds of another split, in which the same patients are on other sides, nor in place of the input."""
    path = manifest_file([(f"p{i}", ("positive", "negative")[i % 2], "a") for i in range(12)])
    out = tmp_path / "f"

    assert command_line("split", path, "--out", out, "--folds", 4)[0] == 0
    assert command_line("split", path, "--out", out, "--folds", 4)[0] == 0
    code, _, err = command_line("split", path, "--out", out, "--folds", 3)
    assert (code, "holds folds of another split, such as repeat-1-fold-4.csv" in err) == (2, True)

    before = (out / "repeat-1-fold-2.csv").read_bytes()
    code, _, err = command_line("split", out / "repeat-1-fold-2.csv", "--out", out, "--folds", 4, "--seed", 7)
    assert (code, "is read by this command and is not replaced" in err) == (2, True)
    assert (out / "repeat-1-fold-2.csv").read_bytes() == before


def test_a_class_that_a_side_lacks_is_told(command_line, manifest_file, tmp_path):
    """One positive patient cannot be on three sides."""
    path = manifest_file([(f"p{i}", "positive" if i == 0 else "negative", "a") for i in range(9)])

    code, out, _ = command_line("split", path, "--out", tmp_path / "split.csv")

    assert code == 0
    assert out.count("CAUTION") == 2


def test_whole_sites_need_sites(command_line, manifest_file, tmp_path):
    """Without any, each patient would be one; those of some patients only are told."""
    rows = [(f"p{i}", ("positive", "negative")[i % 2], "") for i in range(9)]
    some = [(name, label, "ab"[i % 2] if i < 6 else "") for i, (name, label, _) in enumerate(rows)]

    code, _, err = command_line("split", manifest_file(rows), "--out", tmp_path / "none.csv", "--by-site")
    assert (code, err.count("\n")) == (2, 1)
    assert "no patient has a site" in err

    code, out, _ = command_line("split", manifest_file(some), "--out", tmp_path / "some.csv", "--by-site")
    assert code == 0
    assert "CAUTION 3 of 9 patients have no site" in out


@pytest.mark.parametrize(
    "options",
    [("--shares", "1,2"), ("--shares", "0,0,0"), ("--shares", "a,b,c"), ("--shares", "-1,1,1"), ("--folds", "1")],
)
def test_impossible_splits_are_one_line(command_line, manifest_file, tmp_path, options):
    """A mistake on the command line is told in one line."""
    path = manifest_file([(f"p{i}", ("positive", "negative")[i % 2], "a") for i in range(9)])

    code, _, err = command_line("split", path, "--out", tmp_path / "out", *options)

    assert (code, err.count("\n")) == (2, 1)


def test_recorded_seeds_split_as_they_did():
    """A seed that somebody wrote down gives the same split for ever: 200 cohorts are pinned."""
    rng = Random(12)
    found: list[object] = []
    for seed in range(200):
        patients = [Patient(f"p{i}", rng.choice("abc"), f"s{rng.randrange(7)}") for i in range(rng.randint(12, 90))]
        found.append(split_by_shares(patients, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=seed))
        found.append(split_in_folds(patients, rng.randint(2, 6), repeats=2, seed=seed))
        found.append(split_by_shares(patients, {"train": 0.7, "test": 0.3}, seed=seed, by_site=True))

    assert digest(found) == "fcb728ce0130be0ce0c87c740ff86ddc00f414f7a9e47889e224453889894192"
