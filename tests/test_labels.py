"""ASCO/CAP's rules, against a transcription of the guideline's own figures."""

import csv
import json
import math
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.labels import (
    Her2Status,
    IhcScore,
    IshCounts,
    IshGroup,
    IshResult,
    Policy,
    Stratum,
    apply_guideline,
    doubt_about,
    parse_ihc,
    parse_ish,
    parse_status,
    stratum_of,
)

POSITIVE, NEGATIVE, OPEN = Her2Status.POSITIVE, Her2Status.NEGATIVE, Her2Status.UNDETERMINED
SCORES = (None, *IhcScore)

# Figures 3 to 6 of ASCO/CAP 2018, by hand: for each group its columns are IHC not done, 0, 1+, 2+ (recounted,
# unchanged) and 3+. Groups 1 and 5 need no IHC; a 3+ is positive by Figure 1, whatever the group.
FIGURES = {
    1: (POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE),
    2: (OPEN, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE),
    3: (OPEN, NEGATIVE, NEGATIVE, POSITIVE, POSITIVE),
    4: (OPEN, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE),
    5: (NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, POSITIVE),
}
# Counts of each group, on and off its borders.
COUNTS = {
    1: ((2.0, 4.0), (2.0, 100.0), (7.5, 4.0), (2.3, 4.5)),
    2: ((2.0, 3.99), (9.0, 0.0)),
    3: ((1.99, 6.0), (0.0, 50.0)),
    4: ((1.99, 4.0), (0.5, 5.99)),
    5: ((1.99, 3.99), (0.0, 0.0), (1.1, 2.2)),
}
# Figure 1 (IHC), with the stated result of ISH: not done, negative, positive, equivocal.
STATED = {
    None: (OPEN, NEGATIVE, POSITIVE, OPEN),
    "0": (NEGATIVE, NEGATIVE, POSITIVE, NEGATIVE),
    "1+": (NEGATIVE, NEGATIVE, POSITIVE, NEGATIVE),
    "2+": (OPEN, NEGATIVE, POSITIVE, OPEN),
    "3+": (POSITIVE, POSITIVE, POSITIVE, POSITIVE),
}
# Figure 2 (single-probe ISH): copies < 4, 4 to < 6, >= 6.
SINGLE_PROBE = {
    None: (NEGATIVE, OPEN, POSITIVE),
    "0": (NEGATIVE, NEGATIVE, POSITIVE),
    "1+": (NEGATIVE, NEGATIVE, POSITIVE),
    "2+": (NEGATIVE, OPEN, POSITIVE),
    "3+": (POSITIVE, POSITIVE, POSITIVE),
}

numbers = st.floats(0, 60, allow_nan=False)
counts = st.builds(IshCounts, numbers, numbers)
any_ish = st.one_of(
    st.none(),
    st.sampled_from(list(IshResult)),
    counts,
    st.builds(IshCounts, numbers, st.none()),
    st.builds(IshCounts, st.none(), numbers),
)


@pytest.mark.parametrize(("group", "pair"), [(group, pair) for group, pairs in COUNTS.items() for pair in pairs])
def test_counts_fall_into_their_group(group, pair):
    """Ratio 2.0, copies 4.0 and 6.0 belong to the upper side."""
    assert IshCounts(*pair).group == IshGroup(group)


@pytest.mark.parametrize(("group", "column"), list(product(FIGURES, range(5))))
def test_every_group_with_every_score_is_as_the_figures_say(group, column):
    """Figures 3 to 6, all 25 cells, for all counts of the group."""
    for ratio, copies in COUNTS[group]:
        decision = apply_guideline(SCORES[column], IshCounts(ratio, copies), recounted=True)

        assert decision.status == FIGURES[group][column], (ratio, copies)
        assert decision.group == IshGroup(group)


@pytest.mark.parametrize("group", FIGURES)
def test_groups_2_to_4_with_2_plus_wait_for_the_recount(group):
    """Without the recount of 20 cells the guideline has no answer to these; the others need none."""
    decision = apply_guideline(IhcScore.TWO, IshCounts(*COUNTS[group][0]))

    assert decision.status == (OPEN if group in (2, 3, 4) else FIGURES[group][3])
    assert ("recount" in decision.rule) == (group in (2, 3, 4))


