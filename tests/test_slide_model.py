"""The three networks together: loaded by one word, checked against the settings."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from he2her2.config import Config, Networks, Scoring, Selection, chosen_keys, load_config
from he2her2.errors import ConfigError, WeightsError
from he2her2.models import (
    UNTRAINED_NOTICE,
    Card,
    RankingSettings,
    load_slide_model,
    settings_of_training,
    softmax,
    weights_source,
)
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from tests.made_up_bags import bag_of_scores

CONFIG = Config()
RANKING = RankingSettings(top_fraction=0.15, beta=1.0)
NOTICE = "trained on toys: no clinical meaning"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for spec in (LITE0_TUMOUR_CNN, STRIDED_TILE_CNN, PAPER_MLP):
        ranking = RANKING if spec is PAPER_MLP else None
        card = Card(spec, trained=True, notice=NOTICE, ranking=ranking)
        save_weights(folder / spec.role, card, initial_weights(spec, seed=1))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A folder of all three networks' weights that a test may break."""
    return shutil.copytree(original, tmp_path / "weights")


def some_scores(n=300):
    return np.random.default_rng(0).random(n) * 3


def probability(model, scores):
    """Of a slide whose tiles, no more than are selected, have these scores."""
    return model.aggregator(bag_of_scores(scores)).probability


def test_untrained_weights_by_seed():
    """All three networks run, say that they are untrained, and give a probability."""
    model = load_slide_model("untrained:7", CONFIG)

    assert model.notices == (UNTRAINED_NOTICE,)
    assert [card.seed for card in model.cards.values()] == [7, 7, 7]
    assert list(model.cards) == ["tumour_cnn", "tile_cnn", "aggregator"]
    assert model.tile_cnn(np.zeros((2, 256, 256, 3), np.uint8)).shape == (2, 4)
    assert model.tumour_cnn(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 2)
    assert 0 < probability(model, some_scores()) < 1


def test_untrained_weights_follow_their_seed():
    """The same seed gives the same probability, another one another."""
    first, again, other = (load_slide_model(f"untrained:{seed}", CONFIG) for seed in (1, 1, 2))
    scores = some_scores()

    assert probability(first, scores) == probability(again, scores)
    assert probability(first, scores) != probability(other, scores)


def test_a_folder_gives_the_networks_in_it(folder):
    """A saved model computes what the weights in it compute, and shows its notice once."""
    model, scores = load_slide_model(folder, CONFIG), some_scores()
    weights = initial_weights(PAPER_MLP, seed=1)
    x = np.sort(scores)[::-1]
    for i in range(4):
        x = weights[f"mlp_layers.{i}.weight"] @ x + weights[f"mlp_layers.{i}.bias"]
        x = np.maximum(x, 0) if i < 3 else x

    assert model.notices == (NOTICE,)
    assert probability(model, scores) == pytest.approx(softmax(x)[1], abs=1e-6)
    assert all(card.summary["sha256"] for card in model.cards.values())


def test_the_probability_does_not_depend_on_the_order_of_scores():
    """The aggregator ranks the scores itself."""
    model, scores = load_slide_model("untrained:7", CONFIG), some_scores()

    assert probability(model, scores) == probability(model, scores[::-1])


@pytest.mark.parametrize("aggregator", ["mean", "median", "released-median"])
def test_a_baseline_needs_no_weights(folder, aggregator):
    """Mean and median decide without an aggregator's folder."""
    shutil.rmtree(folder / "aggregator")
    model = load_slide_model(str(folder), replace(CONFIG, networks=Networks(aggregator=aggregator)))

    assert probability(model, np.full(300, 2.8)) == 1.0
    assert probability(model, np.full(300, 1.1)) == 0.0
    assert model.cards["aggregator"].notice == ""


def test_untrained_mlp_eats_as_many_tiles_as_the_settings_select():
    """A demo may select fewer tiles than the paper."""
    model = load_slide_model("untrained:0", replace(CONFIG, selection=Selection(n_tiles=40)))

    assert 0 < probability(model, some_scores(40)) < 1


@pytest.mark.parametrize("weights", ["untrained", "untrained:", "untrained:x", "untrained:-1", "untrained:1.5"])
def test_untrained_weights_need_a_seed(weights):
    """The message shows the form."""
    with pytest.raises(WeightsError, match=r"untrained weights need a seed; write untrained:SEED, such as untrained:0"):
        weights_source(weights)


