"""Actors of Ray: the same bytes as without, whoever dies on the way."""

import logging
import os
import signal
from pathlib import Path

import pytest

from atari_collect.archive import Archive
from atari_collect.dataset import ensure, make, make_recipe
from atari_collect.resize import View

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

FRAMES = 240


@pytest.fixture(scope="module", autouse=True)
def local_ray(tmp_path_factory):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(tmp_path_factory.mktemp("r")),
    )
    yield
    ray.shutdown()


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("actors", [1, 2])
def test_any_number_of_actors_gives_the_same_bytes(actors, finished, tmp_path):
    make(tmp_path / "boxing", make_recipe("boxing", FRAMES), FRAMES, View(), actors)
    assert files(tmp_path / "boxing") == files(finished)
    assert ray.is_initialized()  # a connection that was there is left as it was


def test_actors_that_do_not_see_the_folder_hand_shards_back(finished, tmp_path, monkeypatch):
    plain = Path.touch

    def touch(self, *arguments, **more):
        if not self.name.startswith(".shared-"):
            plain(self, *arguments, **more)

    monkeypatch.setattr(Path, "touch", touch)  # what an actor looks for is not there, as on another machine
    make(tmp_path / "boxing", make_recipe("boxing", FRAMES), FRAMES, View(), 2)
    assert files(tmp_path / "boxing") == files(finished)


def test_actors_that_are_killed_are_replaced(finished, tmp_path, monkeypatch):
    from atari_collect import actors

    class Mortal(actors.Actor):
        """Is killed once in each of two episodes, when something of their data is written."""

        def play(self, episode):
            if episode in (1, 7) and not (self._folder / f"{episode:05}.zst").exists():
                (self._folder / f"{episode:05}.zst").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return super().play(episode)

    monkeypatch.setattr(actors, "Actor", Mortal)
    recipe = make_recipe("boxing", 60)
    make(tmp_path / "boxing", recipe, 60, View(), 2)
    make(tmp_path / "alone", recipe, 60, View())
    assert files(tmp_path / "boxing") == files(tmp_path / "alone")


def test_actors_that_all_die_end_the_run(tmp_path, monkeypatch):
    from atari_collect import actors

    class Doomed(actors.Actor):
        def play(self, episode):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(actors, "Actor", Doomed)
    with pytest.raises(OSError, match="5 actors died one after the other"):
        make(tmp_path / "boxing", make_recipe("boxing", 60), 60, View(), 2)


def test_an_error_in_an_actor_is_the_drivers_own(tmp_path, monkeypatch):
    from atari_collect import actors

    class Full(actors.Actor):
        def play(self, episode):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(actors, "Actor", Full)
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        make(tmp_path / "boxing", make_recipe("boxing", 60), 60, View(), 2)


def test_ensure_uses_the_connection_that_is_there_and_no_more_actors_than_it_has_cpus(tmp_path, capfd):
    folder = ensure("boxing", tmp_path, 60, actors=5)
    assert Archive(folder).manifest().frames == 60
    assert "2 actors instead of 5" in capfd.readouterr().err
