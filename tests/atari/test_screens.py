import hashlib
from itertools import pairwise

import numpy as np
import pytest

from atari_collect import frames
from atari_collect.frames import Painter, screens
from atari_collect.resize import View, colour_table, resize
from atari_collect.screens import PIECE, ScreenWriter, UnseenColourError
from atari_collect.shard import build, read_arrays, read_row, write

RGB = np.random.RandomState(1).randint(0, 256, (256, 3)).astype(np.uint8)


def film(count, height=210, width=160, seed=0):
    """Screens of which little changes from one to the next, and sometimes nothing or everything."""
    random = np.random.RandomState(seed)
    screen = random.randint(0, 5, (height, width)).astype(np.uint8)
    for i in range(count):
        if i % 7:
            y, x = random.randint(height - 20), random.randint(width - 20)
            screen[y : y + random.randint(20), x : x + random.randint(20)] = random.randint(0, 9)
        if i == 40:
            screen = random.randint(100, 140, (height, width)).astype(np.uint8)
        yield screen.copy()


def record(images, batch=8, colours=None):
    shown = iter(images)
    now = None

    def rgb():
        return RGB[now]

    writer = ScreenWriter(*images[0].shape, rgb, {} if colours is None else colours, batch)
    for now in shown:
        writer.screen[:] = now
        writer.add()
    return writer


def stored(images, tmp_path):
    writer = record(images)
    write(tmp_path, build(0, writer.packed(), {"frames": len(images)}))
    return writer, read_arrays(tmp_path, read_row(tmp_path, 0), "changed", "pieces")


@pytest.mark.parametrize("height", [210, 214, 250])
def test_what_is_stored_comes_back(height, tmp_path):
    images = list(film(300, height))  # more than a block of 256 and a chunk of 128
    writer, (changed, pieces) = stored(images, tmp_path)
    assert np.array_equal(screens(changed, pieces, height, 160), images)
    assert writer.repeats == sum(np.array_equal(a, b) for a, b in pairwise(images))


def test_only_pieces_that_changed_are_stored(tmp_path):
    images = list(film(50))
    _, (changed, pieces) = stored(images, tmp_path)
    cut = np.array(images).reshape(50, -1, PIECE)
    differs = np.ones(cut.shape[:2], bool)
    differs[1:] = (cut[1:] != cut[:-1]).any(2)
    assert np.array_equal(np.unpackbits(changed, axis=1, count=cut.shape[1]).view(bool), differs)
    assert np.array_equal(pieces, cut[differs])


def test_checksums_are_of_the_content():
    images = list(film(30, seed=3))
    first, second = (record(images, batch).packed() for batch in (1, 8))
    assert first == second
    cut = np.array(images).reshape(30, -1, PIECE)
    differs = np.concatenate([np.ones((1, cut.shape[1]), bool), (cut[1:] != cut[:-1]).any(2)])
    assert first[1].sha256 == hashlib.sha256(cut[differs].tobytes()).hexdigest()


def test_the_palette_is_learned_when_an_index_appears():
    images = list(film(50))
    writer = record(images, 1)
    assert writer.palette == {int(i): tuple(RGB[i].tolist()) for i in np.unique(images)}


def test_a_colour_that_came_and_went_is_not_guessed():
    images = [np.full((210, 160), index, np.uint8) for index in (1, 1, 7, 1, 1)]
    with pytest.raises(UnseenColourError):
        record(images, 8).packed()
    colours = {}
    seen = record(images, 1, colours)
    assert colours == {1: tuple(RGB[1].tolist()), 7: tuple(RGB[7].tolist())}
    known = record(images, 8, colours)
    assert known.packed() == seen.packed() and known.palette == seen.palette
    few = record(images[:2], 1, colours)
    assert few.palette.keys() == {1}  # what occurs in the episode, whatever else is known


VIEWS = [
    View(),
    View(64, 64),
    View(42, 42, True),
    View(83, 77),
    View(210, 160),
    View(84, 84, False, "nearest"),
    View(250, 200),
    View(3, 1),
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("height", [210, 214])
def test_painting_tiles_equals_resizing_whole_screens(view, height, tmp_path):
    images = list(film(150, height))
    _, arrays = stored(images, tmp_path)
    palette = {str(i): RGB[i].tolist() for i in range(256)}
    painter = Painter((height, 160), palette, view)
    expected = resize(np.array(images), colour_table(palette, view.grey), view)
    for _ in range(2):  # the second time from memory
        assert np.array_equal(np.concatenate(list(painter.images(*arrays))), expected)


def test_a_memory_that_forgets_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "CACHE_BYTES", 1000)  # two tiles
    images = list(film(150))
    _, arrays = stored(images, tmp_path)
    palette = {str(i): RGB[i].tolist() for i in range(256)}
    painted = np.concatenate(list(Painter((210, 160), palette, View()).images(*arrays)))
    assert np.array_equal(painted, resize(np.array(images), colour_table(palette, False), View()))