@pytest.mark.parametrize(("score", "column"), list(product(STATED, range(4))))
def test_every_score_with_every_stated_result(score, column):
    """Figure 1, and what a report without counts can say."""
    ish = (None, IshResult.NEGATIVE, IshResult.POSITIVE, IshResult.EQUIVOCAL)[column]

    assert apply_guideline(score and IhcScore(score), ish).status == STATED[score][column]


@pytest.mark.parametrize(("score", "column"), list(product(SINGLE_PROBE, range(3))))
def test_copies_alone_are_a_single_probe_assay(score, column):
    """Figure 2, on its borders and between them."""
    for copies in ((0.0, 3.99), (4.0, 5.99), (6.0, 40.0))[column]:
        assert apply_guideline(score and IhcScore(score), IshCounts(None, copies)).status == SINGLE_PROBE[score][column]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("ratio", [1.2, 2.5])
def test_a_ratio_alone_decides_only_what_all_its_groups_share(score, ratio):
    """Without copies a ratio leaves two or three groups; where they differ nothing is guessed."""
    groups = (1, 2) if ratio >= 2 else (3, 4, 5)
    possible = {FIGURES[group][SCORES.index(score)] for group in groups}

    status = apply_guideline(score, IshCounts(ratio, None), recounted=True).status

    assert status == (possible.pop() if len(possible) == 1 else OPEN)


@pytest.mark.parametrize(
    ("score", "ish", "faint", "stratum"),
    [
        ("0", None, None, Stratum.ZERO_OR_ULTRALOW),
        ("0", None, True, Stratum.ULTRALOW),
        ("0", None, False, Stratum.NULL),
        ("1+", None, None, Stratum.LOW),
        ("1+", IshResult.NEGATIVE, None, Stratum.LOW),
        ("2+", IshResult.NEGATIVE, None, Stratum.LOW),
        ("2+", None, None, Stratum.UNDETERMINED),
        ("2+", IshResult.POSITIVE, None, Stratum.POSITIVE),
        ("1+", IshResult.POSITIVE, None, Stratum.POSITIVE),
        ("3+", None, None, Stratum.POSITIVE),
        (None, IshResult.NEGATIVE, None, Stratum.UNDETERMINED),
    ],
)
def test_strata_are_those_of_the_trials(score, ish, faint, stratum):
    """HER2-low is 1+, or 2+ that ISH finds negative; a plain 0 is not guessed to be null."""
    assert apply_guideline(score and IhcScore(score), ish, faint_staining=faint).stratum == stratum


@given(ihc=st.sampled_from(SCORES), ish=any_ish, policy=st.sampled_from(list(Policy)), recounted=st.booleans())
def test_every_decision_is_whole(ihc, ish, policy, recounted):
    """A decision names its rule and source; positive status and positive stratum go together."""
    decision = apply_guideline(ihc, ish, policy=policy, recounted=recounted)

    assert decision.rule
    assert decision.source
    assert (decision.status == POSITIVE) == (decision.stratum == Stratum.POSITIVE)
    assert decision.status != OPEN or decision.stratum == Stratum.UNDETERMINED


@given(ihc=st.sampled_from(SCORES), ish=any_ish, recounted=st.booleans())
def test_the_papers_policy_answers_only_what_the_guideline_leaves_open(ihc, ish, recounted):
    """It makes an open 2+ positive and changes nothing else."""
    guideline = apply_guideline(ihc, ish, recounted=recounted)
    paper = apply_guideline(ihc, ish, recounted=recounted, policy=Policy.PAPER)

    if guideline.status == OPEN and ihc == IhcScore.TWO:
        assert (paper.status, paper.source) == (POSITIVE, "Oliveira et al. 2020, section 5.4")
    else:
        assert paper == guideline


@pytest.mark.parametrize("score", IhcScore)
def test_the_papers_policy_without_ish_is_the_papers_table(score):
    """Section 5.4: 0 and 1+ are negative, 2+ and 3+ positive."""
    expected = NEGATIVE if score in (IhcScore.ZERO, IhcScore.ONE) else POSITIVE

    assert apply_guideline(score, policy=Policy.PAPER).status == expected


@given(ihc=st.sampled_from(list(IhcScore)), lower=counts, more=st.tuples(numbers, numbers))
def test_more_signal_never_makes_a_tumour_negative(ihc, lower, more):
    """With IHC at hand, a higher ratio or more copies never turn positive into negative."""
    higher = IshCounts(lower.ratio + more[0], lower.copies + more[1])
    before, after = (apply_guideline(ihc, ish, recounted=True).status for ish in (lower, higher))

    assert (before, after) != (POSITIVE, NEGATIVE)


