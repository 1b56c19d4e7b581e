"""The networks of `experiments/bundled_tumour.toml`, side by side on one GPU: teachers, folds and the one that is kept.

This is `he2her2 train tumour --config experiments/bundled_tumour.toml --folds 5`, which trains one network after the
other, in 5 minutes on an H200 (15 teachers 103 s, six pupils 184 s).

    python -m experiments.tissue_patches SETS
    he2her2 phantom HE-A --config experiments/phantoms_he_her2sc.toml -n 16
    he2her2 phantom HE-B --config experiments/phantoms_he_brca.toml -n 14
    python -m experiments.bundled_tumour pack SETS HE-A HE-B PACK   # 111 MB: all that the next step reads
    python -m experiments.bundled_tumour train PACK RUN             # needs a GPU; writes RUN/networks.npz
    python -m experiments.bundled_tumour judge SETS HE-A HE-B RUN   # folds judged, calibrated, exported to RUN/weights

The last step is `he2her2 train tumour` itself with weights that are there in place of its trainings; so are the
teachers' answers, and RUN can be tested by `he2her2 test tumour --weights RUN`.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from experiments import packed_patches, side_by_side
from numpy.typing import NDArray

from he2her2.cohort import SlideTask, annotation_lines
from he2her2.config import Config
from he2her2.training import load_training
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining, TileSets, trainable_cnn
from he2her2.training.fit import save_checkpoint
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware, TumourTraining
from he2her2.training.tumour.data import NEVER_TRAINED, TumourData, assign_folds, check_folds, read_sources
from he2her2.training.tumour.patch_sets import PatchFile, concatenate
from he2her2.training.tumour.patches import draw_patches
from he2her2.training.tumour.soup import parts_in
from he2her2.training.tumour.teaching import (
    TEACHERS_FOLDER,
    assemble,
    check_teachers,
    learned_by,
    of_teachers,
    parts_of,
    targets,
    teachers_of,
)
from he2her2.training.tumour.train import start_weights, train_tumour

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = REPOSITORY / "experiments" / "bundled_tumour.toml"
FOLDS = 5
LICENCE = "IDC, PCam, BCSS: CC0 1.0; BreCaHAD: CC BY 4.0 (Aksac et al., 2019); phantoms: Apache-2.0"
_NETWORKS, _START = "networks.npz", "start.npz"

Weights = Mapping[str, NDArray[np.float32]]


def data_of(sets: Path, phantoms: tuple[Path, Path], data: Path) -> TumourData:
    """All that the networks learn from."""
    files = (
        PatchFile(data / "idc" / "idc_patches.npz", 4.0),
        PatchFile(data / "pcam" / "pcam_jpegs.npz", 0.97),
        PatchFile(sets / "bcss.npz", 2.0),
        PatchFile(sets / "brecahad.npz", 2.0),
    )
    return TumourData(files, tuple(folder / "manifest.csv" for folder in phantoms), LICENCE)


def pack(data: TumourData, config: Config, settings: TumourTraining, folder: Path) -> None:
    """Write what the networks learn from, and start from, to a folder that is carried to the GPU."""
    spec = trainable_cnn(config.networks.tumour_cnn, "tumour_cnn", settings.crop_px, FOLDS)
    sources = read_sources(data, spec)
    for line in annotation_lines(map(SlideTask.of_row, sources.rows), ()):
        print(line)
    drawn = [draw_patches(manifest, rows, spec.input, config, settings) for manifest, rows in sources.cohorts]
    packed_patches.pack(concatenate([*sources.sets, *drawn]), data.patches, spec.input, folder)
    start = start_weights(spec, settings)
    assert start is not None, "the recipe starts from ImageNet"
    np.savez(folder / _START, allow_pickle=False, **start)


def train(packed: Path, config: Config, settings: TumourTraining, run: Path) -> None:
    """Train all networks on the GPU; weights and the teachers' answers go to `run/networks.npz`."""
    spec = trainable_cnn(config.networks.tumour_cnn, "tumour_cnn", settings.crop_px, FOLDS)
    patches = packed_patches.unpack(packed, spec.input)
    with np.load(packed / _START) as stored:
        start = {name: stored[name] for name in stored.files}
    fold = assign_folds(patches, FOLDS, settings.seed)
    check_folds(patches, fold)
    check_teachers(patches, fold, settings.seed)
    part = parts_of(fold, settings.seed)
    on_gpu = side_by_side.OnGpu.of(patches)
    assert settings.distil, "the recipe has teachers"

    teachers = teachers_of(FOLDS)
    jobs = [side_by_side.Job(str(t), of_teachers(settings), np.flatnonzero(learned_by(part, t))) for t in teachers]
    taught_by = side_by_side.train_side_by_side(jobs, spec, start, on_gpu)
    said = {}
    for teacher in teachers:
        asked = np.flatnonzero(np.isin(part, teacher))
        said[teacher] = np.full(len(patches), np.nan)
        said[teacher][asked] = side_by_side.probability_of(taught_by[str(teacher)], spec, on_gpu, asked)
    taught = assemble(said, fold, part)

    jobs = []
    for k, folder in enumerate([*(Path("folds", str(k + 1)) for k in range(FOLDS)), Path()]):
        learned = np.flatnonzero((fold != k) & (fold != NEVER_TRAINED))
        wanted = targets(patches.labels, np.nan_to_num(taught[k]), settings.distil)
        for number, own in enumerate(parts_in(folder, settings.soup)):
            seeded = replace(settings, seed=settings.seed + number)
            jobs.append(side_by_side.Job(own.as_posix(), seeded, learned, wanted))
    found = side_by_side.train_side_by_side(jobs, spec, start, on_gpu)
    arrays: dict[str, NDArray[Any]] = {
        f"{name}:{tensor}": array for name, tensors in found.items() for tensor, array in tensors.items()
    }
    np.savez(run / _NETWORKS, allow_pickle=False, taught=taught, **arrays)


