"""A slide unlike anything learned is said to be so, first."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he2her2.config import Config
from he2her2.domain import DOMAIN_FEATURES, domain_of_record, fit_domain, slide_features
from he2her2.errors import WeightsError
from he2her2.models import hashes_of, load_slide_model, read_domain, trained_folder, write_domain
from tests.made_up_runs import MadeUpSlide, write_run
from tests.tissue_slides import tissue_pixels, write_tissue


def population(n, seed, shift=0.0):
    """Slides of one laboratory."""
    rng = np.random.default_rng(seed)
    mean, spread = np.array([200, 150, 190, 25, 30, 25, 1.5, 0.8]), np.array([6, 8, 6, 3, 4, 3, 0.5, 0.2])
    values = rng.normal(mean + shift * spread, spread, (n, len(mean)))
    return [dict(zip(DOMAIN_FEATURES, row, strict=True)) for row in values.tolist()]


def is_unlike(domain, values):
    """Whether a slide is beyond the limit."""
    found = domain.likeness(values)
    assert found is not None
    return found.unlike


@pytest.mark.parametrize("n", [30, 60, 300])
def test_slides_like_the_training_slides_are_let_pass(n):
    """At a level of 95 %, about 5 % of fresh ones are beyond the limit, also where few slides were learned from."""
    domains = [fit_domain(population(n, seed), "x", {}, level=0.95) for seed in range(20)]
    beyond = [is_unlike(d, row) for k, d in enumerate(domains) for row in population(100, 1000 + k)]

    assert np.mean(beyond) < 0.07


def test_slides_of_another_laboratory_are_told():
    """With the features that differ most."""
    domain = fit_domain(population(60, 0), "x", {})
    slide = population(1, 1)[0] | {"blue": 120.0}

    found = domain.likeness(slide)

    assert found is not None
    assert found.unlike
    assert "blue 120 where they have 1" in found.words
    assert "nothing is known" in found.warning


@given(known=st.sets(st.sampled_from(DOMAIN_FEATURES), min_size=1))
def test_what_is_known_of_a_slide_is_compared(known):
    """A slide without scored tiles is compared by its colour."""
    domain = fit_domain(population(60, 0), "x", {})
    slide = {name: value for name, value in population(1, 2)[0].items() if name in known}

    found = domain.likeness(slide)

    assert found is not None
    assert not found.unlike
    assert domain.likeness({}) is None


def test_training_slides_that_are_all_alike_do_not_make_every_other_unlike():
    """A spread of nothing counts as a hundredth of the range."""
    rows = [population(1, 0)[0]] * 40
    slide = {name: value * 1.01 for name, value in rows[0].items()}

    assert not is_unlike(fit_domain(rows, "x", {}), slide)


def test_few_slides_are_no_domain():
    """Nor slides of which something is unknown."""
    with pytest.raises(ValueError, match="too few"):
        fit_domain(population(23, 0), "x", {})
    with pytest.raises(ValueError, match="lack colour or scores"):
        fit_domain([*population(30, 0), {"red": 1.0}], "x", {})


def test_scores_are_summed_up():
    """Mean and spread of the tiles' scores; nothing where there are none."""
    assert "score_mean" not in slide_features((1, 2, 3), (4, 5, 6), (0, 0, 0, 0))
    assert slide_features((1, 2, 3), (4, 5, 6), (1, 0, 0, 3))["score_mean"] == 2.25


@pytest.mark.parametrize(
    "change", [{"mean": [1.0]}, {"features": ["red"] * 8}, {"covariance": [[0.0] * 8] * 8}, {"x": 1}]
)
def test_a_damaged_domain_is_refused(tmp_path, change):
    """One line that names the file."""
    weights = tmp_path / "weights"
    shutil.copytree(trained_folder("bundled"), weights)
    cards = load_slide_model("bundled", Config()).cards
    record = asdict(fit_domain(population(40, 0), "x", hashes_of(cards)))
    assert domain_of_record(json.loads(json.dumps(record))) is not None
    (weights / "domain.json").write_text(json.dumps(record | change))

    with pytest.raises(WeightsError, match=r"domain\.json"):
        read_domain(weights, cards)


def test_the_domain_of_other_weights_is_refused(tmp_path):
    """Their tile scores are not these."""
    cards = load_slide_model("bundled", Config()).cards
    write_domain(tmp_path, fit_domain(population(40, 0), "x", hashes_of(cards) | {"tile_cnn": "0" * 64}))

    with pytest.raises(WeightsError, match="another tile_cnn"):
        read_domain(tmp_path, cards)


