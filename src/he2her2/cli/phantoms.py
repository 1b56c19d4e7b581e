"""Commands that draw phantom slides: `phantom` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import program_name, say, working
from he2her2.cli.option_groups import grouped
from he2her2.cli.reporting import draw_report
from he2her2.cli.runs import SlideRun, run_slides
from he2her2.errors import OutputError
from he2her2.machine import usable_cores


def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for slides, truth and manifest.")],
    *,
    n: Annotated[int | None, typer.Option("--patients", "-n", help="Number of patients.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same bytes.", show_default=False)] = None,
    stain: Annotated[list[str] | None, typer.Option(help="HE or IHC; may be given twice.", show_default=False)] = None,
    site: Annotated[list[str] | None, typer.Option(help="her2sc-like or brca-like; may be given twice.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with the cohort's settings.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of every slide, such as signal=1.")
    ] = None,
    threads: o.Threads = None,
) -> None:
    """Draw a cohort of phantom slides with known truth, H&E and IHC, and its manifest."""
    from he2her2.config import gather
    from he2her2.phantom import PhantomSlide, PhantomTruth, load_cohort, write_cohort

    def report(slide: PhantomSlide, truth: PhantomTruth) -> None:
        cells = truth.counts["tumour"] + truth.counts["mitosis"]
        score, status = slide.spec.ihc_score.value, slide.spec.her2_status.value
        say(f"{slide.slide_id}  {slide.spec.stain}  IHC {score}  {status}  {cells} tumour cells")

    cohort = load_cohort(
        config,
        n=n,
        seed=seed,
        stains=tuple(stain) if stain else None,
        sites=tuple(site) if site else None,
        slide=gather(None, settings or ()),
    )
    with working("drawing"):
        manifest = write_cohort(out, cohort, workers=threads or usable_cores(), on_slide=report)
    say(f"manifest {manifest}; phantoms test the software and say nothing about patients")


@grouped
def demo(
    *,
    out: o.Out = Path("demo-run"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the phantom slide.")] = 1,
    threads: o.Threads = None,
) -> None:
    """Draw a phantom slide, predict its HER2 status and write its report: the whole method in about a minute."""
    from he2her2.config import load_config
    from he2her2.phantom import make_spec, save_truth, write_phantom

    slide = out / "phantom.tif"
    if (out / "run.json").exists() and not slide.exists():
        raise OutputError(f"{out}: holds results of your own; choose another --out")
    spec = make_spec(seed=seed, ihc_score="3+", signal=1.0, pen=1, blur=0.1)
    say(f"drawing a phantom slide of {spec.size_px[0]} x {spec.size_px[1]} px: {slide}")
    with working("drawing"):
        save_truth(write_phantom(slide, spec, workers=threads or usable_cores()), out / "phantom-truth")
    say(f"its truth, HER2 {spec.her2_status.value}, is in {out / 'phantom-truth'}")
    config = load_config(overrides=[f"runtime.threads={threads}"] if threads else [])
    run_slides([slide], SlideRun(out, config, overwrite=True))
    [page] = draw_report(out, threads=threads).cases.values()
    say(f"  report   {page}")
    say(f"  viewer   {program_name()} view {out}")
