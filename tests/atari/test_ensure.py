import subprocess
import sys

import pytest

import atari_collect
from atari_collect.archive import Archive
from atari_collect.dataset import make, make_recipe
from vqvae_core.data import open_dataset


def test_ensure_makes_opens_and_then_only_looks(tmp_path, monkeypatch):
    folder = atari_collect.ensure("SpaceInvaders", tmp_path, 60)
    assert folder == tmp_path / "space_invaders-60"
    dataset = open_dataset(folder)
    assert dataset.name == "space_invaders" and sum(dataset.splits.values()) == 60
    assert set(dataset.splits) == {"train", "valid", "test"} and dataset.splits["train"] >= 40
    monkeypatch.setattr("atari_collect.dataset.make", None)
    assert atari_collect.ensure("space_invaders", tmp_path, 60) == folder


def test_two_thousand_frames_split_well():
    recipe = make_recipe("boxing", 2000)
    assert recipe.episode_frames == 100
    assert make_recipe("boxing", 60_000).episode_frames == 3000  # more than any game of Boxing has


def test_what_the_user_collected_under_the_name_is_kept(tmp_path):
    recipe = make_recipe("boxing", 60, seed=5, frame_skip=2)
    make(tmp_path / "boxing-60", recipe, 60)  # not opened
    folder = atari_collect.ensure("boxing", tmp_path, 60)
    assert Archive(folder).recipe() == recipe
    assert open_dataset(folder).meta["source"]["seed"] == 5


def test_a_folder_of_other_frames_is_refused(tmp_path):
    atari_collect.ensure("boxing", tmp_path, 60)
    (tmp_path / "boxing-60").rename(tmp_path / "boxing-80")
    with pytest.raises(ValueError, match="holds 60 frames of Boxing, not 80 of Boxing"):
        atari_collect.ensure("boxing", tmp_path, 80)
    (tmp_path / "boxing-80").rename(tmp_path / "pong-60")
    with pytest.raises(ValueError, match="holds 60 frames of Boxing, not 60 of Pong"):
        atari_collect.ensure("pong", tmp_path, 60)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_too_few_frames_are_refused_and_nothing_is_written(frames, tmp_path):
    with pytest.raises(ValueError, match=f"frames is {frames}; allowed is an integer >= 3"):
        atari_collect.ensure("boxing", tmp_path, frames)
    assert not list(tmp_path.iterdir())


def test_three_frames_are_enough(tmp_path):
    assert open_dataset(atari_collect.ensure("boxing", tmp_path, 3)).splits == {"train": 1, "valid": 1, "test": 1}


def test_what_is_no_game_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'boxes' is not an Atari game"):
        atari_collect.ensure("boxes", tmp_path, 60)
    assert not list(tmp_path.iterdir())


def test_without_the_emulator_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vqsweep\[atari\]'"):
        atari_collect.ensure("boxing", tmp_path, 60)
    assert not list(tmp_path.iterdir())


def test_several_processes_at_once_make_one(tmp_path):
    code = (
        "import sys, atari_collect, pathlib; from vqvae_core.data import open_dataset;"
        "print(open_dataset(atari_collect.ensure('boxing', pathlib.Path(sys.argv[1]), 100)).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert sum("Boxing: 100 frames" in err for _, err in ended) == 1  # one collected, two waited
