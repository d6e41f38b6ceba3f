"""See it: a contact sheet and a few seconds of play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atari_collect.archive import Archive, Manifest
from atari_collect.frames import Painter
from atari_collect.opened import episode_images, read_meta, view_of
from atari_collect.resize import View

ROWS, COLUMNS = 6, 10  # of the contact sheet
GIF_FRAMES = 100
EMULATED_FRAMES_PER_SECOND = 60


def preview(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write ``preview.png``, 60 frames spread evenly over the collection, and ``preview.gif``, its first 100 frames.

    Raises ``ValueError`` where nothing was collected or a shard is damaged.
    """
    archive = Archive(folder)
    manifest = archive.manifest()
    meta = read_meta(folder)
    view = view_of(meta) if meta else View()
    out.mkdir(parents=True, exist_ok=True)
    sheet, gif = out / "preview.png", out / "preview.gif"
    _contact_sheet(archive, manifest, view).save(sheet)
    moving = [_image(image, 2) for image in _frames(archive, manifest, view, range(min(GIF_FRAMES, manifest.frames)))]
    # Browsers play nothing faster than 50 frames a second, and want hundredths.
    duration = max(20, round(1000 * manifest.recipe.frame_skip / EMULATED_FRAMES_PER_SECOND, -1))
    moving[0].save(gif, save_all=True, append_images=moving[1:], duration=duration, loop=0)
    return sheet, gif


def _frames(archive: Archive, manifest: Manifest, view: View, wanted: range) -> list[NDArray[np.uint8]]:
    """Some frames of the collection by number, (h, w, C) each; only the episodes that hold them are read."""
    painter = Painter(manifest.screen, manifest.palette, view)
    found, start = [], 0
    for row in manifest.episodes:
        here = [number - start for number in wanted if start <= number < start + row["take"]]
        if here:
            images = np.concatenate(list(episode_images(archive, row, painter)))
            found += list(images[here])
        start += row["take"]
    return found


def _image(pixels: NDArray[np.uint8], times: int = 1) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _contact_sheet(archive: Archive, manifest: Manifest, view: View) -> Image.Image:
    step = max(1, manifest.frames // (ROWS * COLUMNS))
    frames = _frames(archive, manifest, view, range(0, min(manifest.frames, step * ROWS * COLUMNS), step))
    height, width, channels = view.shape
    sheet = np.full((ROWS * (height + 2) + 2, COLUMNS * (width + 2) + 2, channels), 255, np.uint8)
    for i, frame in enumerate(frames):
        top, left = 2 + (i // COLUMNS) * (height + 2), 2 + (i % COLUMNS) * (width + 2)
        sheet[top : top + height, left : left + width] = frame
    return _image(sheet)
