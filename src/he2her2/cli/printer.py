"""Printed output of `predict`, `segment` and `inspect`: progress on standard error, results as text or JSON."""

from collections import Counter
from collections.abc import Sequence

from he2her2.cli.console import say, say_json, say_line
from he2her2.errors import few_of
from he2her2.results import Failure, Her2Finding, PatientResult, Run, SlideResult, result_to_record
from he2her2.slides import LevelReport, SlideReport
from he2her2.units import probability_text

DOMAIN_UNKNOWN = (
    "not checked: these weights do not say what their training slides look like, so a slide unlike them is not noticed "
    "(`he2her2 weights domain` stores it)"
)
_SHOWN_CLASSES = 20
_SHOWN_PATIENTS = 3


def print_slide(run: Run, result: SlideResult, *, as_json: bool) -> None:
    """Print one slide's result."""
    if as_json:
        say_json(result_to_record(result))
        return
    area, quality, counts = result.area_mm2, result.quality, result.counts
    lines = [
        f"{result.slide_id}: {unlike(result)}{result.headline}",
        f"  tissue   {area.tissue:.2f} mm² (pen {quality.pen_share:.1%}, blur {quality.blur_share:.1%})",
        f"  tumour   {area.tumour:.2f} mm²",
    ]
    if result.annotations:
        lines.append(f"  regions  {uses_in_words(Counter(f'{n}: {use}' for n, use in result.annotations.items()), 1)}")
    if result.her2 is not None:
        if result.likeness is None:
            lines.append(f"  domain   {DOMAIN_UNKNOWN}")
        per_score = ", ".join(f"{n} x {score}" for score, n in result.her2.tiles.per_score.items())
        lines.append(f"  tiles    {counts.scored} scored ({per_score}), {counts.selected} selected")
        lines += _rules(result.her2)
    if "tiles" in result.timing.streams:
        lines.append(f"  speed    {result.timing.streams['tiles'].times.in_words()}")
    folder = run.slides.of(result.slide_id)
    lines += [f"  evidence {folder}", f"  overlay  {folder / 'overlay.png'}"]
    said = result.likeness.warning if result.likeness and result.likeness.unlike else ""
    lines += [f"  warning  {text}" for text in result.warnings if text != said]
    lines += [f"  NOTICE   {text}" for text in (*result.notices, result.use)]
    say("\n".join(lines))


def patients_in_words(patients: Sequence[PatientResult]) -> str:
    """Number of patients and of each call: "3 by the mean of their slides: 2 HER2 positive, 1 without result"."""
    calls = Counter(
        patient.triage or (f"HER2 {patient.status}" if patient.status else "without result") for patient in patients
    )
    counts = ", ".join(f"{n} {call}" for call, n in sorted(calls.items()))
    return f"{len(patients)} by the {patients[0].combined_by} of their slides: {counts}"


def unjoined_in_words(patients: Sequence[str]) -> str:
    """Patients whose slides are called differently, where no stored rule joins them.

    Example:
        >>> unjoined_in_words(["P1"])
        '1 has slides that are called differently, and no stored rule joins them: P1'
    """
    some = few_of(patients, _SHOWN_PATIENTS)
    has = "has" if len(patients) == 1 else "have"
    return f"{len(patients)} {has} slides that are called differently, and no stored rule joins them: {some}"


def uses_in_words(uses: Counter[str], n_slides: int) -> str:
    """The use of each class of annotations; of several slides with the number of slides."""
    most = [f"{text} ({n})" if n_slides > 1 else text for text, n in uses.most_common()]
    return few_of(most, _SHOWN_CLASSES, between="; ")


def unlike(result: SlideResult, *, short: bool = False) -> str:
    """Said before anything else of a slide that is unlike the training slides; nothing of another."""
    if result.likeness is None or not result.likeness.unlike:
        return ""
    said = result.likeness.warning.replace("unlike", "UNLIKE", 1)
    return "UNLIKE the training slides; " if short else f"{said}\n  "


def _rules(her2: Her2Finding) -> list[str]:
    """Lines on the rules that are stored beside the weights."""
    lines = []
    if her2.calibrated_probability is not None:
        corrected = probability_text(her2.calibrated_probability, her2.calibrated_threshold)
        corrected = f"  calibrated probability {corrected}"
        if her2.calibrated_threshold is not None:
            corrected += f" (threshold {her2.calibrated_threshold:g} on this scale: the same status)"
        lines.append(corrected)
    if point := her2.operating_point:
        lines.append(
            f"  threshold chosen to miss at most {100 * point.budget:.3g} % of positives "
            f"({100 * point.confidence:.3g} % sure, for patients like {point.chosen_on})"
        )
    if triage := her2.triage:
        ruled_in = f"rule in from {triage.rule_in_from:g}" if triage.rule_in_from <= 1 else "nobody ruled in"
        lines.append(
            f"  triage   {triage.arm} (rule out below {triage.rule_out_below:g}, {ruled_in}, for patients like "
            f"{triage.chosen_on})"
        )
    return lines


def print_inspection(found: SlideReport | Failure) -> None:
    """Print the report of a slide, or that it cannot be opened."""
    if isinstance(found, Failure):
        say_line(f"CANNOT BE OPENED  {found}")
    else:
        say("\n".join(_inspection(found)))


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
        f"  sample   {tiles.n_corrupt} of {tiles.n_checked} decoded are corrupt, {tiles.n_blank} blank in the tissue",
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