@given(ish=any_ish, low=st.integers(0, 3), high=st.integers(0, 3))
def test_a_higher_score_never_makes_a_tumour_negative(ish, low, high):
    """Whatever ISH says, more staining never turns positive into negative."""
    scores = list(IhcScore)
    before, after = (apply_guideline(scores[i], ish, recounted=True).status for i in sorted((low, high)))

    assert (before, after) != (POSITIVE, NEGATIVE)


@pytest.mark.parametrize(
    ("score", "ish", "conflict"),
    [
        ("3+", IshResult.NEGATIVE, True),
        ("3+", IshCounts(1.1, 2.0), True),
        ("0", IshResult.POSITIVE, True),
        ("1+", IshCounts(3.0, 9.0), True),
        ("2+", IshResult.POSITIVE, False),
        ("3+", IshCounts(1.1, 5.0), False),
        ("0", None, False),
    ],
)
def test_tests_that_contradict_each_other_are_told(score, ish, conflict):
    """A 3+ that ISH calls negative, or a 0 or 1+ that it calls positive."""
    assert apply_guideline(IhcScore(score), ish).conflict is conflict


@given(ish=any_ish.filter(lambda ish: ish is not None))
def test_ish_survives_text(ish):
    """What a manifest writes it reads again, to the last digit: a ratio of 1.9999999 stays below 2."""
    assert parse_ish(str(ish)) == ish


@pytest.mark.parametrize("text", ["3", "3 +", "HER2 3+", "3.0", "\uff13\uff0b", "3\u207a"])
def test_a_score_goes_by_its_usual_signs(text):
    """Also full-width, as East Asian tables have it, and with a raised plus."""
    assert parse_ihc(text) is IhcScore.THREE


@pytest.mark.parametrize("text", ["4+", "", "2.5", "++", "positive", "Negative (Score 3+)", "Positive (2+/3+)"])
def test_other_text_is_no_score(text):
    """Nothing is guessed from a cell that names no score."""
    with pytest.raises(ValueError, match="no IHC score"):
        parse_ihc(text)


@pytest.mark.parametrize("text", ["", "2.3", "ratio", "ratio x", "copies 4..5", "ratio 2 copies 4 cells", "ratio 5000"])
def test_other_text_is_no_ish(text):
    """A number without a name could be ratio or copies."""
    with pytest.raises(ValueError, match="ISH"):
        parse_ish(text)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("HER2-positive", POSITIVE),
        ("pos", POSITIVE),
        ("Negativ", NEGATIVE),
        ("HER2: neg", NEGATIVE),
        ("Pos.", POSITIVE),
        ("N\u00e9gatif", NEGATIVE),
        ("Ne\u0301gative", NEGATIVE),
        ("Equivocal", OPEN),
        ("\u00e4quivok", OPEN),
        ("indeterminado", OPEN),
        ("Her2+", POSITIVE),
        ("HER2/neu +ve", POSITIVE),
        ("HER2-", NEGATIVE),
        ("HER2\u207b", NEGATIVE),
        ("HER2 \u2212", NEGATIVE),
    ],
)
def test_a_status_goes_by_its_usual_words(text, status):
    """As laboratories write it."""
    assert parse_status(text) is status


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Amplified", IshResult.POSITIVE),
        ("not amplified", IshResult.NEGATIVE),
        ("Negative (not amplified)", IshResult.NEGATIVE),  # in the words of CAP's template
        ("Positive (amplified)", IshResult.POSITIVE),
        ("non-amplified", IshResult.NEGATIVE),
        ("HER2 unamplified", IshResult.NEGATIVE),
        ("nicht amplifiziert", IshResult.NEGATIVE),
        ("neg", IshResult.NEGATIVE),
        ("neg.", IshResult.NEGATIVE),
        ("equ\u00edvoco", IshResult.EQUIVOCAL),
    ],
)
def test_ish_goes_by_its_usual_words(text, result):
    """As laboratories write it."""
    assert parse_ish(text) is result


