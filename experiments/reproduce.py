"""All tables of the paper on phantoms, reduced to minutes on two cores, and the negative control.

Draws the missing cohorts of `experiments/reduced/`, runs `he2her2 ablate` three times (the paper's
method; the same with tile CNNs trained on H&E tiles first; the latter on phantoms without any HER2 signal in H&E),
measures the gradient that reaches the tile CNN at each beta, and writes all tables to `experiments/results/reproduce/`.
Finished steps are not repeated. Exit code 1 if the control finds a signal.

Run: make reproduce, or python -m experiments.reproduce [--work reproduce-run] [--threads N]
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from experiments import gradient_at_beta as gradient

from he2her2.config import load_config
from he2her2.csv_files import read_csv
from he2her2.models import Untrained, cnn_named, load_engine
from he2her2.phantom import load_cohort

HERE = Path(__file__).resolve().parent
REDUCED = HERE / "reduced"
RESULTS = HERE / "results" / "reproduce"
COHORTS = ("signal-0", "train", "ihc", "her2sc-like", "brca-like")
NOTICE = "phantoms: this proves the machinery, never the medicine"
FOUND = "found something where nothing is"
GRADIENT_SLIDES = 8


@dataclass(frozen=True)
class Study:
    """One ablation.

    Attributes:
        name: Name of its folder and of its settings in `experiments/reduced/`.
        settings: File of settings.
        train: Cohort for training.
        tests: Cohorts for testing.
        adapt: Train tile CNNs on H&E tiles first.
        what: Description, for its tables.
    """

    name: str
    settings: str
    train: str
    tests: tuple[str, ...]
    adapt: bool
    what: str

    def command(self, work: Path, threads: int) -> list[str]:
        """Command line of the study."""
        cohorts = work / "cohorts"
        learned = ["--ihc", cohorts / "ihc" / "manifest.csv"]
        if self.adapt:
            learned = ["--tile-weights", work / "paper" / "tiles" / "weights", "--adapt"]
        words = ["ablate", *learned, "--train", cohorts / self.train / "manifest.csv"]
        for name in self.tests:
            words += ["--test", f"{name}={cohorts / name / 'manifest.csv'}"]
        words += ["--annotations-use", "replace", "--config", REDUCED / self.settings, "--accelerator", "cpu"]
        words += ["--threads", threads, "--licence", "phantoms of this project, Apache-2.0", "--notice", NOTICE]
        return [str(word) for word in (*words, "--out", work / self.name)]


STUDIES = (
    Study(
        "paper",
        "paper.toml",
        "train",
        ("her2sc-like", "brca-like"),
        adapt=False,
        what="The paper's order, reduced: the tile CNN learns from IHC alone and is frozen then, beta is 1000",
    ),
    Study(
        "adapted",
        "adapted.toml",
        "train",
        ("her2sc-like", "brca-like"),
        adapt=True,
        what="Our way: tile CNNs learn H&E tiles, too, before MLPs learn from slides, and beta is 1",
    ),
    Study(
        "signal-0",
        "adapted.toml",
        "signal-0",
        ("signal-0",),
        adapt=True,
        what="The control: as adapted, on H&E in which HER2 does not show; every interval should hold 50 %",
    ),
)


def main() -> None:
    """Draw cohorts, run the studies, write results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("reproduce-run"), help="cohorts and runs; may be reused")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seconds: dict[str, float] = {}
    timed(seconds, "drawing cohorts", lambda: draw(options.work / "cohorts", options.threads))
    for study in STUDIES:
        timed(seconds, study.name, partial(run, study.command(options.work, options.threads)))
    timed(seconds, "gradient", lambda: measure_gradient(options.work))
    for study in STUDIES:
        collect(study, options.work / study.name / "tables")
    sentences = [*conclusions(options.work), *control(options.work)]
    write_summary(sentences, seconds, options.threads)
    print("\n".join(sentences))
    sys.exit(any(FOUND in sentence for sentence in sentences))


def timed(seconds: dict[str, float], name: str, work: Callable[[], None]) -> None:
    """Run a step and record its time."""
    print(f"== {name}", flush=True)
    start = perf_counter()
    work()
    seconds[name] = perf_counter() - start


def draw(cohorts: Path, threads: int) -> None:
    """Draw the missing cohorts, several at a time: small slides gain nothing from several processes each."""
    missing = [name for name in COHORTS if not (cohorts / name / "manifest.csv").exists()]
    commands = [["phantom", cohorts / name, "--config", REDUCED / f"{name}.toml", "--threads", 1] for name in missing]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, ([str(word) for word in words] for words in commands)))


def run(words: list[str]) -> None:
    """Run `he2her2`, which resumes an interrupted run; on one thread of torch: the sums of several round otherwise."""
    print("he2her2", *words, flush=True)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "he2her2", *words], check=True, stdout=subprocess.DEVNULL, env=one_thread)


