"""`he2her2 recalibrate`: weights for a new site, from few of its labelled slides."""

from pathlib import Path
from typing import Annotated

import typer

from he2her2.cli import options as o
from he2her2.cli.console import say
from he2her2.cli.evaluating import ManifestPath, Rule, RunPath

TrainedWeights = Annotated[str, typer.Option(help="Weights of the run: a folder, or bundled.")]
SiteOut = Annotated[Path, typer.Option("--out", "-o", help="Folder for the site's weights.", show_default=False)]
SiteName = Annotated[
    str | None, typer.Option(help="Only slides of this site in the manifest's column.", show_default="all slides")
]


def recalibrate(
    run: RunPath,
    *,
    manifest: ManifestPath,
    weights: TrainedWeights,
    out: SiteOut,
    site: SiteName = None,
    policy: o.PolicyOption = "guideline",
    patient: Rule = "mean",
) -> None:
    """Fit the probabilities to a new site from few of its labelled slides; predict with the weights written to OUT."""
    from he2her2.evaluation.recalibration import patients_of_site, sentences, write_for_site
    from he2her2.evaluation.recalibration import recalibrate as learn
    from he2her2.labels import Policy
    from he2her2.manifest import raise_problems, read_manifest
    from he2her2.models.slide_model import trained_folder
    from he2her2.results import open_run

    folder, labels, predicted = trained_folder(weights), read_manifest(manifest), open_run(run)
    raise_problems(labels, labels.problems)
    patients = patients_of_site(predicted, labels, site, policy=Policy(policy), rule=patient)
    name = f"{len(patients)} patients of {manifest.name}" + (f", site {site}" if site else "")
    found = learn(predicted, folder, patients, name)
    write_for_site(found, patients, folder, out)
    say("\n".join((*sentences(found), f"weights {out}; predict --weights with them writes calibrated_probability")))
