import dataclasses
import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atari_collect import shard
from atari_collect.archive import Archive, BusyError
from atari_collect.dataset import make, make_recipe
from atari_collect.opened import read_meta
from atari_collect.resize import View
from atari_collect.verify import verify
from vqvae_core.data import open_dataset

FRAMES = 240


def flip(path, at=0.5):
    """Turn one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 16
    path.write_bytes(data)


def again(folder, frames=FRAMES):
    return make(folder, make_recipe("boxing", frames), frames, View())


@pytest.mark.parametrize("at", [0.0, 0.5, 0.999])
def test_a_flipped_bit_in_a_shard_is_found_and_healed(collection, finished, at, capfd):
    path = shard.data_path(Archive(collection).episodes, 4)
    flip(path, at)
    with pytest.raises(ValueError, match=r"00004.zst is damaged"):
        verify(collection, 0)
    again(collection)
    assert "00004.zst is damaged" in capfd.readouterr().err
    assert path.read_bytes() == shard.data_path(Archive(finished).episodes, 4).read_bytes()
    verify(collection, 1)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"episode": 9}', b'{"episode": 4}'])
def test_a_damaged_sidecar_is_healed(collection, finished, damage):
    path = shard.row_path(Archive(collection).episodes, 4)
    path.write_bytes(damage)
    with pytest.raises(ValueError):
        verify(collection, 0)
    again(collection)
    assert path.read_bytes() == shard.row_path(Archive(finished).episodes, 4).read_bytes()


def test_a_sidecar_that_was_changed_with_its_hash_is_not_the_manifests(collection):
    archive = Archive(collection)
    row = shard.read_row(archive.episodes, 4)
    other = shard.read_row(archive.episodes, 5)
    shard.data_path(archive.episodes, 4).write_bytes(shard.data_path(archive.episodes, 5).read_bytes())
    shard.row_path(archive.episodes, 4).write_text(json.dumps({**other, "episode": row["episode"]}))
    with pytest.raises(ValueError, match=r"episode 4 of .* is another one than the manifest says"):
        verify(collection, 0)


def test_a_flipped_bit_in_the_opened_arrays_is_found(collection):
    flip(collection / "train/images.npy")
    with pytest.raises(ValueError, match=r"train/images.npy is damaged; delete .*dataset.json"):
        verify(collection, 0)
    (collection / "dataset.json").unlink()
    again(collection)
    verify(collection, 0)


def test_arrays_that_are_missing_are_opened_again(collection):
    (collection / "valid/images.npy").unlink()
    again(collection)
    assert len(open_dataset(collection).images("valid")) == 24


def test_a_flipped_bit_in_the_actions_is_found_and_healed(collection, finished):
    path = collection / "archive/actions.zst"
    flip(path)
    with pytest.raises(ValueError, match=r"actions\.zst"):
        verify(collection, 0)
    again(collection)
    assert path.read_bytes() == (finished / "archive/actions.zst").read_bytes()
    verify(collection, 0)


def test_a_recipe_that_is_not_the_manifests_is_found(collection):
    path = collection / "archive/recipe.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match=r"recipe.json is another one than the manifest says"):
        verify(collection, 0)


def test_a_damaged_recipe_is_named(collection):
    (collection / "archive/recipe.json").write_bytes(b"{half")
    with pytest.raises(ValueError, match=r"recipe.json is damaged .*; delete .* and collect again"):
        again(collection)


@pytest.mark.parametrize("change", [("{", "{{"), ('"take": 12', '"take": 11'), ('"frames": 240', '"frames": 241')])
def test_a_damaged_manifest_is_named_and_made_again(collection, finished, change, capfd):
    path = collection / "archive/manifest.json"
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=r"manifest.json is damaged"):
        verify(collection, 0)
    again(collection)
    assert "manifest.json is damaged" in capfd.readouterr().err
    assert path.read_bytes() == (finished / "archive/manifest.json").read_bytes()


def test_an_emulator_that_draws_otherwise_is_found(collection, monkeypatch):
    """As if a new version of ale-py drew one pixel otherwise."""
    from atari_collect.screens import ScreenWriter

    def add(self, plain=ScreenWriter.add):
        self.screen[100, 100] = 0 if self.screen[100, 100] else 12
        plain(self)

    monkeypatch.setattr(ScreenWriter, "add", add)
    with pytest.raises(ValueError, match=r"episode \d+ collected again is"):
        verify(collection, 1)
    Archive(collection).drop(7)
    with pytest.raises(ValueError, match="this is not the emulator that made the rest"):
        again(collection)


def test_other_settings_in_the_same_folder_are_refused_with_both_values(collection):
    for change, text in (({"seed": 1}, "seed 0 -> 1"), ({"frame_skip": 2}, "frame_skip 4 -> 2")):
        with pytest.raises(ValueError, match=f"begun with other settings .*{text}"):
            make(collection, make_recipe("boxing", FRAMES, **change), FRAMES, View())
    with pytest.raises(ValueError, match=r"game Boxing -> Pong.*rom_md5 \w{32} -> \w{32}"):
        make(collection, make_recipe("pong", FRAMES), FRAMES, View())


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        again(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        again(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_in_the_same_folder_is_refused(collection):
    with Archive(collection).locked(wait=False):
        code = (
            "import sys; from pathlib import Path; from atari_collect.archive import Archive, BusyError\n"
            f"try:\n  with Archive(Path({str(collection)!r})).locked(wait=False): pass\n"
            "except BusyError as error: print(error)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "another run is at work in" in out
    with Archive(collection).locked(wait=False):
        pass
    assert issubclass(BusyError, ValueError)


def test_a_full_disk_leaves_what_was_finished_and_no_halves(tmp_path, monkeypatch):
    plain, written = os.fsync, []

    def fsync(handle):
        written.append(handle)
        if len(written) == 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        again(tmp_path / "boxing", 60)
    archive = Archive(tmp_path / "boxing")
    assert not list(archive.root.rglob(".*.tmp"))
    kept = archive.finished(pytest.fail)
    assert kept
    assert again(tmp_path / "boxing", 60) == again(tmp_path / "clean", 60)


def test_a_disk_that_fills_while_arrays_are_written_leaves_no_arrays(collection, finished):
    """A limit on file sizes stands in for the full disk: the same path, and no kill by SIGBUS."""
    limit = 1_000_000
    code = f"""
