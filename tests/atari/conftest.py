"""One small collection for all tests that only read; 240 frames of Boxing in 20 episodes of 12."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("ale_py")

from atari_collect.dataset import make, make_recipe
from atari_collect.resize import View

FRAMES = 240


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and opened collection; not to be written to."""
    folder = tmp_path_factory.mktemp("atari") / "boxing"
    make(folder, make_recipe("boxing", FRAMES), FRAMES, View())
    return folder


@pytest.fixture
def collection(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(finished, tmp_path / "boxing"))
