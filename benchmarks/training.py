"""Training: tiles a second of `train tiles`, streaming from a slide, against forward and backward alone.

Needs the train extra.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.measuring import alternate
from benchmarks.phantom_slide import phantom_slide, tile_grid
from benchmarks.results import Found, Setting, Table
from he2her2.config import Config
from he2her2.geometry import Size
from he2her2.labels import IhcScore
from he2her2.manifest import SlideRow
from he2her2.models import CnnSpec
from he2her2.models.encoders.cnn import PAPER_TILE_CNN, STRIDED_TILE_CNN
from he2her2.phantom import TILE_PX
from he2her2.training.classifier import Batch, CnnClassifier
from he2her2.training.fit import fit
from he2her2.training.run import Execution
from he2her2.training.sampling import EpochSampler, shuffled
from he2her2.training.settings import TRAININGS, Hardware, TileTraining
from he2her2.training.tiles.dataset import SlideTiles, TileDataset

THREADS = 2


@dataclass
class Case:
    """A network and its training settings."""

    spec: CnnSpec
    settings: TileTraining
    n: int


def measure(setting: Setting) -> Found:
    """Measure tiles per second of an epoch, and of the same steps without reading, on both tile CNNs."""
    side = setting.pick(20, 3)
    path = phantom_slide(setting, Size((side + 1) * TILE_PX, (side + 1) * TILE_PX))
    figures: dict[str, float] = {}
    rows = []
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    for case in cases(setting):
        data = TileDataset([tiles_of(path, side, case.n)], case.spec.input, Config())
        streaming: list[float] = []
        candidates = {
            "streaming": partial(train, case, data, streaming),
            "limit": partial(step_alone, case, batches_of(case, data)),
        }
        timings = alternate(candidates, setting.pick(3, 1), warm_up=False)
        share = timings.median("limit") / float(np.median(streaming))
        rates = case.n / float(np.median(streaming)), timings.rate("limit", case.n)
        rows.append((in_words(case), *rates, share))
        figures[f"training_share_{case.spec.name}"] = share
    torch.set_num_threads(before)
    header = ("network", "streaming, tiles/s", "forward and backward alone, tiles/s", "share")
    return Found(figures, (Table(f"One epoch, {THREADS} torch threads, CPU", header, tuple(rows)),))


def cases(setting: Setting) -> list[Case]:
    """Candidates: the compact CNN by our recipe, the paper's CNN by the paper's."""
    ours, papers = (TRAININGS["tiles"][name] for name in ("default", "paper"))
    assert isinstance(ours, TileTraining)
    assert isinstance(papers, TileTraining)
    compact = Case(STRIDED_TILE_CNN, replace(ours, epochs=1, batch_size=setting.pick(64, 4)), setting.pick(384, 8))
    if setting.quick:
        return [compact]
    return [compact, Case(PAPER_TILE_CNN, replace(papers, epochs=1, batch_size=32), 128)]


def in_words(case: Case) -> str:
    """Network, crop and batch."""
    side = case.settings.crop_px or case.spec.input.network_px
    return f"{case.spec.name}, {side} px, batches of {case.settings.batch_size}, {case.n} tiles"


def tiles_of(path: Path, side: int, n: int) -> SlideTiles:
    """Take the first n tiles of the slide."""
    row = SlideRow(line=0, slide_id="phantom", path=path, patient_id="phantom", stain="IHC", ihc_score=IhcScore.THREE)
    return SlideTiles(row, tile_grid(side, side).take(np.arange(n)))


def loader(case: Case, data: TileDataset) -> DataLoader[Batch]:
    """Make the loader of `train tiles`."""
    sampler = EpochSampler(shuffled(len(data)), case.settings.batch_size, case.settings.seed)
    return DataLoader(data, batch_size=None, sampler=sampler)


def batches_of(case: Case, data: TileDataset) -> list[Batch]:
    """Read an epoch into memory."""
    return list(loader(case, data))


class _Timed(CnnClassifier):
    """Clock of the epoch alone, without Lightning's start and end."""

    begin = end = 0.0

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self.begin = perf_counter()

    def on_train_epoch_end(self) -> None:
        """Stop the clock."""
        self.end = perf_counter()


def train(case: Case, data: TileDataset, seconds: list[float]) -> None:
    """Run an epoch of `train tiles`, and add its seconds."""
    module = _Timed(case.spec, case.settings)
    with tempfile.TemporaryDirectory() as folder:
        fit(module, loader(case, data), None, Path(folder), Execution(Hardware("cpu", devices="1")), epochs=1, seed=0)
    seconds.append(module.end - module.begin)


def step_alone(case: Case, batches: list[Batch]) -> None:
    """Train the same steps on tiles in memory, without Lightning and log."""
    module: Any = CnnClassifier(case.spec, case.settings)
    module.log = lambda *_, **__: None
    optimizer = torch.optim.AdamW(module.parameters(), case.settings.learning_rate)
    module.train()
    for batch in batches:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
