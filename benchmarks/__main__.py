"""`python -m benchmarks`: measure, print, and write results and the tables of `docs/performance.md`."""

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import NotHere, machine
from benchmarks.results import Found, Setting, markdown, read_all, update_page, write_found

TOPICS = {
    "start": "start-up time of the command line",
    "reading": "reading tiles, against OpenSlide and bare decoding",
    "viewing": "the viewer's tiles, twenty viewers at once, first picture, memory; regions one by one (viewer extra)",
    "hashi": "update of the tumour map",
    "networks": "tile CNNs on the CPU, against torch (needs the train extra)",
    "designs": "scoring from end to end, against other designs and the authors' code (needs the train extra)",
    "encoding": "features of slides, against reading and the encoder alone (encoders extra for EfficientNet-Lite0)",
    "encoding_gpu": "the same on a GPU (needs one; timm for the transformer)",
    "overlap": "overlapping tiles scored together, against one by one (needs the train extra)",
    "training": "speed of training tile CNNs (needs the train extra)",
    "one_slide": "time of one slide by stage",
    "scaling": "time against number of tiles (needs the evaluate extra)",
    "evaluating": "evaluation of 10 000 patients (needs the evaluate extra)",
    "cohorts": "runs of many slides: workers, and what the run costs a slide",
    "memory": "memory for a very large slide and over a hundred slides (needs the evaluate extra)",
}
ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested topics."""
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
        except NotHere as lack:
            print(f"{topic}: left out, {lack}", file=sys.stderr)
            failed += bool(wanted.only)
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
    parser.add_argument("--only", nargs="+", choices=TOPICS, help="topics to measure")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test that the topics run")
    parser.add_argument("--work", type=Path, default=ROOT / "bench-work", help="folder that keeps slides between runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for JSON results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
