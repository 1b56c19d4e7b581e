"""`python -m benchmarks`: measure, print, and write results and the tables of `docs/performance.md`."""

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import machine
from benchmarks.results import Found, Setting, markdown, read_all, update_page, write_found

TOPICS = {
    "start": "how long a command takes to begin",
    "reading": "tiles a second, against OpenSlide and bare decoding",
    "hashi": "an update of the tumour map",
    "networks": "the tile CNNs on the CPU, against torch (needs the train extra)",
    "designs": "scoring from end to end, against its rivals and the released way (needs the train extra)",
    "overlap": "overlapping tiles seen together, against one by one (needs the train extra)",
    "training": "tiles a second of training (needs the train extra)",
    "one_slide": "where the time of one slide goes",
    "scaling": "time against number of tiles (needs the evaluate extra)",
    "evaluating": "10 000 patients against their labels (needs the evaluate extra)",
    "memory": "a very large slide, and a hundred slides (needs the evaluate extra)",
}
ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the topics that are asked for."""
    wanted = _parser().parse_args(arguments)
    plots = wanted.work if wanted.quick else ROOT / "docs"
    setting = Setting(wanted.work, quick=wanted.quick, plots=plots)
    setting.work.mkdir(parents=True, exist_ok=True)
    failed = 0
    for topic in wanted.only or TOPICS:
        start, here = time.perf_counter(), machine()
        try:
            found: Found = importlib.import_module(f"benchmarks.{topic}").measure(setting)
        except ModuleNotFoundError as error:
            print(f"{topic}: {error}; pip install '.[train]'", file=sys.stderr)
            failed += 1
            continue
        except Exception:  # noqa: BLE001  a topic that fails must not cost what the others measure
            traceback.print_exc()
            failed += 1
            continue
        print(f"\n{topic} ({time.perf_counter() - start:.0f} s): {TOPICS[topic]}")
        for table in found.tables:
            print(f"{table.title}\n{markdown(table.header, table.rows)}")
        print(" ".join(f"{name}={value:.4g}" for name, value in found.figures.items()), flush=True)
        if not wanted.quick:
            write_found(wanted.out, topic, found, here)
    if not wanted.quick:
        update_page(ROOT / "docs" / "performance.md", read_all(wanted.out))
    return min(failed, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TOPICS, help="these topics alone")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--work", type=Path, default=ROOT / "bench-work", help="keeps the slides between runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where JSON goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
