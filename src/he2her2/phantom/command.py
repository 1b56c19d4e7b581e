"""`he2her2 phantom OUT`: what the command line calls."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from he2her2.errors import PhantomError
from he2her2.phantom.cohort import PhantomSlide, load_cohort, write_cohort
from he2her2.phantom.truth import PhantomTruth


def run(  # noqa: PLR0913  (a command's options)
    out: Path,
    *,
    config: Path | None = None,
    n: int | None = None,
    seed: int | None = None,
    stains: list[str] | None = None,
    sites: list[str] | None = None,
    dials: list[str] | None = None,
    workers: int = 1,
    echo: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Write a cohort of phantom slides.

    Args:
        out: Folder for slides, truth and manifest.
        config: TOML with the dials of `CohortSpec`.
        n: Patients.
        seed: Of everything.
        stains: HE, IHC or both.
        sites: her2sc-like, brca-like or both.
        dials: One slide's dials as "name=value", such as "signal=1" or "size_px=[12000, 12000]".
        workers: Processes that draw blocks at a time.
        echo: Takes one line for each slide written.

    Returns:
        The manifest.

    Raises:
        PhantomError: One line that names every dial that is wrong.
        OutputError: The folder cannot be written.
    """
    if workers < 1:
        raise PhantomError(f"phantom: workers must be at least 1, got {workers}")
    cohort = load_cohort(
        config,
        n=n,
        seed=seed,
        stains=tuple(stains) if stains else None,
        sites=tuple(sites) if sites else None,
        slide=dict(_dial(text) for text in dials or ()),
    )

    def tell(slide: PhantomSlide, truth: PhantomTruth) -> None:
        cells = truth.counts["tumour"] + truth.counts["mitosis"]
        score, status = slide.spec.ihc_score.value, slide.spec.her2_status.value
        echo(f"{slide.slide_id}  {slide.spec.stain}  IHC {score}  {status}  {cells} tumour cells")

    return write_cohort(out, cohort, workers=workers, on_slide=tell)


def _dial(text: str) -> tuple[str, Any]:
    """The name and value of "name=value"; the value is read as TOML, or as text where it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise PhantomError(f"phantom: '{text}': write it as name=value, such as signal=1")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