@pytest.mark.parametrize(
    "text",
    ["-", "+", "weakly amplified", "HER2", "amplified?", "negative or positive", "HER2 2+", "HER2++", "HER2 +/-"],
)
def test_words_in_doubt_are_refused(text):
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="ISH"):
        parse_ish(text)
    with pytest.raises(ValueError, match="no HER2 status"):
        parse_status(text)


@pytest.mark.parametrize(
    ("ratio", "copies", "cep17", "said"),
    [
        (5.2, 1.9, None, "0.37 CEP17 signals a cell, where tumours have 0.8 to 10; are ratio and copies swapped?"),
        (1.1, 185.0, None, "are the copies a total of all counted cells?"),
        (0.0, 4.2, None, "a 0 counts nothing; was ISH done?"),
        (1.4, 3.2, 1.5, "do not go with 1.5 CEP17 signals a cell: 3.2 / 1.5 is no 1.4"),
        (1.4, 3.2, 2.3, ""),
        (2.2, 2.4, None, ""),
        (1.3, 6.4, None, ""),
        (0.0, 0.0, None, "a 0 counts nothing; was ISH done?"),
        (None, 0.0, None, "a 0 counts nothing"),
        (2.2, None, 1.0, ""),
    ],
)
def test_counts_that_do_not_go_together_are_told(ratio, copies, cep17, said):
    """HER2 copies by the ratio are CEP17 signals, of which a tumour's nuclei show 1 to 5."""
    assert said in doubt_about(IshCounts(ratio, copies), cep17)
    assert bool(said) == bool(doubt_about(IshCounts(ratio, copies), cep17))


def test_a_table_with_ratio_and_copies_swapped_is_refused(tmp_path, command_line):
    """A single doubtful line is named; where they are the rule the columns are not what they are called."""
    rows = [(1.1, 2.1), (1.3, 2.9), (2.6, 5.0), (4.0, 7.9)]
    table, out = tmp_path / "t.csv", tmp_path / "out.csv"

    def label(pairs):
        table.write_text("ihc,ratio,copies\n" + "".join(f"2+,{a},{b}\n" for a, b in pairs))
        return command_line("labels", table, "--out", out)

    code, _, err = label([(copies, ratio) for ratio, copies in rows])
    assert code != 0
    assert "ISH ratio and copies do not go together on 4 of 4 lines: check which is which (line 2: " in err
    code, said, _ = label([*rows, (5.0, 2.0)])
    assert code == 0
    assert "CAUTION line 6: ratio 5.0 copies 2.0 are 0.4 CEP17 signals a cell" in said
    doubts = [row["doubt"][:9] for row in csv.DictReader(out.read_text().splitlines())]
    assert doubts == ["", "", "", "", "ratio 5.0"]
    said = command_line("labels", "--ihc", "2+", "--ratio", 5.2, "--copies", 1.9)[1]
    assert "CAUTION    ratio 5.2 copies 1.9 are 0.37 CEP17 signals a cell" in said


@pytest.mark.parametrize(
    ("rows", "code"), [("a,2+,0,0\nb,2+,2.5,6.1\nc,0,,0\nd,2+,1.2,3\n", 0), ("a,2+,0,0\nb,2+,1.2,3\nc,0,,0\n", 2)]
)
def test_zeros_in_place_of_counts(command_line, tmp_path, rows, code):
    """Each is told; where most rows have one, the table is refused: what was not done is no negative."""
    (tmp_path / "tests.csv").write_text(f"id,ihc,ratio,copies\n{rows}")

    found, out, err = command_line("labels", tmp_path / "tests.csv", "--out", tmp_path / "out.csv")

    assert found == code
    if code:
        assert "ISH counts are 0 on 2 of 3 lines: leave them blank where it was not done (line 2: " in err
    else:
        assert (out + err).count("a 0 counts nothing") == 2


def test_cep17_in_place_of_a_ratio(tmp_path, command_line):
    """Copies by CEP17 are the ratio, so 4.5 copies with 1.5 are group 1, not an equivocal single-probe result."""
    table, out = tmp_path / "t.csv", tmp_path / "out.csv"
    table.write_text("ihc,HER2 copies,CEP17 signals per cell\n2+,4.5,1.5\n")

    said = command_line("labels", table, "--out", out)[1]

    assert "cep17 from 'CEP17 signals per cell'" in said
    assert [row["ish_group"] for row in csv.DictReader(out.read_text().splitlines())] == ["1"]


