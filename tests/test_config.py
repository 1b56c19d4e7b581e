"""Settings: presets, files, overrides, and what is said of mistakes."""

from dataclasses import asdict, replace

import pytest

from he2her2.config import PRESETS, Config, Runtime, Selection, load_config, to_toml
from he2her2.errors import ConfigError


def test_selection_needs_two_thousand_tiles():
    """M / 0.15 tiles are needed so that 15 % of them are M (paper, 3.3)."""
    assert Selection().min_tiles == 2000
    assert Selection(top_fraction=0.1, n_tiles=7).min_tiles == 70


@pytest.mark.parametrize(("preset", "n"), [("default", 2000), ("paper", 2000), ("released-code", 4500)])
def test_presets_ask_for_their_number_of_tiles(preset, n):
    """The released code overlaps tiles until there are 4 500."""
    assert load_config(preset).min_tiles == n


def test_a_file_overrides_the_preset_and_set_overrides_the_file(tmp_path):
    """Each layer replaces single values of the one below."""
    file = tmp_path / "own.toml"
    file.write_text('preset = "paper"\n[selection]\nn_tiles = 10\ntop_fraction = 0.5\n')

    config = load_config("default", file, ["selection.n_tiles=20", "runtime.backend=openslide"])

    assert config == load_config("default", str(file), ["selection.n_tiles=20", "runtime.backend=openslide"])
    assert config.preset == "paper"
    assert config.selection == Selection(top_fraction=0.5, n_tiles=20)
    assert config.runtime.backend == "openslide"
    assert config.networks == PRESETS["paper"].networks
    assert load_config(overrides="threshold=0.4") == load_config(overrides=["threshold=0.4"])


@pytest.mark.parametrize("preset", PRESETS)
def test_printed_settings_read_back(preset, tmp_path):
    """`he2her2 config` prints what `--config` takes, whatever the shell writes it in; also what has no value."""
    file = tmp_path / "printed.toml"
    settings = replace(PRESETS[preset], runtime=Runtime(encoder="/data/\U0001f52c\x7f"))
    without = load_config(preset, None, ["adaptive.threshold=none", "tiling.min_tiles=none", "threshold=none"])

    for printed, encoding in ((settings, "utf-8"), (without, "utf-8-sig"), (without, "utf-16")):
        file.write_text(to_toml(printed), encoding)
        assert load_config("default", file) == printed


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("selection.m=3", ["selection.m", "no setting"]),
        ("selection.n_tiles=many", ["selection.n_tiles", "integer"]),
        ("selection=3", ["selection"]),
        ("threshold=2", ["threshold", "less than or equal to 1"]),
        ("threshold.x=2", ["threshold", "number"]),
        ("n_tiles", ["key=value"]),
        ("preset=mine", ["mine", "default, paper, released-code"]),
    ],
)
def test_a_mistaken_override_is_one_clear_line(override, words):
    """The message names the key and what it may be."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])

    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_is_named(tmp_path):
    """So are a file that is missing and one that is binary."""
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("a = [")
    binary.write_bytes(b"\xff\xfe\x00")

    for file in (broken, binary, tmp_path / "missing.toml"):
        with pytest.raises(ConfigError, match=file.name):
            load_config(file=file)


def test_the_digest_ignores_how_the_work_is_done():
    """Threads and batch size change no result; every other setting may."""
    config = Config()

    assert replace(config, runtime=Runtime(threads=7)).digest() == config.digest()
    assert replace(config, selection=Selection(n_tiles=299)).digest() != config.digest()
    assert replace(config, runtime=Runtime(precision="mixed")).digest() != config.digest()  # these change numbers
    assert replace(config, runtime=Runtime(backend="openslide")).digest() != config.digest()
    assert len({preset.digest() for preset in PRESETS.values()}) == len(PRESETS)


def test_settings_that_came_later_leave_earlier_runs_as_they_are():
    """The digest of the default preset of then is what it was before them; set otherwise, they count."""
    before = ["adaptive.half_turn=false", "adaptive.least_tissue=0"]
    then = load_config(overrides=[*before, "adaptive.threshold=0.24", "networks.tumour_cnn=compact-tumour-cnn"])
    assert then.digest() == "c3b4b983ff1b16d63cead1054091e91b2e6cf96b75953c998788582af7c1d67d"
    for override in ("adaptive.anchor=corner", *before, "selection.spacing=released"):
        assert load_config(overrides=[override]).digest() != Config().digest()


@pytest.mark.parametrize("preset", ["paper", "released-code"])
def test_exact_presets_draw_every_pixel_of_the_map_and_see_a_patch_once(preset):
    """A coarse map differs from the drawn one in 3 % of the tumour's pixels; only the default takes it, and turns.

    Nor do they take more samples where there is little tissue.
    """
    exact, ours = PRESETS[preset].adaptive, PRESETS["default"].adaptive
    assert (exact.coarse, exact.half_turn, exact.least_tissue) == (1, False, 0)
    assert (ours.coarse, ours.half_turn) == (8, True)


def test_settings_are_plain_data():
    """They go to JSON and back."""
    assert asdict(Config())["selection"] == {"top_fraction": 0.15, "n_tiles": 300, "spacing": "even"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("selection.n_tiles=true", "selection.n_tiles: is a number"),
        ("threshold=false", "threshold: is a number"),
        ("threshold=0.4\nselection.n_tiles=3", "several lines"),
        ("adaptive.iterations=1000000", "adaptive.iterations"),
        (f"selection.n_tiles=1{'0' * 400}", "selection.n_tiles"),
        (f"selection.n_tiles=1{'0' * 5000}", "selection.n_tiles"),
        (f"selection.n_tiles={'[' * 5000}", "selection.n_tiles"),
        ("tiling.min_tiles=true", "tiling.min_tiles"),
        ("adaptive=3", "adaptive: is a group of settings; set one of them"),
        ("quality.apply=maybe", "quality.apply: must be true or false$"),
    ],
)
def test_what_is_no_setting_is_one_line(override, words):
    """A truth for a number, several settings in one, numbers without measure, nesting without end, a group."""
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(overrides=[override])

    assert len(str(caught.value).splitlines()) == 1


def test_truths_stay_truths():
    """Switches are set by true and false."""
    assert load_config(overrides=["quality.apply=false"]).quality.apply is False


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, f"threshold = 1{'0' * 5000}", "a = 'b"])
def test_a_file_that_is_no_toml_is_one_line(tmp_path, text):
    """However it is broken."""
    (tmp_path / "x.toml").write_text(text)

    with pytest.raises(ConfigError, match=r"x\.toml"):
        load_config(file=tmp_path / "x.toml")


def test_a_huge_preset_is_cut_short(tmp_path):
    """A name of 100 000 letters is no line for people."""
    file = tmp_path / "a.toml"
    file.write_text(f'preset = "{"x" * 100_000}"')

    with pytest.raises(ConfigError) as caught:
        load_config(file=file)

    assert len(str(caught.value)) < 500
