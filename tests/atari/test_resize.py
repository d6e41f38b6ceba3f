from fractions import Fraction

import numpy as np
import pytest

from atari_collect.emulator import Emulator
from atari_collect.resize import Axis, View, colour_table, resize

RANDOM = np.random.RandomState(0)
PALETTE = {str(i): RANDOM.randint(0, 256, 3).tolist() for i in range(256)}


def exact_area(image, height, width):
    """The mean over the area of each output pixel, in fractions, rounded half up."""

    def overlaps(source, target, i):
        low, high = Fraction(i * source, target), Fraction((i + 1) * source, target)
        pixels = range(int(low), -(-high.numerator // high.denominator))
        return [(p, min(high, p + 1) - max(low, p)) for p in pixels]

    area = Fraction(image.shape[0] * image.shape[1], height * width)
    out = np.empty((height, width, image.shape[2]), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(image.shape[2]):
                parts = (
                    a * b * int(image[r, q, c])
                    for r, a in overlaps(image.shape[0], height, y)
                    for q, b in overlaps(image.shape[1], width, x)
                )
                out[y, x, c] = int(sum(parts) / area + Fraction(1, 2))
    return out


@pytest.mark.parametrize(
    ("source", "target"),
    [((10, 80), (4, 42)), ((7, 9), (5, 4)), ((6, 6), (6, 6)), ((5, 3), (8, 7)), ((25, 40), (9, 1))],
)
@pytest.mark.parametrize("grey", [False, True])
def test_area_is_exact(source, target, grey):
    screens = RANDOM.randint(0, 256, (2, *source)).astype(np.uint8)
    table = colour_table(PALETTE, grey)
    expected = [exact_area(table[screen], *target) for screen in screens]
    assert np.array_equal(resize(screens, table, View(*target, grey)), expected)


def test_sums_too_large_for_three_in_a_word_are_exact_too():
    white = {"7": [255, 255, 254]}
    screens = np.full((1, 250, 160), 7, np.uint8)
    images = resize(screens, colour_table(white, False), View(83, 77))
    assert np.array_equal(np.unique(images.reshape(-1, 3), axis=0), [[255, 255, 254]])


@pytest.mark.parametrize("height", [210, 214, 220, 230, 250])
def test_opencv_agrees_within_one_level(height):
    cv2 = pytest.importorskip("cv2")
    screens = np.repeat(np.repeat(RANDOM.randint(0, 256, (3, height // 2, 40)), 2, 1), 4, 2).astype(np.uint8)
    table = colour_table(PALETTE, False)
    ours = resize(screens, table, View()).astype(int)
    theirs = [cv2.resize(table[s].astype(np.uint8), (84, 84), interpolation=cv2.INTER_AREA) for s in screens]
    assert np.abs(ours - np.array(theirs)).max() <= 1


def test_nearest_takes_the_pixel_under_the_centre():
    screens = np.arange(60, dtype=np.uint8).reshape(1, 6, 10)
    table = np.arange(256, dtype=np.int32)[:, None]
    assert resize(screens, table, View(2, 5, True, "nearest"))[0, :, :, 0].tolist() == [
        [11, 13, 15, 17, 19],
        [41, 43, 45, 47, 49],
    ]


@pytest.mark.parametrize("kernel", ["area", "nearest"])
@pytest.mark.parametrize(("source", "target"), [(210, 84), (160, 84), (250, 83), (214, 300), (160, 160)])
def test_weights_sum_to_the_total(source, target, kernel):
    axis = Axis.of(source, target, kernel)
    assert (axis.weights.sum(1) == axis.total).all()
    assert axis.first.min() >= 0 and (axis.first + axis.weights.shape[1]).max() <= source


def test_grey_is_ales_own():
    emulator = Emulator("SpaceInvaders")
    emulator.reset()
    for action in [0, 1, 2, 3, 4, 5] * 40:
        emulator._ale.act(action)
    indices, rgb = emulator._ale.getScreen(), emulator.rgb()
    palette = {str(i): rgb[indices == i][0].tolist() for i in np.unique(indices)}
    ours = resize(indices[None], colour_table(palette, True), View(*indices.shape, True))
    assert np.array_equal(ours[0, :, :, 0], emulator._ale.getScreenGrayscale())


@pytest.mark.parametrize(
    ("arguments", "text"), [((0, 84), "size is 0x84"), ((84, 84, False, "cubic"), "kernel is 'cubic'")]
)
def test_an_impossible_view_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        View(*arguments)