@dataclass(frozen=True, slots=True, eq=False)
class _Trained(CnnTraining):
    """Training of networks that are trained.

    Attributes:
        out: Folder of the run.
        networks: Their weights, by their folder in `out`.
    """

    out: Path = Path()
    networks: Mapping[str, Weights] = field(default_factory=dict)

    def learn(self, tiles: TileSets, folder: Path) -> CnnClassifier:  # noqa: ARG002  the signature of CnnTraining
        """The network of a folder, with its checkpoint there."""
        name = folder.relative_to(self.out).as_posix()
        module = CnnClassifier(self.spec, self.settings, self.networks[name], self.threshold)
        save_checkpoint(module, folder / "checkpoints" / "last.ckpt")
        return module


def judge(data: TumourData, config: Config, settings: TumourTraining, run: Path) -> Path:
    """Judge, calibrate and export the networks of `run/networks.npz`; the report."""
    networks: dict[str, dict[str, NDArray[np.float32]]] = {}
    with np.load(run / _NETWORKS) as stored:
        for key in stored.files:
            name, _, tensor = key.rpartition(":")
            if name:
                networks.setdefault(name, {})[tensor] = stored[key]
        (run / TEACHERS_FOLDER).mkdir(exist_ok=True)
        np.savez_compressed(run / TEACHERS_FOLDER / "probability.npz", probability=stored["taught"])
    trained = partial(_Trained, out=run, networks=networks)
    execution = Execution(Hardware(accelerator="cpu"), resume=True, say=print)
    return train_tumour(data, run, config, settings, execution, folds=FOLDS, training_of=trained)


def main() -> None:
    """Pack, train or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    default = Path(os.environ.get("HE2HER2_DATA", REPOSITORY.parent / "shared" / "data"))
    for step, names in (
        ("pack", ("sets", "phantoms_a", "phantoms_b", "out")),
        ("train", ("packed", "out")),
        ("judge", ("sets", "phantoms_a", "phantoms_b", "out")),
    ):
        its = steps.add_parser(step)
        its.add_argument("--data", type=Path, default=default)
        for name in names:
            its.add_argument(name, type=Path)
    given = parser.parse_args()
    config, settings = load_training("tumour", file=RECIPE)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step == "train":
        train(given.packed, config, settings, given.out)
        return
    data = data_of(given.sets, (given.phantoms_a, given.phantoms_b), given.data)
    if given.step == "pack":
        pack(data, config, settings, given.out)
    else:
        print(judge(data, config, settings, given.out))


if __name__ == "__main__":
    main()