def test_a_domain_holds_for_every_aggregator():
    """Colours and scores of tiles come before it."""
    networks = replace(Config().networks, aggregator="mean")

    model = load_slide_model("bundled", replace(Config(), networks=networks))

    assert model.domain is not None


def textures(n, seed, side=0.0):
    """Textures of n slides that differ in two directions, and a little in all; `side` lies beyond them."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0, 0.1, (n, 20))
    found[:, :2] += rng.normal(0, 3, (n, 2))
    found[:, 7] += side
    return found.tolist()


def test_texture_beyond_what_training_slides_show_is_told():
    """Not how far along the directions in which they differ anyhow, but beyond them; colour counts beside it."""
    domain = fit_domain(population(40, 0), "x", {}, textures=textures(40, 0))
    assert domain.texture is not None
    assert domain.texture.limit == pytest.approx(1.5 * 0.1 * np.sqrt(20 - 8), rel=0.6)
    slide = population(1, 5)[0]

    fresh = [domain.likeness(slide, texture) for texture in textures(200, 1)]
    other = [domain.likeness(slide, texture) for texture in textures(200, 1, side=2.0)]

    assert np.mean([found is not None and found.unlike for found in fresh]) <= 0.02
    assert all(found is not None and found.unlike for found in other)
    assert other[0] is not None
    assert "looks otherwise to the tumour network" in other[0].warning
    by_colour = domain.likeness(slide | {"blue": 90.0}, textures(1, 2)[0])
    assert by_colour is not None
    assert "blue 90" in by_colour.words
    assert domain_of_record(json.loads(json.dumps(asdict(domain)))) == domain


def test_texture_of_another_network_or_of_some_slides_only_is_left_out():
    """Then colour alone decides."""
    slide = population(1, 5)[0]
    whole = fit_domain(population(40, 0), "x", {}, textures=textures(40, 0))

    some = fit_domain(population(40, 0), "x", {}, textures=[*textures(39, 0), ()])

    assert some.texture is None
    assert whole.likeness(slide, [9.0] * 19) == whole.likeness(slide)
    assert whole.likeness(slide, ()) == whole.likeness(slide)


def test_predict_says_it_first(command_line, tmp_path):
    """On the terminal, in the table and in the record; also where the slide cannot be predicted."""
    weights, slide = tmp_path / "weights", write_tissue(tmp_path / "s.svs", tissue_pixels(3072, 0.95))
    shutil.copytree(trained_folder("bundled"), weights)
    cards = load_slide_model("bundled", Config()).cards
    quick = ("adaptive.iterations=2", "adaptive.points=20", "adaptive.threshold=0.001")  # noise is no tumour
    options = ("--weights", weights, "--threads", "2", *(word for setting in quick for word in ("--set", setting)))
    write_domain(weights, fit_domain(population(60, 0, shift=20), "x", hashes_of(cards)))

    code, out, _ = command_line("predict", slide, "--out", tmp_path / "run", *options)
    record = json.loads((tmp_path / "run" / "slides" / "s" / "prediction.json").read_text())

    assert code == 0
    assert out.startswith("s: UNLIKE the training slides")
    assert record["likeness"]["distance"] > record["likeness"]["limit"]
    assert record["warnings"][0].startswith("unlike the training slides")
    small = write_tissue(tmp_path / "small.svs", tissue_pixels(1024, 0.5))
    err = command_line("predict", small, "--out", tmp_path / "run", *options)[2]
    assert err.startswith("he2her2: small: unlike the training slides")


def test_a_run_gives_the_domain_of_its_slides(command_line, tmp_path):
    """`weights domain` stores it beside the weights that made the run, and nobody else's."""
    weights = tmp_path / "weights"
    shutil.copytree(trained_folder("bundled"), weights)
    cards = load_slide_model("bundled", Config()).cards
    notes = [card.summary for card in cards.values()]
    rng = np.random.default_rng(0)
    slides = [
        MadeUpSlide(f"s{k}", probability=0.5, colour=tuple(rng.normal((200, 150, 190), 5).tolist())) for k in range(30)
    ]

    code, out, _ = command_line(
        "weights", "domain", write_run(tmp_path / "run", slides, weights=notes), "--weights", weights
    )

    assert code == 0
    assert "30 slides of run run" in out
    domain = read_domain(weights, cards)
    assert domain is not None
    assert domain.slides == 30
    other = write_run(tmp_path / "other", slides)
    assert "are not the weights" in command_line("weights", "domain", other, "--weights", weights)[2]
