"""Performance requirements, each defined once; topics report figures under these keys."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the value that it must reach.

    Attributes:
        key: Name of the figure in the topics' results.
        what: Description.
        bar: Required value.
        aim: Desired value.
        form: Format, such as "x{:.3g}".
        at_least: True if more is better.
    """

    key: str
    what: str
    bar: float
    aim: float | None
    form: str
    at_least: bool = True

    def is_met(self, value: float) -> bool:
        """Test if a figure meets the requirement."""
        return value >= self.bar if self.at_least else value <= self.bar

    def shown(self, value: float) -> str:
        """Format a figure."""
        return self.form.format(value)


BARS = (
    Bar("stream_vs_openslide", "tile stream against OpenSlide `read_region`, JPEG SVS, 1 thread", 6, 9, "x{:.3g}"),
    Bar("stream_vs_bare", "tile stream against bare simplejpeg decoding of the same tiles", 0.80, 0.95, "{:.2f}"),
    Bar("decoded_twice", "half-tile overlap: compressed tiles decoded more than once", 0, 0, "{:.0f}", at_least=False),
    Bar("read_vs_openslide", "random `Slide.read` of 256 px, both caches empty, CMU-1-Small-Region", 6, 8, "x{:.3g}"),
    Bar("viewer_tile_ms", "viewer: a tile, warm, loopback, median", 30, 10, "{:.2g} ms", at_least=False),
    Bar("viewer_p95_ms", "viewer: a tile with 20 viewers who never pause, 95 %", 200, 100, "{:.3g} ms", at_least=False),
    Bar("first_picture_s", "viewer: first picture, 100 000 x 80 000 px slide", 1, None, "{:.2f} s", at_least=False),
    Bar("viewer_mb", "viewer: memory after 20 viewers", 500, 300, "{:.0f} MB", at_least=False),
    Bar("cnn_vs_eager", "paper CNN against torch eager one by one, all cores", 3.5, 4.5, "x{:.3g}"),
    Bar("slide_vs_released", "whole slide, tile scoring against the authors' code", 5, 6, "x{:.3g}"),
    Bar("share_of_slower", "share of the slower of (read, paper CNN) reached end to end", 0.85, 0.95, "{:.2f}"),
    Bar(
        "features_vs_slower",
        "`features` by EfficientNet-Lite0, 2 threads: share of the slower of reading and encoder",
        0.85,
        0.95,
        "{:.2f}",
    ),
    Bar(
        "features_gpu_vs_slower",
        "`features` by a ViT-L/16 on a GPU, 16 bits: share of the slower of reading and encoder",
        0.85,
        0.95,
        "{:.2f}",
    ),
    Bar("hashi_vs_griddata", "HASHI map update against full-resolution `griddata` cubic", 12, 25, "x{:.3g}"),
    Bar("hashi_dice", "the same: Dice of the two tumour masks", 0.999, None, "{:.4f}"),
    Bar("peak_gb", "peak memory, 100 000 x 80 000 px slide", 1.5, 1.0, "{:.2f} GB", at_least=False),
    Bar("cnn_vs_matmul", "paper CNN alone against matrix products on the same core", 0.80, 0.90, "{:.2f}"),
    Bar("growth", "peak memory growth over 100 slides", 5, 0, "{:.1f} %", at_least=False),
    Bar("exponent", "time against number of tiles, 1 k to 100 k: exponent", 1.02, None, "{:.3f}", at_least=False),
    Bar("start_s", "command start (`he2her2 --help`)", 0.3, 0.15, "{:.2f} s", at_least=False),
    Bar("evaluate_s", "10 000 patients evaluated, with all intervals", 60, None, "{:.0f} s", at_least=False),
    Bar("workers_efficiency", "2 worker processes on 2 cores against twice one on one core", 0.90, 1.0, "{:.2f}"),
    Bar("finished_s", "start of a finished run of 10 000 slides, per 1 000", 2, 1, "{:.2f} s", at_least=False),
    Bar("status_s", "`he2her2 status` of 10 000 slides", 1, 0.5, "{:.2f} s", at_least=False),
    Bar(
        "cohort_exponent",
        "time of a run of 1 k to 10 k slides: exponent",
        1.1,
        None,
        "{:.2f}",
        at_least=False,
    ),
    Bar("peers_tiles", "reading tiles against the best peer, 1 thread", 4, None, "x{:.3g}"),
    Bar("peers_mask", "mask and coordinates: time against the fastest peer", 1, None, "x{:.2f}", at_least=False),
)
