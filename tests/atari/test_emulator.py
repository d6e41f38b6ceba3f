import dataclasses
import sys

import ale_py
import numpy as np
import pytest

from atari_collect.emulator import Emulator
from atari_collect.episode import Player
from atari_collect.frames import screens
from atari_collect.policies import executed_actions, find_policy
from atari_collect.recipe import Recipe
from atari_collect.shard import read_arrays, read_row, write

SHORT = Recipe("Boxing", episode_frames=60)


def played(recipe, tmp_path, episode=0):
    """An episode's screens, actions and rewards."""
    shard = Player(recipe).play(episode)
    write(tmp_path, shard)
    row = read_row(tmp_path, episode)
    changed, pieces, actions, rewards = read_arrays(tmp_path, row, "changed", "pieces", "actions", "rewards")
    return screens(changed, pieces, *row["screen"]), actions, rewards, row


@pytest.mark.parametrize("skip", [1, 4])
def test_screens_and_rewards_are_gymnasiums(skip, tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register_envs(ale_py)
    recipe = Recipe("Boxing", frame_skip=skip, stickiness=0.0, episode_frames=150)
    ours, actions, rewards, row = played(recipe, tmp_path)
    env = gymnasium.make("ALE/Boxing-v5", frameskip=skip, repeat_action_probability=0.0, obs_type="rgb")
    env.reset(seed=0)
    palette = np.zeros((256, 3), np.uint8)
    palette[[int(i) for i in row["palette"]]] = list(row["palette"].values())
    for screen, done, reward in zip(ours, actions, rewards, strict=True):
        assert len(set(done.tolist())) == 1
        theirs, their_reward, *_ = env.step(int(done[0]))  # Boxing has all 18 actions, in ALE's order
        assert np.array_equal(palette[screen], theirs)
        assert reward == their_reward
    env.close()


# Those that need both kinds of reset, and one of another height.
@pytest.mark.parametrize("game", ["Tetris", "Qbert", "Pitfall2", "Tennis", "AirRaid"])
def test_an_episode_does_not_depend_on_what_was_played_before(game):
    recipe = Recipe(game, episode_frames=100)
    first = Player(recipe).play(3)
    player = Player(recipe)
    player.play(1)
    player.play(2)
    assert player.play(3) == first
    assert player.play(3) == first


def test_sticky_actions_repeat_the_last_one_executed():
    recipe = dataclasses.replace(SHORT, episode_frames=30_000, stickiness=0.25)
    emulator = Emulator("Boxing")
    done = np.array(list(executed_actions(recipe, 0, emulator, None)))
    wanted = np.array(list(executed_actions(dataclasses.replace(recipe, stickiness=0.0), 0, emulator, None)))
    assert done.shape == wanted.shape == (30_000, 4)
    assert (wanted == wanted[:, :1]).all()
    flat, target = done.reshape(-1), wanted.reshape(-1)
    before = np.concatenate([[0], flat[:-1]])
    assert ((flat == target) | (flat == before)).all()
    # Of the frames where it makes a difference, a quarter sticks.
    differs = before != target
    assert abs((flat[differs] == before[differs]).mean() - 0.25) < 0.02


def test_noop_does_nothing(tmp_path):
    _, actions, rewards, _ = played(dataclasses.replace(SHORT, policy="noop"), tmp_path)
    assert actions.shape == (60, 4) and not actions.any() and rewards.shape == (60,)


POLICY = """
def careful(moment):
    assert moment.rgb.shape == (210, 160, 3) and moment.ram.shape == (128,)
    return moment.actions[moment.draw(2)] if moment.step % 2 else 5

def wrong(moment):
    return 99
"""


@pytest.fixture
def policies(tmp_path, monkeypatch):
    (tmp_path / "my_policies.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_policies", None)


@pytest.mark.usefixtures("policies")
def test_a_policy_of_the_users(tmp_path):
    recipe = dataclasses.replace(SHORT, policy="my_policies:careful", stickiness=0.0, frame_skip=2)
    _, actions, _, _ = played(recipe, tmp_path)
    assert (actions[::2] == 5).all() and set(actions[1::2].ravel().tolist()) == {0, 1}
    assert (actions[:, 0] == actions[:, 1]).all()
    again = Player(recipe).play(0)
    assert again == Player(recipe).play(0)
    assert len(find_policy(recipe.policy)[1]) == 64


@pytest.mark.usefixtures("policies")
def test_a_policy_that_answers_nonsense_is_named():
    with pytest.raises(ValueError, match=r"policy my_policies:wrong answered 99; allowed is one of \(0, 1"):
        Player(dataclasses.replace(SHORT, policy="my_policies:wrong")).play(0)


@pytest.mark.parametrize("name", ["greedy", "nowhere:policy", "json:nothing", "json:__name__"])
def test_a_policy_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=rf"policy (is )?'{name}'"):
        find_policy(name)


def test_replaying_the_executed_actions_gives_the_episode_again():
    player = Player(SHORT)
    rows = list(executed_actions(SHORT, 2, player.emulator, None))
    assert player.replay(2, rows) == player.play(2)


def test_a_game_over_ends_the_episode(tmp_path):
    recipe = Recipe("Pong", policy="noop", frame_skip=16, episode_frames=3000)
    ours, _, rewards, row = played(recipe, tmp_path)
    assert row["game_over"] and len(ours) == row["frames"] < 3000
    assert row["reward"] == rewards.sum() == -21


def test_colours_that_flash_between_two_looks_are_learned_by_playing_again(monkeypatch):
    recipe = Recipe("Kaboom", episode_frames=250)
    asked = []
    plain = Emulator.play
    monkeypatch.setattr(Emulator, "play", lambda self, rows, writer: asked.append(1) or plain(self, rows, writer))
    careful = [Player(recipe).play(episode) for episode in range(3)]  # the first of a player looks at every screen
    assert len(asked) == 3
    player = Player(recipe)
    assert [player.play(episode) for episode in range(3)] == careful
    assert len(asked) > 6  # some in vain
    asked.clear()
    assert [player.play(episode) for episode in range(3)] == careful
    assert len(asked) == 3  # what is known stays known
