"""Introductions to each study in `results/coverage.md`."""

from collections.abc import Mapping

TEXTS: Mapping[str, tuple[str, str]] = {
    "rates": (
        "Rates",
        (
            "The exact interval never covers less than 95 % and so, with few cases, more; the worst truth is what "
            "matters for a rate that stands alone. Wilson's is right on average and stands for comparison."
        ),
    ),
    "eight": (
        "Figures of eight patients",
        (
            "The paper's case. Weighted precision covers somewhat too much: with eight patients it takes few "
            "values. The plain bootstrap fails outright, above all for good classifiers, whose perfect results it "
            "takes for certain."
        ),
    ),
    "counts": (
        "Figures of the four counts",
        "The same figures of more patients.",
    ),
    "kappa": (
        "Quadratic kappa of the four scores",
        "No single prior serves few patients under all six truths; the interval is the hull of two priors'.",
    ),
    "paired": (
        "Differences of rates",
        (
            "Where both models are mostly right together few patients differ, and Newcombe's interval is wider "
            "than it need be."
        ),
    ),
    "auc": (
        "AUC",
        (
            "Normal scores, of equal or unequal spread, continuous or rounded to about five values. With 2 + 6 "
            "patients chance makes a perfect order, one way or the other, in 7 % of all cohorts, so 0.5 is never "
            "excluded, which covers it always; without that rule 83-93 % would. The slight excess at 5 + 3 comes "
            "from the few values that the AUC of eight patients has. With 14 + 40, where the few spread twice as far "
            "as the many, it covers a little less than it should. Plain DeLong covers an AUC of 0.95 in little more "
            "than a third of the cohorts of eight."
        ),
    ),
    "difference": (
        "Differences of AUCs",
        (
            "Both models on the same patients. The interval joins the limits of both AUCs; where one of them is "
            "near 1 it is cautious."
        ),
    ),
    "ap": (
        "Average precision",
        (
            "A share of patients is positive, at least one of them. With eight patients ranked almost perfectly "
            "it covers a little less than it should."
        ),
    ),
    "clusters": (
        "Several slides of a patient",
        (
            "One to four slides a patient, alike to a degree. With eight patients nobody can see how alike they "
            "are, so the worst is assumed: correlation 1 is covered as promised, independent slides too well."
        ),
    ),
    "calibration": (
        "Brier score and calibration error",
        (
            "Probabilities that are right, too sure or too low. Right ones have a calibration error of 0, which "
            "an interval that starts at 0 holds more often than another truth. With eight patients there is one "
            "bin."
        ),
    ),
    "lines": (
        "Calibration intercept and slope",
        (
            "Of the same probabilities, by profile likelihood, as in R. The intercept's takes the slope for right: "
            "where probabilities are too sure it covers in about 90 %."
        ),
    ),
    "curves": (
        "The whole ROC",
        (
            "Binormal scores. A pointwise band holds the true curve at one place in 95 % of cohorts, and everywhere "
            "at once in far fewer; the simultaneous one is made for that."
        ),
    ),
    "promises": (
        "Promises of operating point and triage",
        (
            "Here stand the share of choices that keep the budget on a very large fresh population, and the mean "
            "share lost. An operating point promises the first to be at least 95 %; equal probabilities only make "
            "it safer. Triage promises the second, the mean, to be within the budget."
        ),
    ),
}
"""By study: its heading, and the text below."""