import resource, signal, sys
from pathlib import Path
from atari_collect.dataset import make, make_recipe
from atari_collect.resize import View
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    make(Path({str(collection)!r}), make_recipe("boxing", {FRAMES}), {FRAMES}, View())
except OSError as error:
    print(error)
"""
    (collection / "dataset.json").unlink()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit
    assert not list(collection.glob(".opening-*")) and read_meta(collection) is None
    again(collection)
    assert open_dataset(collection).fingerprint == open_dataset(finished).fingerprint


KILLED = """
import os, signal, sys
from pathlib import Path
from atari_collect import shard
from atari_collect.dataset import make, make_recipe
from atari_collect.resize import View
left = int(sys.argv[2])
def maybe(*arguments, **more):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def audit(event, arguments):
    if event in ("open", "os.rename", "os.remove") and sys.argv[1] in str(arguments[0]):
        maybe()
sys.addaudithook(audit)
make(Path(sys.argv[1]), make_recipe("boxing", 48), 48, View(21, 21))
print(left)
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_of_the_disks_life_loses_nothing(tmp_path):
    """Kill at the n-th time that the run opens, renames or removes a file, from the same folder on and on."""
    clean, folder = tmp_path / "clean", tmp_path / "killed"
    expected = make(clean, make_recipe("boxing", 48), 48, View(21, 21)).dataset_hash
    kills = 0
    for moment in (5, 9, 17, 1, 40, 3, 90, 11, 160, 26, 400, 12, 45, 10_000):
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(moment)], capture_output=True, text=True)
        assert done.returncode in (0, -9), done.stderr
        kills += done.returncode == -9
    assert done.returncode == 0 and kills >= 8
    assert Archive(folder).manifest().dataset_hash == expected
    assert open_dataset(folder).fingerprint == open_dataset(clean).fingerprint
    left = {path.name for path in folder.rglob("*")} - {path.name for path in clean.rglob("*")}
    assert not left
    assert np.array_equal(open_dataset(folder).images("test"), open_dataset(clean).images("test"))


def test_another_rom_in_a_recipe_is_refused_with_both_hashes(collection):
    path: Path = collection / "archive/recipe.json"
    recipe = json.loads(path.read_text())
    path.write_text(json.dumps({**recipe, "rom_md5": "0" * 32}))
    with pytest.raises(ValueError, match=rf"rom_md5 {'0' * 32} -> {recipe['rom_md5']}"):
        again(collection)


def test_going_on_with_another_rom_emulator_or_policy_is_refused_with_both(collection):
    archive = Archive(collection)
    archive.drop(3)
    (archive.root / "manifest.json").unlink()
    recipe = make_recipe("boxing", FRAMES)
    for change, text in (
        (
            {"rom_md5": "0" * 32},
            f"the ROM is another one than the recipe's: its hash is {recipe.rom_md5}, not {'0' * 32}",
        ),
        ({"ale_py": "0.1"}, f"was begun with ale-py 0.1, this is {recipe.ale_py}"),
    ):
        other = dataclasses.replace(recipe, **change)
        (archive.root / "recipe.json").write_text(json.dumps({"format": 1, **other.to_json()}))
        with pytest.raises(ValueError, match=re.escape(text)):
            make(collection, other, FRAMES, View())


@pytest.mark.slow
def test_drivers_and_actors_killed_at_random_leave_the_same_bytes_as_nobody(tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("psutil")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.atari.chaos", "--frames", "1200", "--kills", "3", "--out", tmp_path / "c"]
    command += ["--alone", "0"]  # more of them: test_ray.py
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("every file is the same\n") and done.stdout.count("files  ") == 2
