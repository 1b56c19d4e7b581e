"""Every digit of the paper's Tables 1-4 from the decoded confusion matrices."""

from typing import get_args

import pytest

from he2her2.evaluation import TABLE_1, TABLE_1_ACCURACY, paper_row
from he2her2.evaluation.paper_tables import PAPER_ROWS, PaperColumn
from he2her2.statistics import BinaryCounts, accuracy, balanced_accuracy

MISPRINTS = {(2, "HER2SC", "f1"): "86.8", (3, "HER2SC", "f1"): "86.8", (4, "BRCA", "accuracy"): "53.8"}
COLUMNS = get_args(PaperColumn)
BALANCED, PLAIN = "balanced", "plain"

# table, cohort, aggregation, pre-trained, positives, negatives, printed accuracy, F1, precision, recall, its accuracy
PRINTED = [
    (2, "HER2SC", "mlp", True, 5, 3, "83.3", "86.7", "89.6", "87.5", BALANCED),
    (2, "BRCA", "mlp", True, 14, 40, "53.8", "21.5", "81.2", "31.5", BALANCED),
    (3, "HER2SC", "mlp", True, 5, 3, "83.3", "86.7", "89.6", "87.5", BALANCED),
    (3, "HER2SC", "mlp", False, 5, 3, "62.5", "48.1", "39.1", "62.5", PLAIN),
    (3, "HER2SC", "median", False, 5, 3, "62.5", "48.1", "39.1", "62.5", PLAIN),
    (3, "HER2SC", "median", True, 5, 3, "50.0", "43.3", "78.6", "50.0", PLAIN),
    (3, "HER2SC", "mean", False, 5, 3, "62.5", "48.1", "39.1", "62.5", PLAIN),
    (3, "HER2SC", "mean", True, 5, 3, "50.0", "43.3", "78.6", "50.0", PLAIN),
    (4, "BRCA", "mlp", True, 14, 40, "53.3", "21.5", "81.2", "31.5", BALANCED),
    (4, "BRCA", "mlp", False, 14, 36, "50.0", "60.3", "51.8", "72", BALANCED),
    (4, "BRCA", "median", False, 14, 36, "52.2", "63.5", "66.5", "72.0", BALANCED),
    (4, "BRCA", "median", True, 14, 36, "50.0", "12.3", "7.8", "28.0", BALANCED),
    (4, "BRCA", "mean", False, 14, 36, "52.2", "63.5", "66.5", "72.0", BALANCED),
    (4, "BRCA", "mean", True, 14, 36, "50.0", "12.3", "7.8", "28.0", BALANCED),
]


def named(row):
    return f"{row[0]}-{row[1]}-{row[2]}-{'pretrained' if row[3] else 'untrained'}"


@pytest.mark.parametrize(("row", "line"), list(zip(PAPER_ROWS, PRINTED, strict=True)), ids=map(named, PRINTED))
def test_every_printed_digit_comes_back(row, line):
    """The confusion matrix gives what the row prints, but for the two misprints, which are named."""
    table, cohort, aggregation, pretrained, positives, negatives, *printed, kind = line

    assert (row.table, row.cohort, row.aggregation, row.pretrained) == (table, cohort, aggregation, pretrained)
    assert (row.counts.positives, row.counts.negatives, row.accuracy_kind) == (positives, negatives, kind)
    assert [row.printed[column] for column in COLUMNS] == printed
    right = [MISPRINTS.get((table, cohort, column), text) if row.proposed else text
             for column, text in zip(COLUMNS, printed, strict=True)]  # fmt: skip
    if table == 2 and cohort == "BRCA":
        assert right == printed
    assert [row.text(column) for column in COLUMNS] == right
    assert {column: row.text(column) for column in COLUMNS if row.text(column) != row.printed[column]} == dict(
        row.misprints
    )


@pytest.mark.parametrize("row", PAPER_ROWS[:4], ids=map(named, PRINTED[:4]))
def test_the_other_accuracy_would_not_give_the_digits(row):
    """Which kind of accuracy a row prints is no matter of taste where the two differ."""
    other = accuracy if row.accuracy_kind == BALANCED else balanced_accuracy

    assert f"{100 * other(row.counts):.1f}" != row.printed["accuracy"]


def test_table_1_has_its_tiles_and_its_accuracy():
    """624 tiles a class, 1916 of 2496 right."""
    assert TABLE_1.sum(axis=1).tolist() == [624] * 4
    assert (TABLE_1.trace(), TABLE_1.sum()) == (1916, 2496)
    assert f"{100 * TABLE_1.trace() / TABLE_1.sum():.1f}" == TABLE_1_ACCURACY


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", PAPER_ROWS, ids=map(named, PRINTED))
def test_every_cell_has_an_interval(row, column):
    """The interval holds the figure, has a width and knows its n."""
    found = row.estimate(column)

    assert found.value == row.value(column)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.05
    assert found.n == row.n


def test_the_headline_is_seven_of_eight():
    """87.5 % with an interval from .47 to 1.00."""
    headline = paper_row("HER2SC", "mlp", pretrained=True).estimate("recall")

    assert (headline.value, round(headline.low, 2), round(headline.high, 2), headline.n) == (0.875, 0.47, 1.0, 8)


def test_constant_predictors_are_known():
    """Every BRCA slide called negative or positive, and every HER2SC slide positive: five kinds of row."""
    constant = {(row.cohort, row.aggregation, row.pretrained) for row in PAPER_ROWS if row.counts.constant}

    assert constant == {
        ("HER2SC", "mlp", False),
        ("HER2SC", "median", False),
        ("HER2SC", "mean", False),
        ("BRCA", "mlp", False),
        ("BRCA", "median", True),
        ("BRCA", "mean", True),
    }
    assert paper_row("BRCA", "mlp", pretrained=True).counts == BinaryCounts(tp=14, fp=37, tn=3, fn=0)