def measure_gradient(work: Path) -> None:
    """Measure the gradient that reaches the tile CNN at each beta (experiments/gradient_at_beta.py, reduced)."""
    config = load_config(file=None, overrides=["selection.n_tiles=30"])
    bags = gradient.some_bags(work / "cohorts" / "train" / "manifest.csv", GRADIENT_SLIDES, config)
    spec = cnn_named(config.networks.tile_cnn, "tile_cnn")
    rows = []
    learned = work / "paper" / "tiles" / "weights" / "tile_cnn"
    sources: dict[str, Path | Untrained] = {"pre-trained": learned, "random": Untrained(spec, 0)}
    for name, source in sources.items():
        logits = list(gradient.score(bags, load_engine(source, "tile_cnn"), config))
        rows += [{"tile CNN": name, "beta": b, **gradient.measure(bags, logits, config, b)} for b in gradient.BETAS]
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = gradient.table(rows, len(bags), config)
    (RESULTS / "gradient.md").write_text(f"{text}\nReduced: {len(bags)} slides, 30 tiles of each.\n", "utf-8")
    (RESULTS / "gradient.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def collect(study: Study, tables: Path) -> None:
    """Copy a study's tables to the results, with a note on what was reduced."""
    folder = RESULTS / study.name
    folder.mkdir(parents=True, exist_ok=True)
    for table in sorted(tables.iterdir()):
        text = table.read_text("utf-8")
        if table.suffix == ".md":
            title, _, body = text.partition("\n")
            text = f"{title}\n\n*{study.what}. {reduced(study)}*\n{body}"
        (folder / table.name).write_text(text, "utf-8")


def reduced(study: Study) -> str:
    """Describe the reductions."""
    sizes = {name: load_cohort(REDUCED / f"{name}.toml") for name in (study.train, *study.tests)}
    slides = ", ".join(f"{name} {cohort.n}" for name, cohort in sizes.items())
    side = max(cohort.slide["size_px"][0] for cohort in sizes.values())
    return (
        f"Reduced to minutes on two cores: phantom slides of {side} px ({slides}), compact networks, 30 tiles a slide "
        "in place of 300, few epochs, the tile CNN frozen while the MLP learns, tumour from the phantom's truth in "
        f"place of HASHI; all settings in experiments/reduced/{study.settings}. The paper's recipe in full: "
        "experiments/table1.toml and experiments/tables2to4.toml. Preset default (130 000 weights of the tile CNN, "
        "learning rate 2e-3, 12 epochs): neither a finding about the paper's method nor a refutation of it."
    )


def conclusions(work: Path) -> list[str]:
    """Summarise the two studies with signal, one sentence each."""
    return [sentence for study in STUDIES[:2] for sentence in (*of_proposed(study, work), *of_pretraining(study, work))]


def of_proposed(study: Study, work: Path) -> Iterator[str]:
    """Performance of the proposed method on each cohort."""
    for row in proposed(work / study.name):
        note = f"; {row['note']}" if row["note"] else ""
        yield f"{study.name}: the proposed method on {row['cohort']}: {figures(row)}{note}."


def of_pretraining(study: Study, work: Path) -> Iterator[str]:
    """Effect of IHC pre-training on the MLP, paired by slide."""
    for row in read_csv(work / study.name / "tables" / "comparisons.csv"):
        if (row["aggregation"], row["pretrained"]) == ("mlp", "False"):
            yield (
                f"{study.name}: on {row['cohort']}, {row['only_proposed_right']} slides are right only with IHC "
                f"pre-training, {row['only_other_right']} only without it "
                f"(McNemar p = {float(row['mcnemar_exact_p']):.2g})."
            )


def control(work: Path) -> list[str]:
    """Result of the negative control: significant AUCs of the six methods, of which none is expected."""
    rows = [row for row in read_csv(work / "signal-0" / "tables" / "methods-signal-0.csv") if row["source"] == "ours"]
    sentences = [f"signal-0: the proposed method, where there is nothing to find: {figures(rows[0])}."]
    caught = [row for row in rows if not float(row["AUC_low"]) <= 0.5 <= float(row["AUC_high"])]
    sentences += [
        f"signal-0: {row['aggregation']}, pre-trained {row['pretrained']}, {FOUND}: {figures(row)}; look for a leak."
        for row in caught
    ]
    return sentences if caught else [*sentences, "signal-0: every method's AUC interval holds 0.5, as it must."]


def proposed(run_folder: Path) -> list[dict[str, str]]:
    """Rows of the proposed method in Table 2."""
    return [row for row in read_csv(run_folder / "tables" / "table2.csv") if row["source"] == "ours"]


def figures(row: Mapping[str, str]) -> str:
    """Format AUC and balanced accuracy of a table's row, such as "AUC 0.91 (0.78 to 0.97), ..., n = 24"."""
    texts = []
    for name in ("AUC", "balanced_accuracy"):
        value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
        texts.append(f"{name.replace('_', ' ')} {value:.2f} ({low:.2f} to {high:.2f})")
    return f"{', '.join(texts)}, n = {row['n']}"


def write_summary(sentences: Iterable[str], seconds: Mapping[str, float], threads: int) -> None:
    """Write one page: results, tables, run time."""
    total = sum(seconds.values())
    lines = [
        "# The paper's tables on phantoms, reduced",
        "",
        f"**{NOTICE}.** Written by `make reproduce`; intervals are of 95 %, by patient.",
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        "| study | what | tables |",
        "|---|---|---|",
        *(f"| {study.name} | {study.what} | [tables]({study.name}) |" for study in STUDIES),
        "",
        reduced(STUDIES[0]),
        "",
        f"Cost on this machine, {threads} threads: {total / 60:.1f} minutes ("
        + ", ".join(f"{name} {spent / 60:.1f}" for name, spent in seconds.items())
        + "); what was there already costs nothing.",
    ]
    (RESULTS / "README.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
