"""Agreement of a rule written from ASCO/CAP's definitions with the IHC score that phantoms were drawn with.

The rule is the one of `tests/test_phantom_ihc.py`; it reads pixels only.

Run: python -m experiments.phantom_ihc [--seeds 8]
"""

import argparse
import json
from pathlib import Path

from tests.test_phantom_ihc import ihc_score, twin

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "experiments" / "results"
SCORES = ("0", "1+", "2+", "3+")
SIDE = 1536  # px; of 1 000 px, as in the test, 58 of 64 are right


def main() -> None:
    """Score many twins and write the confusion matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = parser.parse_args().seeds
    found = {score: dict.fromkeys(SCORES, 0) for score in SCORES}
    for seed in range(seeds):
        for site in ("her2sc-like", "brca-like"):
            for score in SCORES:
                rgb = twin(score, seed=5000 + seed, side=SIDE, site=site)
                found[score][ihc_score(rgb, 0.25)[0]] += 1
    right, total = sum(found[score][score] for score in SCORES), 8 * seeds
    text = [f"# IHC phantoms scored by ASCO/CAP's words\n\n{right} of {total} regions of {SIDE} px right.\n"]
    text += ["| drawn \\ found | " + " | ".join(SCORES) + " |", "|---" * 5 + "|"]
    text += [f"| {score} | " + " | ".join(str(found[score][other]) for other in SCORES) + " |" for score in SCORES]
    print("\n".join(text))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "phantom_ihc.json").write_text(
        json.dumps({"right": right, "total": total, "found": found}) + "\n", "utf-8"
    )
    (RESULTS / "phantom_ihc.md").write_text("\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
