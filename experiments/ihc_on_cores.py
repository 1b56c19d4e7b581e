"""IHC slides by colour and by a network, against their scores: what orders them, and how often a score is right.

Reads the table of `he2her2 score-ihc MANIFEST --out TABLE` and the manifest's labels.

Run: python -m experiments.ihc_on_cores MANIFEST TABLE [--out FILE.md]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from he2her2.csv_files import read_csv
from he2her2.files import write_text
from he2her2.statistics import auc_interval, kappa_interval, rate

MEASURES = {
    "faint_share": "share of tissue stained",
    "moderate_share": "share stained moderately",
    "intense_share": "share stained intensely",
    "membrane_share": "share of stained membrane",
    "dab_density": "mean DAB density",
    "network_score": "network, mean score of tiles",
}
SCORES = {"ihc_score": "by colour, in the words of ASCO/CAP", "network_majority": "network, most tiles"}
CLASSES = ("0", "1+", "2+", "3+")


def table(manifest: Path, found: Path) -> Iterator[str]:
    """Format the results as Markdown."""
    rows = {row["slide_id"]: row for row in read_csv(found) if not row["problem"]}
    labels = [row for row in read_csv(manifest) if row["slide_id"] in rows]
    score = np.array([CLASSES.index(row["ihc_score"]) for row in labels])
    positive = np.array([row["her2_status"] == "positive" for row in labels])
    yield f"{len(labels)} slides, IHC {', '.join(f'{c}: {(score == k).sum()}' for k, c in enumerate(CLASSES))}; "
    yield f"HER2 positive: {positive.sum()}. Intervals of 95 %.\n"
    yield "| orders slides by | AUC, HER2 status | AUC, 2+ and 3+ | Spearman with the IHC score |"
    yield "|---|---|---|---|"
    for key, name in MEASURES.items():
        values = np.array([float(rows[row["slide_id"]][key]) for row in labels])
        areas = [auc_interval(truth, values).text() for truth in (positive, score >= 2)]
        yield f"| {name} | {areas[0]} | {areas[1]} | {spearmanr(score, values).statistic:.2f} |"
    yield "\n| IHC score | right | quadratic kappa |"
    yield "|---|---|---|"
    for key, name in SCORES.items():
        said = np.array([CLASSES.index(rows[row["slide_id"]][key]) for row in labels])
        yield f"| {name} | {rate(said == score).text()} | {kappa_interval(score, said, len(CLASSES)).text()} |"


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = "\n".join(table(arguments.manifest, arguments.table)) + "\n"
    print(text)
    if arguments.out:
        write_text(arguments.out, text)


if __name__ == "__main__":
    main()
