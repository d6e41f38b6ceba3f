"""Parallel coordinates: a line for each trial through everything that was varied, to what came of it.

In a wide window the axes stand side by side; in a narrow one they lie below each other and the lines run downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from markupsafe import Markup

from analysis._plots import LINES, NARROW, WIDE, Chart, dimension_scale, marks, place
from analysis._statistics import robust_range
from analysis._svg import Scale, group, label, line, path, picture, scale_of
from analysis._sweep import Sweep, Trial, spread

SHADES = 5  # of the lines, from the best fifth to the worst
UNITS = {  # of an axis, by its name, for who hears where a handle is; most settings are plain numbers or words
    "bits/dim": "bits/dim",
    "batch_size": "images",
    "hidden": "channels",
    "code_dim": "dimensions",
    "num_codes": "codes",
    "codes": "codes",
    "codes_per_position": "codes",
}


def parallel(sweep: Sweep, named: str) -> Chart | None:
    """The chart; None when nothing was varied or nothing has come of it."""
    drawn = [t for t in spread(sweep.trials, LINES) if math.isfinite(t.value) and t.state != "failed"]
    scales = [(d, s) for d in sweep.dimensions if (s := dimension_scale(d, drawn, 0, 1)) is not None]
    if not drawn or not scales:
        return None
    low, high = robust_range([trial.value for trial in drawn])
    names = [dimension.label for dimension, _ in scales] + ["bits/dim"]
    units = [scale for _, scale in scales] + [scale_of(low, high, 0, 1)]
    order = {t.run.id: i * SHADES // len(drawn) for i, t in enumerate(sorted(drawn, key=lambda t: t.value))}

    def shares(trial: Trial) -> list[float | None]:
        """Where a trial is on each axis, from 0 to 1."""
        own = [place(d, trial.point.get(d.name)) for d, _ in scales]
        places = [None if value is None else scale.share(value) for value, (_, scale) in zip(own, scales, strict=True)]
        return [*places, units[-1].share(trial.value)]

    where = {trial.run.id: shares(trial) for trial in drawn}

    def draw(width: int) -> Markup:
        upright = width == WIDE
        length = 280 if upright else width - 60
        height = length + 90 if upright else 74 * len(names) + 10
        step = (width - 150) / (len(names) - 1) if upright else 74

        def point(number: int, share: float) -> tuple[float, float]:
            """Pixels of a share of an axis; upright, less is at the bottom."""
            return (
                (70 + number * step, 50 + length * (1 - share))
                if upright
                else (30 + length * share, 36 + number * step)
            )

        parts = []
        for trial in reversed(drawn):
            own = where[trial.run.id]
            points = [point(number, share) for number, share in enumerate(own) if share is not None]
            at = ",".join("" if share is None else f"{share:.4f}" for share in own)
            shade = f"{marks(sweep, trial)} shade-{order[trial.run.id]}"
            parts.append(path(points, class_=shade, data_trial=trial.name, data_at=at))
        parts += [
            axis(name, unit, number, point, upright)
            for number, (name, unit) in enumerate(zip(names, units, strict=True))
        ]
        return picture(width, height, *parts, class_="chart parallel", named=named)

    return Chart(draw(WIDE), draw(NARROW))


Place = Callable[[int, float], tuple[float, float]]  # (axis, share) -> pixels


def axis(name: str, unit: Scale, number: int, point: Place, upright: bool) -> Markup:
    """One axis with its name, its ticks, and what the script needs to put handles on it."""
    (x1, y1), (x2, y2) = point(number, 0.0), point(number, 1.0)
    parts = [line(x1, y1, x2, y2, class_="axis")]
    for value, words in unit.ticks(6 if upright else 4):
        x, y = point(number, unit.share(value))
        parts.append(line(x - 4, y, x + 4, y, class_="axis") if upright else line(x, y - 4, x, y + 4, class_="axis"))
        parts.append(
            label(words, x + 8, y + 4, class_="halo") if upright else label(words, x, y + 18, "middle", class_="halo")
        )
    parts.append(
        # In two rows, so that long names beside each other stay apart.
        label(name, x2, y2 - 18 - 16 * (number % 2), "middle", class_="name")
        if upright
        else label(name, x1, y1 - 12, class_="name halo")
    )
    data = {"data_axis": number, "data_name": name, "data_from": f"{x1:.1f},{y1:.1f}", "data_to": f"{x2:.1f},{y2:.1f}"}
    low, high = (unit.options[0], unit.options[-1]) if unit.options else (unit.low, unit.high)
    data |= {"data_low": f"{low}", "data_high": f"{high}", "data_scale": "log" if unit.log else "linear"}
    data |= {"data_options": "|".join(unit.options)} if unit.options else {}
    data |= {"data_unit": UNITS[name]} if name in UNITS else {}
    return group(*parts, class_="an-axis", **data)
