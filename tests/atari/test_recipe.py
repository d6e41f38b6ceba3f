from collections import Counter

import numpy as np
import pytest

from atari_collect.recipe import Draws, Recipe, default_episode_frames, split_of

BOXING = Recipe("Boxing")


def test_the_draws_are_those_of_every_machine_for_ever():
    draws = Draws(BOXING, 0, 0)
    assert draws.below(18, 10).tolist() == [12, 1, 15, 11, 9, 9, 3, 11, 17, 15]
    assert draws.happens(0.25, 8).tolist() == [False, False, True, True, False, False, False, False]


def test_seed_game_episode_and_purpose_each_give_another_stream():
    def first(recipe, episode, purpose):
        return tuple(Draws(recipe, episode, purpose).below(1 << 30, 2))

    streams = [
        first(BOXING, 0, 0),
        first(BOXING, 0, 1),
        first(BOXING, 1, 0),
        first(Recipe("Pong"), 0, 0),
        first(Recipe("Boxing", seed=1), 0, 0),
    ]
    assert len(set(streams)) == 5
    assert first(Recipe("Boxing", frame_skip=1), 0, 0) == streams[0]


def test_draws_are_uniform():
    counts = np.bincount(Draws(BOXING, 0, 0).below(18, 180_000), minlength=18)
    assert counts.min() > 9_600 and counts.max() < 10_400  # four standard deviations
    assert abs(Draws(BOXING, 0, 1).happens(0.25, 100_000).mean() - 0.25) < 0.006


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", -1), ("frame_skip", 0), ("episode_frames", 0), ("stickiness", 1.0), ("stickiness", -0.1)],
)
def test_an_impossible_recipe_names_field_value_and_what_is_allowed(field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value}; allowed is"):
        Recipe("Boxing", **{field: value})


def test_differences_are_named():
    assert BOXING.differences(Recipe("Boxing", seed=3, frame_skip=1)) == "seed 0 -> 3, frame_skip 4 -> 1"


@pytest.mark.parametrize("frames", [3, 19, 20, 2000, 60_000, 10_000_000])
def test_any_number_of_frames_comes_from_enough_episodes(frames):
    episodes = frames // default_episode_frames(frames)
    assert episodes >= min(frames, 20)


@pytest.mark.parametrize("episodes", [3, 20, 34, 600])
def test_no_split_is_empty_and_train_has_most(episodes):
    counts = Counter(split_of(episode) for episode in range(episodes))
    assert counts["valid"] >= 1 and counts["test"] >= 1
    assert episodes == 3 or counts["train"] >= 0.8 * episodes
