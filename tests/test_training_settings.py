"""Settings of trainings: what the paper prints, what the released code did, and how they are overridden."""

from dataclasses import asdict

import pytest

from he2her2.config import load_config
from he2her2.errors import ConfigError
from he2her2.training.settings import TRAININGS, Augmentation, load_training


def test_the_paper_s_tile_training():
    """Section 4.2: Adam 1e-5, 200 epochs, batches of 128, 7 591 and 624 tiles a class, nothing varied."""
    _, tiles = load_training("tiles", "paper")

    assert (tiles.learning_rate, tiles.epochs, tiles.batch_size) == (1e-5, 200, 128)
    assert (tiles.tiles_per_class, tiles.val_tiles_per_class) == (7591, 624)
    assert (tiles.augment, tiles.crop_px, tiles.weight_decay) == (Augmentation(), None, 0)
    assert tiles.schedule == "constant"


def test_the_paper_s_slide_training():
    """Section 4.3: Adam 1e-5, 150 epochs, one slide a step, the first of equally good epochs."""
    _, slides = load_training("slides", "paper")

    assert (slides.learning_rate, slides.epochs, slides.accumulate) == (1e-5, 150, 1)
    assert (slides.keep, slides.alternate, slides.beta_start) == ("first", False, None)


def test_the_released_code_s_slide_training():
    """Adam 1e-3, gradients of two slides, classes in turn, the last of equally good epochs (PAPER_FACTS)."""
    _, slides = load_training("slides", "released-code")

    assert (slides.learning_rate, slides.accumulate, slides.alternate, slides.keep) == (1e-3, 2, True, "last")


@pytest.mark.parametrize("kind", TRAININGS)
@pytest.mark.parametrize("preset", ["default", "paper", "released-code"])
def test_every_preset_has_every_training(kind, preset):
    """And the method's own settings of that preset come with it."""
    config, training = load_training(kind, preset)

    assert config == load_config(preset)
    assert training == TRAININGS[kind][preset]
    assert asdict(training)


def test_one_file_holds_both(tmp_path):
    """The method's settings and, in its table `training`, the training's; prediction takes the same file."""
    file = tmp_path / "own.toml"
    file.write_text('preset = "paper"\n[selection]\nn_tiles = 7\n[training]\nepochs = 3\naugment.stain = 0.5\n')

    config, training = load_training("tiles", "default", file, ["training.epochs=4", "selection.n_tiles=8"])

    assert (config.preset, config.selection.n_tiles) == ("paper", 8)
    assert (training.epochs, training.augment, training.batch_size) == (4, Augmentation(stain=0.5), 128)
    assert load_config(file=file).selection.n_tiles == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.speed=3", ["training.speed", "no setting"]),
        ("training.epochs=0", ["training.epochs", "greater than 0"]),
        ("training.augment.stain=2", ["training.augment.stain", "less than or equal"]),
        ("training=3", ["training.epochs=3"]),
        ("epochs=3", ["epochs", "no setting"]),
        ("preset=mine", ["mine", "default, paper, released-code"]),
    ],
)
def test_a_mistake_is_one_clear_line(override, words):
    """The message names the key and what it may be."""
    with pytest.raises(ConfigError) as caught:
        load_training("tumour", overrides=[override])

    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("tiles", "crop_px"), ("features", "max_tiles"), ("slides", "aggregator_rate"), ("slides", "beta_start")],
)
def test_what_may_be_none_is_none(tmp_path, kind, setting):
    """Its own words name the value, for which TOML has no word."""
    (tmp_path / "c.toml").write_text(f'[training]\n{setting} = "none"\n')

    assert getattr(load_training(kind, "default", None, [f"training.{setting}=none"])[1], setting) is None
    assert getattr(load_training(kind, "default", tmp_path / "c.toml")[1], setting) is None


def test_prediction_does_not_take_training_settings():
    """A file may hold them, but who sets one for `predict` is mistaken."""
    with pytest.raises(ConfigError, match="training"):
        load_config(overrides=["training.epochs=3"])