def test_a_ratio_that_was_rounded_into_another_group_is_told(tmp_path, command_line):
    """Also where it is the only row, which is not refused: the stated ratio stands."""
    table, out = tmp_path / "t.csv", tmp_path / "out.csv"
    table.write_text("ihc,ratio,copies,cep17\n2+,2.0,5.9,3.0\n")

    code, said, _ = command_line("labels", table, "--out", out)

    found = "ratio 2.0 copies 5.9 are ISH group 1, but 5.9 / 3 = 1.97 is of group 4"
    assert (code, f"CAUTION line 2: {found}" in said) == (0, True)
    assert [(row["ish_group"], row["doubt"]) for row in csv.DictReader(out.read_text().splitlines())] == [("1", found)]


def test_the_two_types_do_not_mix():
    """A score is no status: neither parses as the other."""
    with pytest.raises(ValueError, match="no HER2 status"):
        parse_status("3+")
    with pytest.raises(ValueError, match="no IHC score"):
        parse_ihc("positive")


@pytest.mark.parametrize(
    "tests",
    [
        {"ihc": 3},
        {"ihc": "3"},
        {"ihc": math.nan},
        {"ihc": "2+", "ish": "Positive"},
        {"ihc": "2+", "ish": True},
        {"ihc": "2+", "ish": IshCounts(1.2, 4.5), "stated": "Positive"},
        {"ihc": "2+", "policy": "Paper"},
    ],
)
def test_what_is_no_score_or_result_is_a_callers_mistake(tests):
    """From Python: IHC 3 as a number was negative, and a positive ISH in capitals was equivocal."""
    with pytest.raises(ValueError, match="is not a valid"):
        apply_guideline(**tests)


def test_a_score_may_be_written():
    """Enums are their texts; 3 is none."""
    written: Any = "3+"
    number: Any = 3

    assert apply_guideline(written) == apply_guideline(IhcScore.THREE)
    with pytest.raises(ValueError, match="3 is not a valid IhcScore"):
        stratum_of(number, NEGATIVE)


@pytest.mark.parametrize("pair", [(None, None), (-1, 4), (float("nan"), 4), (2, float("inf")), (2, 1001)])
def test_impossible_counts_are_a_callers_mistake(pair):
    """Counts are finite, non-negative, and at least one of them is given."""
    with pytest.raises(ValueError, match=r"ISH|copy number"):
        IshCounts(*pair)


def test_the_command_line_tells_group_status_stratum_rule_and_source(command_line):
    """The issue's example: 2+ with ratio 2.3 and 4.5 copies."""
    code, out, _ = command_line("labels", "--ihc", "2+", "--ratio", 2.3, "--copies", 4.5)

    assert code == 0
    assert out.splitlines() == [
        "ISH group  1",
        "status     positive",
        "stratum    positive (ASCO/CAP 2018, affirmed 2023)",
        "rule       ISH group 1 is positive",
        "source     ASCO/CAP 2018, affirmed 2023",
    ]


def test_the_command_line_speaks_json(command_line):
    """A script reads the same as a person."""
    _, out, _ = command_line("labels", "--ihc", "2+", "--policy", "paper", "--json")

    assert json.loads(out)["her2_status"] == "positive"
    assert json.loads(out)["ish_group"] is None


@pytest.mark.parametrize(
    ("options", "told"), [(("1+",), "low (DESTINY-Breast04"), (("0", "--faint"), "ultralow (DESTINY-Breast06")]
)
def test_a_stratum_names_the_trial_that_made_it(command_line, options, told):
    """HER2-low and ultralow are no categories of ASCO/CAP."""
    _, out, _ = command_line("labels", "--ihc", *options)

    assert f"stratum    {told}" in out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "give --ihc"),
        (("--ihc", "5"), "'5' is no IHC score"),
        (("--ish", "positive", "--ratio", "2"), "not both"),
        (("--ratio", "-1"), "-1.0 is no ISH ratio"),
        (("--policy", "mine", "--ihc", "0"), "guideline"),
    ],
)
def test_impossible_options_are_one_line(command_line, options, told):
    """A mistake on the command line is told in one line."""
    code, _, err = command_line("labels", *options)

    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_table_gains_labels_and_keeps_its_columns(command_line, tmp_path):
    """Each row is decided by its own tests, whatever the columns are called; the rest of the row stays."""
    table, out = tmp_path / "tests.csv", tmp_path / "labels.csv"
    table.write_text(
        "case;score;ratio;copies;faint_staining;note\n1;2+;2.3;4.5;;a\n2;0;;;yes;b\n3;2+;;;;c\n4;NA;;;;d\n"
    )

    code, told, err = command_line("labels", table, "--out", out, "--ihc-column", "score")

    assert code == 0, err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["her2_status"] for row in rows] == ["positive", "negative", "undetermined", "undetermined"]
    assert [row["stratum"] for row in rows] == ["positive", "ultralow", "undetermined", "undetermined"]
    assert [row["note"] for row in rows] == list("abcd")
    assert rows[0]["ish_group"] == "1"
    assert "status undetermined: 2" in told


