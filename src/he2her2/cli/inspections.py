"""What a person reads of `inspect`."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from he2her2.cli.console import say
from he2her2.slides import LevelReport, SlideReport


def print_inspections(reports: Sequence[SlideReport], failures: Sequence[str], *, as_json: bool) -> None:
    """Print what `inspect` found of each slide, and which slides cannot be opened."""
    if as_json:
        slides = [asdict(report) for report in reports]
        say(json.dumps({"slides": slides, "failures": list(failures)}, indent=2, ensure_ascii=False))
        return
    for report in reports:
        say("\n".join(_inspection(report)))
    for text in failures:
        say(f"CANNOT BE OPENED  {text}", error=True)


def _inspection(report: SlideReport) -> list[str]:
    """A slide's report, a line each."""
    w, h = report.size_px
    size = f"{w} x {h} px" + (f", {report.size_mm[0]:.1f} x {report.size_mm[1]:.1f} mm" if report.size_mm else "")
    mpp = "unknown" if report.mpp is None else f"{report.mpp:.4g} µm/px ({report.mpp_source})"
    power = f", {report.objective:g}x objective" if report.objective else ""
    tiles = report.tiles
    lines = [
        f"{report.slide_id}: {report.vendor}, read by {report.backend}, {report.file_bytes / 1e6:.1f} MB",
        f"  size     {size}",
        f"  mpp      {mpp}{power}",
        *(f"  level {i}  {_level(level)}" for i, level in enumerate(report.levels)),
        f"  tiles    {tiles.n_tiles} compressed, {tiles.n_absent} absent",
        f"  sample   {tiles.n_corrupt} of {tiles.n_checked} decoded ones are corrupt",
    ]
    if report.associated:
        lines.append(f"  pictures {', '.join(report.associated)}")
    if report.bounds_px:
        lines.append(f"  bounds   x, y, w, h = {', '.join(map(str, report.bounds_px))}")
    lines += [f"  plan     {text}" for text in report.plan]
    return lines + [f"  PROBLEM  {problem.found}; {problem.remedy}" for problem in report.problems]


def _level(level: LevelReport) -> str:
    w, h = level.size_px
    mpp = "" if level.mpp is None else f", {level.mpp:.4g} µm/px"
    tile = f"tiles of {level.tile_px[0]} x {level.tile_px[1]}" if level.tile_px else "no tiles"
    return f"{w} x {h} px, 1/{level.downsample:g}{mpp}, {level.codec}, {tile}"
