import json
import random
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from atari_collect import shard
from atari_collect.archive import Archive, Manifest
from atari_collect.collect import InProcess, collect
from atari_collect.dataset import make, make_recipe
from atari_collect.opened import read_meta
from atari_collect.plan import Plan
from atari_collect.resize import View
from vqvae_core.data import open_dataset

FRAMES = 240


def files(folder):
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(*lengths):
    return {i: {"episode": i, "frames": length} for i, length in enumerate(lengths) if length}


def test_the_core_opens_what_is_written(finished):
    dataset = open_dataset(finished)
    assert dataset.name == "boxing" and dataset.shape == (84, 84, 3) and dataset.class_names == []
    assert dataset.splits == {"train": 192, "valid": 24, "test": 24}
    for split, count in dataset.splits.items():
        assert dataset.images(split).shape == (count, 84, 84, 3) and dataset.images(split).dtype == np.uint8
        assert dataset.labels(split).dtype == np.int64 and (dataset.labels(split) == -1).all()
    source = dataset.meta["source"]
    assert source["game"] == "Boxing" and source["frames"] == FRAMES and source["dataset_hash"]


@pytest.mark.skipif(version("ale-py") != "0.12.1", reason="another emulator may draw other pixels")
def test_the_bytes_are_those_of_every_machine(finished):
    assert open_dataset(finished).fingerprint == "79b3fa0f544e43fe"
    assert (
        Archive(finished).manifest().dataset_hash == "9e7f8ac2492f974e486f346f19f4af8fd9acd9aa48cdde2c686e83ccc963cad3"
    )


def test_splits_hold_whole_episodes_of_like_content(finished):
    manifest = Archive(finished).manifest()
    assert [row["split"] for row in manifest.episodes[:4]] == ["train", "valid", "test", "train"]
    dataset = open_dataset(finished)
    means = [dataset.images(split).mean() for split in dataset.splits]
    assert max(means) - min(means) < 2
    # The first frame of valid is the first of episode 1, and episodes of one recipe begin alike.
    assert np.array_equal(dataset.images("valid")[0, 60:], dataset.images("train")[0, 60:])


def test_the_order_of_episodes_changes_nothing(finished, tmp_path):
    archive = Archive(tmp_path / "boxing")
    recipe = make_recipe("boxing", FRAMES)
    archive.begin(recipe)
    worker = InProcess(recipe, archive.episodes)
    for episode in random.Random(0).sample(range(22), 22):  # two more than needed
        worker.submit(episode)
        worker.wait()
    make(archive.folder, recipe, FRAMES, View())
    assert files(archive.folder) == files(finished)


def test_a_second_run_does_nothing(collection):
    before = {path: path.stat().st_mtime_ns for path in collection.rglob("*.*") if path.name != ".lock"}
    make(collection, make_recipe("boxing", FRAMES), FRAMES, View())
    assert {path: path.stat().st_mtime_ns for path in collection.rglob("*.*") if path.name != ".lock"} == before


def test_what_is_missing_is_made_again(collection, finished):
    archive = Archive(collection)
    archive.drop(3)
    shard.row_path(archive.episodes, 5).unlink()  # killed between data and sidecar
    (archive.episodes / ".00007.zst.123-abc.tmp").write_bytes(b"half")
    (archive.root / "manifest.json").unlink()
    (collection / "dataset.json").unlink()
    (collection / ".opening-123").mkdir()
    make(collection, make_recipe("boxing", FRAMES), FRAMES, View())
    assert files(collection) == files(finished)


def test_more_frames_keep_the_episodes_that_are_there(tmp_path):
    recipe = make_recipe("boxing", 60, episode_frames=16)
    few = make(tmp_path / "boxing", recipe, 60, View())
    assert [row["take"] for row in few.episodes] == [16, 16, 16, 12]
    times = [shard.data_path(Archive(tmp_path / "boxing").episodes, i).stat().st_mtime_ns for i in range(4)]
    more = make(tmp_path / "boxing", recipe, 90, View())
    assert [row["take"] for row in more.episodes] == [16, 16, 16, 16, 16, 10]
    assert times == [shard.data_path(Archive(tmp_path / "boxing").episodes, i).stat().st_mtime_ns for i in range(4)]
    assert more == make(tmp_path / "new", recipe, 90, View())
    assert open_dataset(tmp_path / "boxing").fingerprint == open_dataset(tmp_path / "new").fingerprint
    with pytest.raises(ValueError, match="holds 90 frames, not 60"):
        make(tmp_path / "boxing", recipe, 60, View())


