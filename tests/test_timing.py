"""What the stream says of where its time went."""

import json
import re
import time
from typing import cast

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from he2her2.geometry import TileGrid
from he2her2.slides import Slide, map_tiles, open_slide
from he2her2.timing import StreamTimes, Watch
from tests.tissue_slides import QUICK, write_tissue

NAP = 0.02
N = 6
LINE = re.compile(r"(\d+(\.\d+)?|\d{1,3}( \d{3})+) tiles/s on 2 threads, limited by .+ \(\d+ % of their time; .+\)")


class SleepySlide:
    """Hides its compressed tiles, and takes its time to find them; it has one level."""

    mpp, levels = 0.25, (None,)

    def __init__(self, nap):
        self.nap = nap

    def read(self, _origin, size, _mpp):
        time.sleep(self.nap)
        return np.zeros((size.h, size.w, 3), np.uint8)


def stream(apply, *, threads=1, nap=0.0, pause=0.0):
    """The times of a stream of tiles, one a batch."""
    grid = TileGrid(np.zeros((N, 2), np.int64), 8.0, 8, 0.25)
    slide = cast("Slide", SleepySlide(nap))
    with map_tiles(slide, grid, apply, batch_size=1, threads=threads) as results:
        for _ in results:
            time.sleep(pause)
    return results.times


def busy(_):
    end = time.thread_time() + NAP
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize("threads", [1, 2])
def test_the_cnns_time_is_counted(threads):
    """A stream that only computes is limited by the CNN, however many threads do it."""
    times = stream(busy, threads=threads)

    assert times.tiles == N
    assert times.applying >= 0.95 * N * NAP
    assert times.limit == "CNN"
    assert sum(times.shares.values()) == pytest.approx(1)


def test_waiting_for_bytes_is_not_reading():
    """A slow disk costs time on the clock, not the processor's."""
    times = stream(lambda _: None, nap=NAP)

    assert times.waiting >= 0.9 * N * NAP
    assert times.reading < 0.5 * times.waiting
    assert times.limit == "disk"


def test_a_slow_consumer_is_neither_reading_nor_the_cnn():
    """Threads that wait for room say so."""
    times = stream(lambda _: None, pause=NAP)

    assert times.limit == "other"


def test_decoding_counts_as_reading(tmp_path):
    """Real compressed tiles take processor time, most of what the stream takes; other programs do not change that."""
    y, x = np.divmod(np.arange(36), 6)
    grid = TileGrid(np.stack([x, y], axis=1) * 256 + 100, 256.0, 256, 0.25)
    with open_slide(write_tissue(tmp_path / "slide.svs")) as slide, map_tiles(slide, grid, len_of) as results:
        before = time.process_time()
        assert sum(results) == len(grid)
        spent = time.process_time() - before

    assert results.times.reading > 0.3 * spent


def len_of(batch):
    return len(batch.pixels)


def test_no_thread_has_more_time_than_there_is():
    """The parts never exceed what the threads had."""
    times = stream(busy, threads=3, nap=NAP / 2)

    assert times.reading + times.waiting + times.applying <= times.available * 1.02


def test_an_empty_stream_has_no_times():
    """And says so."""
    slide = cast("Slide", SleepySlide(0))
    with map_tiles(slide, TileGrid(np.zeros((0, 2), np.int64), 8.0, 8, 0.25), busy) as results:
        assert list(results) == []

    assert results.times == StreamTimes()
    assert results.times.in_words() == "no tiles"


@given(st.integers(1, 10**7), st.floats(0.001, 1000))
@example(72, 0.036 + 0.036)  # 999.9999999999999 tiles/s
@example(9_995, 10.0)
def test_any_rate_is_written_in_digits(tiles, wall):
    """No rate comes out as 1e+03, and none is off by more than its rounding."""
    written = LINE.fullmatch(StreamTimes(tiles, wall, 2 * wall, applying=wall).in_words())

    assert written
    assert float(written[1].replace(" ", "")) == pytest.approx(tiles / wall, rel=0.006)


def test_a_watch_adds_up():
    """Stages may come again, and streams of one stage are added."""
    watch = Watch()
    for _ in range(2):
        with watch.stage("nap"):
            time.sleep(NAP)
        watch.streamed("nap", StreamTimes(3, 1, 2, 0.5, 0.25, 1))

    assert 2 * NAP <= watch.stages["nap"] <= watch.seconds
    assert watch.streams["nap"] == StreamTimes(6, 2, 4, 1, 0.5, 2)


def test_a_failed_stage_is_counted():
    """What raised took time too."""
    watch = Watch()

    def fail():
        time.sleep(NAP)
        raise RuntimeError

    with pytest.raises(RuntimeError), watch.stage("nap"):
        fail()

    assert watch.stages["nap"] >= NAP


def test_predict_says_what_limited_it(command_line, tmp_path):
    """One line of a slide, one of a folder, and the figures in `prediction.json`."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a", "b"):
        write_tissue(folder / f"{name}.svs")

    one = command_line("predict", folder / "a.svs", "--out", tmp_path / "one", *QUICK)
    many = command_line("predict", folder, "--out", tmp_path / "many", "--workers", "0", *QUICK)

    assert (one[0], many[0]) == (0, 0)
    for _, out, _ in (one, many):
        (speed,) = re.findall(r"^  speed    (.+)$", out, re.MULTILINE)
        assert LINE.fullmatch(speed)
    record = command_line("predict", folder / "a.svs", "--out", tmp_path / "one", "--json", *QUICK)[1]
    timing = json.loads(record)["timing"]
    assert [*timing["stages_s"]] == ["tissue", "focus", "tumour", "cut", "tiles"]
    assert timing["streams"].keys() == {"tumour", "tiles"}
    assert timing["streams"]["tiles"]["tiles"] >= 34