def test_a_word_that_is_no_folder(tmp_path):
    """The message says what may stand there."""
    with pytest.raises(
        WeightsError, match=r"there is no such folder; give a folder with tumour_cnn/, .* or untrained:"
    ):
        weights_source(str(tmp_path / "nowhere"))


def test_swapped_folders(folder):
    """Each folder is checked for the network that belongs into it."""
    (folder / "tile_cnn").rename(folder / "x")
    (folder / "tumour_cnn").rename(folder / "tile_cnn")
    (folder / "x").rename(folder / "tumour_cnn")

    with pytest.raises(WeightsError, match=r"are those of a tile_cnn \(strided-tile-cnn\), a tumour_cnn is wanted"):
        load_slide_model(str(folder), CONFIG)


def test_a_missing_network(folder):
    """The message names the folder that is missing."""
    shutil.rmtree(folder / "tile_cnn")

    with pytest.raises(WeightsError, match="tile_cnn: there is no such folder"):
        load_slide_model(str(folder), CONFIG)


def test_weights_of_another_network_than_the_settings_name(folder):
    """The message names both networks and how to choose."""
    with pytest.raises(
        WeightsError,
        match=r"holds a strided-tile-cnn where the settings want a paper-tile-cnn; use .* networks\.tile_cnn=strided",
    ):
        load_slide_model(str(folder), replace(CONFIG, networks=Networks(tile_cnn="paper-tile-cnn")))


def test_a_network_that_does_not_exist():
    """A typing error in the settings is told with the names that exist."""
    with pytest.raises(ConfigError, match=r"networks.tile_cnn: there is no 'tiny'; choose one of strided-tile-cnn"):
        load_slide_model("untrained:0", replace(CONFIG, networks=Networks(tile_cnn="tiny")))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"selection": Selection(n_tiles=100)}, "selection.n_tiles is 100, trained with 300"),
        ({"selection": Selection(top_fraction=0.1)}, "selection.top_fraction is 0.1, trained with 0.15"),
        ({"scoring": Scoring(beta=10.0)}, "scoring.beta is 10.0, trained with 1.0"),
    ],
)
def test_settings_that_the_aggregator_was_not_trained_with(folder, settings, found):
    """Both values are told, and the settings that fit."""
    with pytest.raises(ConfigError, match=f"{found}.*; use --set ") as caught:
        load_slide_model(str(folder), replace(CONFIG, **settings))

    assert "\n" not in str(caught.value)


def save_small(folder):
    """An aggregator of 30 tiles, of the best half."""
    spec = replace(PAPER_MLP, n_tiles=30)
    card = Card(spec, trained=True, notice=NOTICE, ranking=RankingSettings(0.5, 10.0, "released"))
    shutil.rmtree(folder / "aggregator")
    save_weights(folder / "aggregator", card, initial_weights(spec, seed=1))


def test_weights_bring_their_own_selection(folder):
    """Own weights of 30 tiles need no settings; what the user sets stays, and is refused where it does not fit."""
    save_small(folder)

    own = settings_of_training(CONFIG, str(folder), frozenset())
    chosen = load_config(overrides=["selection.n_tiles=300"])
    kept = settings_of_training(chosen, str(folder), chosen_keys(None, ["selection.n_tiles=300"]))

    assert own == replace(CONFIG, selection=Selection(0.5, 30, "released"), scoring=Scoring(10.0))
    assert load_slide_model(str(folder), own).aggregator.fixes_n_tiles
    assert kept.selection == Selection(0.5, 300, "released")
    with pytest.raises(ConfigError, match=r"selection\.n_tiles is 300, trained with 30"):
        load_slide_model(str(folder), kept)


def test_settings_of_weights_that_fit_stay_as_they_are(folder):
    """Trained as the defaults, untrained, or a rule without weights: the same settings, and the same digest."""
    mean = replace(CONFIG, networks=Networks(aggregator="mean"))

    for config, weights in ((CONFIG, str(folder)), (CONFIG, "bundled"), (CONFIG, "untrained:0"), (mean, str(folder))):
        found = settings_of_training(config, weights, frozenset())
        assert found == config
        assert found.digest() == config.digest()


def test_an_aggregator_whose_card_hides_its_training(folder):
    """Without top_fraction and beta nothing can be checked, so it is refused."""
    save_weights(folder / "aggregator", Card(PAPER_MLP, trained=True, notice=""), initial_weights(PAPER_MLP, seed=1))

    with pytest.raises(WeightsError, match="does not say top_fraction and beta"):
        load_slide_model(str(folder), CONFIG)
