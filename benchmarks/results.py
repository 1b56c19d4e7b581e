"""Results of a topic, as JSON and as the generated parts of `docs/performance.md`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bars import BARS, Bar


@dataclass(frozen=True, slots=True)
class Table:
    """Table of figures.

    Attributes:
        title: Caption.
        header: Names of the columns.
        rows: Words and figures.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Results of a topic.

    Attributes:
        figures: By key of `bars.BARS`, and any others.
        tables: Tables for the page.
        raw: All other measurements.
    """

    figures: Mapping[str, float]
    tables: tuple[Table, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """Setting of the measurements.

    Attributes:
        work: Folder that keeps slides between runs.
        quick: Small sizes, to test that a topic runs.
        plots: Folder of plots.
    """

    work: Path
    quick: bool
    plots: Path

    def pick(self, full: int, quick: int) -> int:
        """Pick the size for this setting."""
        return quick if self.quick else full


def write_found(folder: Path, topic: str, found: Found, machine: Mapping[str, object]) -> None:
    """Write a topic's results."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, **asdict(found)}, indent=1, ensure_ascii=False)
    (folder / f"{topic}.json").write_text(text + "\n", "utf-8")


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all results in a folder, by topic."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))}


def update_page(page: Path, results: Mapping[str, dict[str, Any]]) -> None:
    """Put the results into the page, between `<!-- bench:TOPIC -->` and `<!-- end -->`; the rest stays."""
    blocks = {topic: _topic_block(result) for topic, result in results.items()}
    blocks["bars"] = bars_table(results)
    blocks["machine"] = _machine_block(results)

    def fill(match: re.Match[str]) -> str:
        topic = match.group(1)
        body = blocks.get(topic, "Not measured.")
        return f"<!-- bench:{topic} -->\n{body}\n<!-- end -->"

    text = page.read_text("utf-8")
    page.write_text(re.sub(r"<!-- bench:(\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL), "utf-8")


def bars_table(results: Mapping[str, dict[str, Any]]) -> str:
    """Table of all requirements with the measured figures, met or not."""
    figures = {key: value for result in results.values() for key, value in result["figures"].items()}
    rows = [
        (bar.what, bar.shown(bar.bar), bar.shown(bar.aim) if bar.aim is not None else "", *_measured(bar, figures))
        for bar in BARS
    ]
    return markdown(("what", "bar", "aim", "measured", ""), rows)


def _measured(bar: Bar, figures: Mapping[str, float]) -> tuple[str, str]:
    value = figures.get(bar.key)
    if value is None:
        return "not measured", ""
    return bar.shown(value), "**met**" if bar.is_met(value) else "**not met**"


def _topic_block(result: Mapping[str, Any]) -> str:
    return "\n\n".join(f"{table['title']}\n\n{markdown(table['header'], table['rows'])}" for table in result["tables"])


def _machine_block(results: Mapping[str, dict[str, Any]]) -> str:
    header = ("topic", "when (UTC)", "CPU", "cores", "GPU", "load before", "versions")
    rows = []
    for topic, result in results.items():
        at = result["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in at["versions"].items())
        when = str(at["when"])[:16].replace("T", " ")
        rows.append((topic, when, at["cpu"], at["cores"], at["gpu"], at["load_1min"], versions))
    return markdown(header, rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Format a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"
