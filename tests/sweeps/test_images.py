"""Which images a game's name means."""

from pathlib import Path

import pytest

import atari_collect
from sweeps._images import images_of, to_be_collected
from vqvae_core.config import DataConfig
from vqvae_core.data import prepare


def test_a_number_of_frames_that_is_asked_for_is_what_is_trained_on(tmp_path: Path) -> None:
    atari_collect.ensure("pong", tmp_path, 60).rename(tmp_path / "pong")  # as by hand
    there = DataConfig("pong", str(tmp_path))
    assert not to_be_collected(there) and sum(images_of(there).splits.values()) == 60
    asked = DataConfig("pong", str(tmp_path), frames=80)
    assert to_be_collected(asked)
    assert sum(images_of(asked).splits.values()) == 80
    assert not to_be_collected(asked)
    assert prepare(asked).folder == tmp_path / "pong-80"
    assert prepare(there).folder == tmp_path / "pong"


def test_a_known_name_is_not_given_to_a_folder_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vqvae_core.data.__main__ import main

    with pytest.raises(SystemExit):
        main(["import", str(tmp_path), "--name", "mnist", "--root", str(tmp_path / "data")])
    assert "--name is 'mnist'; allowed is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
