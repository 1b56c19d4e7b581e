"""Run the studies and write their results."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from experiments.coverage import counts, probabilities, rankings
from experiments.coverage.measuring import Row
from experiments.coverage.page import Part, as_markdown
from experiments.coverage.texts import TEXTS
from pydantic import TypeAdapter

from he2her2.files import atomic

RESULTS = Path(__file__).resolve().parents[1] / "results"
PARTS = TypeAdapter(dict[str, Part])

STUDIES: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "rates": counts.rates,
    "eight": counts.of_eight,
    "counts": counts.of_more,
    "kappa": counts.kappas,
    "paired": counts.rate_differences,
    "auc": rankings.aucs,
    "difference": rankings.auc_differences,
    "ap": rankings.average_precisions,
    "clusters": rankings.by_patient,
    "calibration": probabilities.calibrations,
    "lines": probabilities.lines,
    "curves": rankings.whole_curves,
    "promises": probabilities.promises,
}
EXACT = ("rates", "eight")


def read(folder: Path) -> dict[str, Part]:
    """The parts measured so far."""
    file = folder / "coverage.json"
    return PARTS.validate_json(file.read_bytes()) if file.is_file() else {}


def write(parts: Mapping[str, Part], folder: Path) -> None:
    """Write the parts for machines and for people."""
    ordered = {name: parts[name] for name in STUDIES if name in parts}
    found = {name: asdict(part) for name, part in ordered.items()}
    for file, text in (
        ("coverage.json", json.dumps(found, indent=1)),
        ("coverage.md", "\n".join(as_markdown(ordered, TEXTS))),
    ):
        with atomic(folder / file) as draft:
            draft.write_text(text.rstrip() + "\n", "utf-8")


def main() -> None:
    """Measure study by study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", choices=STUDIES, nargs="*", default=list(STUDIES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.only:
        part = Part(0 if name in EXACT else options.draws)
        for row in STUDIES[name](options.draws):
            part.rows.append(row)
            print(f"{name:12}{100 * row.coverage:6.1f} %  {row.width:.3f}  {row.names}", flush=True)
        write(read(options.out) | {name: part}, options.out)
    write(read(options.out), options.out)


if __name__ == "__main__":
    main()
