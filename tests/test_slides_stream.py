"""The tile stream: what `read` gives, each compressed tile decoded once, in order, bounded, and stopped cleanly."""

import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from he2her2.geometry import Point, Size, TileGrid
from he2her2.slides import map_tiles, open_slide, stream_tiles
from he2her2.slides.backend_tiff import TiffSlide
from he2her2.slides.levels import Rect
from he2her2.slides.tile_store import TileStore
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_slide

W, H = 448, 320


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A slide of 7 x 5 compressed tiles with a second level."""
    return write_slide(
        tmp_path_factory.mktemp("stream") / "s.svs", pyramid(synthetic_pixels(W, H), (1, 2)), SlideSpec(tables=True)
    )


@pytest.fixture(scope="module", params=["tiff", "openslide"])
def slide(request, path):
    """That slide, by each backend."""
    with open_slide(path, backend=request.param) as slide:
        yield slide


def make_grid(slide, side, stride, mpp=0.25, first=(0, 0), last=(W, H)):
    """Tiles in raster order."""
    origins = [(x, y) for y in range(first[1], last[1], stride) for x in range(first[0], last[0], stride)]
    side_l0 = side * slide.effective_mpp(mpp) / slide.mpp
    return TileGrid(np.array(origins, np.int64).reshape(-1, 2), side_l0, side, mpp)


def read_one_by_one(slide, grid):
    """The slow and obvious way."""
    size = Size(grid.side_px, grid.side_px)
    return np.stack([slide.read(Point(*origin), size, grid.mpp) for origin in grid.origins_l0.tolist()])


@given(
    side=st.sampled_from([1, 30, 64, 100]),
    stride=st.sampled_from([32, 50, 64, 200]),
    mpp=st.sampled_from([0.25, 0.5, 0.35, 0.2]),
    first=st.tuples(st.integers(-150, 100), st.integers(-150, 100)),
    batch_size=st.sampled_from([1, 7, 32]),
    threads=st.integers(1, 3),
)
@settings(max_examples=40)
def test_every_tile_is_what_read_gives(slide, side, stride, mpp, first, batch_size, threads):
    """Overlapping, sparse, shifted, resampled, partly outside: batches hold the bits of `Slide.read`, in order."""
    grid = make_grid(slide, side, stride, mpp, first)

    batches = list(stream_tiles(slide, grid, batch_size=batch_size, threads=threads))

    assert np.array_equal(np.concatenate([batch.index for batch in batches]), np.arange(len(grid)))
    assert np.array_equal(np.concatenate([batch.pixels for batch in batches]), read_one_by_one(slide, grid))


@example(side=64, stride=64, mpp=0.25, threads=1, shift=0)  # each tile is a compressed one
@given(
    side=st.sampled_from([30, 64, 100]),
    stride=st.sampled_from([16, 32, 64, 90]),
    mpp=st.sampled_from([0.25, 0.5, 0.35]),
    threads=st.integers(1, 3),
    shift=st.integers(-40, 40),
)
def test_each_compressed_tile_is_decoded_once(path, side, stride, mpp, threads, shift):
    """As many decodes as compressed tiles are touched, however tiles overlap and blocks fall."""
    with open_slide(path) as slide:
        grid = make_grid(slide, side, stride, mpp, (shift, shift))
        sampling = slide.sampling(mpp)
        level = slide.levels[sampling.level]
        touched = set()
        for origin in grid.origins_l0.tolist():
            columns, rows = sampling.rect(Point(*origin), Size(side, side)).clipped(level.size).cells(Size(64, 64))
            touched |= {(column, row) for column in columns for row in rows}

        with stream_tiles(slide, grid, batch_size=5, threads=threads) as stream:
            list(stream)

        assert stream.n_decoded == len(touched)


def test_any_order_of_the_grid_gives_the_same_tiles(slide):
    """Shuffled tiles are read as well, still each compressed tile once; only memory likes raster order."""
    grid = make_grid(slide, 64, 32)
    order = np.random.default_rng(0).permutation(len(grid))

    stream = stream_tiles(slide, grid.take(order), batch_size=6, threads=2)
    pixels = np.concatenate([batch.pixels for batch in stream])

    assert np.array_equal(pixels, read_one_by_one(slide, grid)[order])
    assert stream.n_decoded == (35 if slide.backend == "tiff" else 0)


@pytest.mark.parametrize(
    ("batch_size", "threads", "most"), [(32, 1, 18), (32, 2, 18), (32, 3, 12), (8, 2, 6), (3, 4, 3)]
)
def test_batches_are_shared_out_evenly(slide, batch_size, threads, most):
    """35 tiles for 2 threads are 18 and 17, not 32 and 3: the last batch keeps nobody waiting."""
    grid = make_grid(slide, 64, 64)

    sizes = [len(batch.index) for batch in stream_tiles(slide, grid, batch_size=batch_size, threads=threads)]

    assert sum(sizes) == len(grid) == 35
    assert max(sizes) == most
    assert max(sizes) - min(sizes[:-1]) == 0


def test_an_empty_grid_is_an_empty_stream(slide):
    """No tiles, no batches, no threads."""
    grid = make_grid(slide, 64, 64, last=(0, 0))

    assert list(stream_tiles(slide, grid)) == []


def test_damaged_tiles_are_left_out_and_named(tmp_path):
    """Grid tiles that touch a damaged compressed tile are unreadable; the others come, and damage is tried once."""
    damaged = write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(W, H)))
    with open_slide(damaged) as slide:
        intact = read_one_by_one(slide, make_grid(slide, 64, 32))
    corrupt_tile(damaged, index=8)  # at (64, 64)

    with open_slide(damaged) as slide:
        grid = make_grid(slide, 64, 32)
        stream = stream_tiles(slide, grid, batch_size=4, threads=2)
        batches = list(stream)

    x, y = grid.origins_l0.T
    touching = np.flatnonzero((x > 0) & (x < 128) & (y > 0) & (y < 128))
    seen = np.concatenate([batch.index for batch in batches])
    assert touching.tolist() == stream.unreadable.tolist()
    assert sorted([*seen, *touching]) == list(range(len(grid)))
    assert np.array_equal(np.concatenate([batch.pixels for batch in batches]), intact[seen])
    assert stream.n_decoded == 35


def test_openslides_stream_survives_damage_too(tmp_path):
    """The same tiles are missing when OpenSlide reads."""
    damaged = corrupt_tile(write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(W, H))), index=8)

    with open_slide(damaged, backend="openslide") as slide:
        stream = stream_tiles(slide, make_grid(slide, 64, 64), batch_size=4, threads=2)
        n_seen = sum(len(batch.index) for batch in stream)

    assert (n_seen, stream.unreadable.tolist()) == (34, [8])


def test_a_batch_without_readable_tiles_has_no_result(tmp_path):
    """`apply` never sees an empty batch."""
    damaged = corrupt_tile(write_slide(tmp_path / "d.svs", pyramid(synthetic_pixels(W, H))), index=1)

    with open_slide(damaged) as slide:
        sizes = list(map_tiles(slide, make_grid(slide, 64, 64), lambda batch: len(batch.index), batch_size=1))

    assert sizes == [1] * 34


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_whoever_is_slow(slide, threads):
    """Later batches that finish first wait for the earlier."""
    grid = make_grid(slide, 64, 64)

    def apply(batch):
        time.sleep(0.004 if batch.index[0] % 2 else 0)
        return batch.index.tolist()

    results = list(map_tiles(slide, grid, apply, batch_size=3, threads=threads))

    assert [i for result in results for i in result] == list(range(len(grid)))


def test_one_thread_is_the_consumers_own(slide):
    """Nothing is made ahead, nor elsewhere: another thread would carry the work from core to core."""
    made = []
    stream = map_tiles(slide, make_grid(slide, 64, 32), lambda _: made.append(threading.get_ident()), batch_size=2)

    for taken in range(1, 11):
        next(stream)
        assert made == [threading.get_ident()] * taken
    stream.close()


def test_reading_alone_goes_ahead_on_one_thread(slide):
    """The next batch is read while a training works on this one."""
    with stream_tiles(slide, make_grid(slide, 64, 32), batch_size=2) as stream:
        next(stream)
        deadline = time.monotonic() + 10
        while stream.times.tiles < 4 and time.monotonic() < deadline:
            time.sleep(0.002)
        assert stream.times.tiles >= 4


@pytest.mark.parametrize("threads", [2, 3])
def test_workers_stay_near_a_slow_consumer(slide, threads):
    """At most `threads` + 1 batches are made ahead, and at least one: memory is bounded, and reading never waits."""
    made = []
    stream = map_tiles(
        slide, make_grid(slide, 64, 32), lambda batch: made.append(batch.index[0]), batch_size=2, threads=threads
    )

    for taken in range(1, 11):
        next(stream)
        deadline = time.monotonic() + 10
        while len(made) <= taken and time.monotonic() < deadline:
            time.sleep(0.002)
        assert taken < len(made) <= taken + threads + 1
    stream.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_in_apply_reaches_the_consumer_in_its_place(slide, threads):
    """All earlier results come first; then the exception itself; and no thread is left."""
    before = threading.active_count()

    def apply(batch):
        if batch.index[0] == 12:
            raise KeyError("boom")
        return int(batch.index[0])

    stream = map_tiles(slide, make_grid(slide, 64, 64), apply, batch_size=3, threads=threads)
    seen = [next(stream) for _ in range(4)]

    assert seen == [0, 3, 6, 9]
    with pytest.raises(KeyError, match="boom"):
        next(stream)
    assert threading.active_count() == before
    assert list(stream) == []


def test_a_consumer_that_stops_early_leaves_no_threads(slide):
    """By break, by close and by an exception in the loop."""
    before = threading.active_count()
    grid = make_grid(slide, 64, 32)

    for _ in stream_tiles(slide, grid, batch_size=1, threads=3):
        break
    gc.collect()
    assert threading.active_count() == before

    with stream_tiles(slide, grid, batch_size=1, threads=3) as stream:
        next(stream)
        assert threading.active_count() > before
    assert threading.active_count() == before

    with pytest.raises(ZeroDivisionError):
        _ = [1 / batch.index[0].item() for batch in stream_tiles(slide, grid, batch_size=1, threads=3)]
    gc.collect()
    assert threading.active_count() == before


def test_a_closed_stream_ends(slide):
    """After close there is nothing more to come."""
    stream = stream_tiles(slide, make_grid(slide, 64, 64))
    next(stream)
    stream.close()
    stream.close()

    assert list(stream) == []


@pytest.mark.parametrize("how", [{"batch_size": 0}, {"threads": 0}])
def test_no_workers_or_no_tiles_in_a_batch_is_the_callers_bug(slide, how):
    """Both are at least 1."""
    with pytest.raises(ValueError, match="at least 1"):
        stream_tiles(slide, make_grid(slide, 64, 64), **how)


def test_tiles_are_let_go_after_their_last_user(path):
    """The store holds a decoded tile exactly while a later rectangle needs it."""
    with TiffSlide(path) as slide:
        rects = [Rect(0, 0, 100, 64), Rect(70, 0, 100, 64)]  # tiles 0 and 1, then 1 and 2
        store = TileStore(slide, 0, rects)

        for rect, kept in zip(rects, ([1], []), strict=True):
            with store.holding(rect) as hold:
                hold.fetch(rect)
            assert sorted(store._entries) == kept
        assert store.n_decoded == 3


def test_many_threads_share_one_decode(path):
    """Sixteen threads that want the same tile at once get it from one decode."""
    with TiffSlide(path) as slide:
        rects = [Rect(3, 3, 20, 20)] * 16
        store = TileStore(slide, 0, rects)
        barrier = threading.Barrier(16)
        results = []

        def want(rect):
            barrier.wait()
            with store.holding(rect) as hold:
                results.append(hold.fetch(rect))

        workers = [threading.Thread(target=want, args=(rect,)) for rect in rects]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert store.n_decoded == 1
        assert all(np.array_equal(results[0], result) for result in results)
        assert not store._entries


def test_kept_tiles_are_not_decoded_again(tmp_path):
    """From one grid to the next, while they are kept, up to their bytes; the same pixels as before."""
    path = write_slide(tmp_path / "s.svs", pyramid(synthetic_pixels(W, H), (1, 2)), SlideSpec(tables=True))
    with open_slide(path, backend="tiff") as slide:
        grid = make_grid(slide, 96, 96, last=(W - 96, H - 96))

        def seen():
            batches = list(map_tiles(slide, grid, lambda batch: (batch.index.copy(), batch.pixels.copy())))
            order = np.argsort(np.concatenate([index for index, _ in batches]))
            return np.concatenate([pixels for _, pixels in batches])[order]

        plain = seen()
        with slide.keeping(1 << 24):
            first = seen()
            for index in range(12):
                corrupt_tile(path, index)
            again = seen()
        after = seen()
        with slide.keeping(1 << 10):  # room for none
            none = seen()

    assert np.array_equal(first, plain)
    assert np.array_equal(again, plain)
    assert len(after) == len(none) < len(plain)  # those of damaged tiles are left out