def test_another_view_replaces_the_arrays_and_not_the_archive(collection):
    before = files(collection / "archive")
    mapped = open_dataset(collection).images("train")
    first = mapped[0].copy()
    make(collection, make_recipe("boxing", FRAMES), FRAMES, View(42, 42, True))
    assert open_dataset(collection).images("train").shape == (192, 42, 42, 1)
    assert files(collection / "archive") == before
    assert np.array_equal(mapped[0], first)  # who had mapped the old arrays keeps them


def test_too_few_episodes_to_split_are_refused(tmp_path):
    with pytest.raises(ValueError, match="30 frames are 2 episodes, too few for train, valid and test"):
        make(tmp_path / "boxing", make_recipe("boxing", 30, episode_frames=20), 30, View())


def test_a_plan_counts_only_what_stands_in_order():
    plan = Plan(rows(10, 0, 10), 25, 10)
    assert plan.frames == 20 and plan.complete() is None
    assert plan.next(set()) == 1
    plan.add({"episode": 1, "frames": 10})
    assert [row["episode"] for row in plan.complete()] == [0, 1, 2]


def test_a_plan_asks_for_no_more_than_will_probably_do():
    plan = Plan({}, 100, 50)
    assert [plan.next(set()), plan.next({0}), plan.next({0, 1})] == [0, 1, None]
    plan.add({"episode": 0, "frames": 10})  # shorter than thought
    assert plan.next({1}) == 2
    assert plan.next(set(range(1, 10))) is None


def test_a_manifest_says_what_it_is(finished):
    fields = json.loads((finished / "archive/manifest.json").read_text())
    manifest = Archive(finished).manifest()
    assert manifest.to_json() == fields
    assert manifest.counts == {"train": 192, "valid": 24, "test": 24}
    other = Manifest.of(manifest.recipe, FRAMES - 1, manifest.episodes)
    assert other.dataset_hash != manifest.dataset_hash


def test_the_archive_is_small(finished):
    # Short episodes compress worse than the 200 bytes a frame of whole games.
    stored = sum(path.stat().st_size for path in (finished / "archive/episodes").glob("*.zst"))
    assert stored / FRAMES < 350


TWELVE = ["Breakout", "Pong", "MsPacman", "Seaquest", "Enduro", "MontezumaRevenge", "Pooyan", "Carnival"]
TWELVE += ["JourneyEscape", "AirRaid", "Freeway", "TicTacToe3D"]


@pytest.mark.parametrize("game", TWELVE)
def test_games_of_every_kind_open_as_gymnasium_shows_them(game, tmp_path):
    """Screens of 210, 214, 220, 230 and 250 rows; colours are those of ALE's own RGB screen."""
    from atari_collect.emulator import Emulator

    recipe = make_recipe(game, 60, episode_frames=20)
    manifest = make(tmp_path / game, recipe, 60, View(*manifest_size(game)))
    emulator = Emulator(game)
    archive = Archive(tmp_path / game)
    for row, split in zip(manifest.episodes[:3], ("train", "valid", "test"), strict=True):
        images = open_dataset(tmp_path / game).images(split)
        emulator.reset()
        for image, actions in zip(images, archive.arrays(row, "actions")[0], strict=False):
            for action in actions.tolist():
                emulator._ale.act(action)
            assert np.array_equal(image, emulator.rgb())


def manifest_size(game):
    from atari_collect.emulator import Emulator

    emulator = Emulator(game)
    return emulator.height, emulator.width


def test_collect_needs_no_emulator_when_all_is_there(collection, monkeypatch):
    monkeypatch.setattr("atari_collect.episode.Emulator", None)
    archive = Archive(collection)
    recipe = archive.recipe()
    assert recipe is not None
    assert collect(archive, recipe, FRAMES).frames == FRAMES
    meta = read_meta(collection)
    assert (
        meta is not None
        and Path(collection / "train/images.npy").stat().st_size == meta["files"]["train/images.npy"]["bytes"]
    )