def test_columns_of_the_tables_own_stay(command_line, tmp_path):
    """Ours get other names, and replace those of an earlier run; a stated status that tests contradict is doubted."""
    table, out = tmp_path / "tests.csv", tmp_path / "labels.csv"
    table.write_text("case,source,ihc,her2_status,doubt\n1,Biobank,3+,negative,typo?\n2,,0,neg,\n3,,2+,?,\n")

    code, told, err = command_line("labels", table, "--out", out)
    _, again, _ = command_line("labels", out, "--out", tmp_path / "again.csv")

    assert code == 0, err
    assert "columns of the table's own: her2_status, source, doubt; ours have derived_ before the name" in told
    assert "CAUTION line 2: stated negative, but the tests amount to positive" in told
    with out.open() as file:
        row, *others = csv.DictReader(file)
    assert [row[name] for name in ("source", "her2_status", "doubt")] == ["Biobank", "negative", "typo?"]
    assert row["derived_her2_status"] == "positive"
    assert row["derived_doubt"] == "stated negative, but the tests amount to positive"
    assert [other["derived_doubt"] for other in others] == ["", ""]
    assert "the labels of an earlier run are replaced" in again
    assert (tmp_path / "again.csv").read_text() == out.read_text()


def test_all_bad_cells_of_a_table_are_told_at_once(command_line, tmp_path):
    """Each with its line and column; nothing is written."""
    table, out = tmp_path / "tests.csv", tmp_path / "labels.csv"
    table.write_text("ihc_score,ratio,copies,faint_staining\n7,2,4,\n1+,x,,maybe\n0,,,\n2+,-3,4,\n")

    code, _, err = command_line("labels", table, "--out", out)

    assert code == 2
    assert [line.split(": ", 2)[2][:9] for line in err.splitlines()] == [
        *("line 2: i", "line 3: r", "line 3: f", "line 5: -"),
    ]
    assert not out.exists()


def test_a_table_without_tests_is_refused(command_line, tmp_path):
    """Nothing to label by: the message names the columns that are looked for."""
    table = tmp_path / "tests.csv"
    table.write_text("case,her2\n1,positive\n")

    code, _, err = command_line("labels", table, "--out", tmp_path / "out.csv")

    assert code == 2
    assert "ihc_score, ish, ratio, copies" in err


@pytest.mark.parametrize(
    ("ihc", "counts", "rule"),
    [
        (IhcScore.ONE, IshCounts(1.2, None), "ISH ratio 1.2 alone may be group 3, 4 or 5, each of which is negative"),
        (IhcScore.TWO, IshCounts(1.2, None), "ISH ratio 1.2 alone may be group 3, 4 or 5, which differ"),
        (IhcScore.TWO, IshCounts(2.2, None), "ISH ratio 2.2 alone may be group 1 or 2, which differ"),
        (IhcScore.ONE, IshCounts(1.2, 6.5), "ISH group 3 with IHC 1+ is negative"),
    ],
)
def test_a_rule_names_no_group_that_is_unknown(ihc, counts, rule):
    """A ratio alone fits several groups; the rule says so, also where they agree."""
    assert apply_guideline(ihc, counts).rule.startswith(rule)


def test_the_papers_policy_heeds_a_decisive_ish():
    """Only a 2+ that ISH leaves open counts as positive."""
    decided = apply_guideline(IhcScore.TWO, IshResult.NEGATIVE, policy=Policy.PAPER)
    left_open = apply_guideline(IhcScore.TWO, IshResult.EQUIVOCAL, policy=Policy.PAPER)

    assert (decided.status, left_open.status) == ("negative", "positive")
