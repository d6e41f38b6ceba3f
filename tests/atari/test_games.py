import json
import subprocess
import sys
from pathlib import Path

import ale_py
import pytest

from atari_collect import find_game, folder_name
from atari_collect.games import ROMS, find_rom, game_id, rom_name

ROM_FOLDER = Path(ale_py.__file__).parent / "roms"


@pytest.mark.parametrize("name", ["boxing", "Boxing", "BOXING"])
def test_boxing_has_many_names(name):
    assert find_game(name) == "Boxing"


@pytest.mark.parametrize("name", ["space_invaders", "SpaceInvaders", "space-invaders", "spaceinvaders"])
def test_a_game_of_two_words(name):
    assert find_game(name) == "SpaceInvaders"
    assert rom_name(name) == "space_invaders"


@pytest.mark.parametrize("name", ["cifar10", "digits", "", "box", "combat"])
def test_what_is_no_game(name):
    assert find_game(name) is None


def test_an_unknown_game_names_the_nearest():
    with pytest.raises(ValueError, match=r"'boxin' is not an Atari game.*Boxing"):
        rom_name("boxin")


def test_every_name_is_a_bundled_rom():
    bundled = {name.removesuffix(".bin") for name in json.loads((ROM_FOLDER / "md5.json").read_text())}
    assert set(ROMS) == bundled - {"combat", "joust", "maze_craze", "warlords"}
    assert len({game_id(rom) for rom in ROMS}) == len(ROMS)


def test_game_ids_are_gymnasiums():
    gymnasium = pytest.importorskip("gymnasium")
    gymnasium.register_envs(ale_py)
    theirs = {name[4:-3] for name in gymnasium.registry if name.startswith("ALE/") and name.endswith("-v5")}
    assert {game_id(rom) for rom in ROMS} == theirs


def test_folder_names():
    assert folder_name("Boxing", 60_000) == "boxing"
    assert folder_name("SpaceInvaders", 2000) == "space_invaders-2000"


def test_a_changed_rom_is_refused_with_both_hashes(tmp_path, monkeypatch):
    (tmp_path / "boxing.bin").write_bytes((ROM_FOLDER / "boxing.bin").read_bytes()[:-1] + b"?")
    good = find_rom("boxing").md5
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=rf"MD5 [0-9a-f]{{32}}; this ale-py plays {good}"):
        find_rom("boxing")
    with pytest.raises(ValueError, match=r"no ROM file pong.bin"):
        find_rom("pong")


def test_importing_the_package_is_cheap():
    heavy = "ray", "gymnasium", "ale_py", "numpy", "PIL", "zstandard", "vqvae_core"
    code = (
        f"import sys, atari_collect; atari_collect.find_game('pong'); print([m for m in {heavy} if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_no_module_imports_the_core():
    code = (
        "import sys, pkgutil, importlib, atari_collect as a;"
        "[importlib.import_module(m.name) for m in pkgutil.iter_modules(a.__path__, 'atari_collect.')"
        " if m.name not in ('atari_collect.actors', 'atari_collect.__main__')];"
        "print([m for m in ('ray', 'vqvae_core', 'mlflow', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
