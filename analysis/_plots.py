"""The charts of a sweep's report. Each is drawn for a width, so that its words stay readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis._statistics import Comparison, robust_range
from analysis._svg import Scale, element, group, label, line, path, picture, scale_of, short, shown
from analysis._sweep import STATES, Dimension, Sweep, Trial, as_number, spread

WIDE, NARROW = 920, 340  # pixels
LINES, CURVES = 1000, 200  # trials that are drawn in one chart


@dataclass(frozen=True)
class Chart:
    """A chart in both widths, of which the page shows the one that fits."""

    wide: Markup
    narrow: Markup


def both(draw: Callable[[int], Markup]) -> Chart:
    """A chart drawn for a wide and for a narrow window."""
    return Chart(draw(WIDE), draw(NARROW))


def tip(trial: Trial) -> str:
    """What the pointer is told of a trial."""
    value = f"{trial.value:.4f} bits/dim" if math.isfinite(trial.value) else "no figure"
    return f"{trial.name}: {value} at {trial.images:,} images ({STATES[trial.state]}); {settings(trial)}"


def settings(trial: Trial) -> str:
    """``beta 0.25, lr 0.0002``."""
    return ", ".join(f"{name.rpartition('.')[2]} {trim(value)}" for name, value in trial.point.items())


def trim(value: str) -> str:
    """A setting with three digits where it has more."""
    number = as_number(value)
    return value if number is None or len(value) <= 6 else f"{number:.3g}"


def marks(sweep: Sweep, trial: Trial) -> str:
    """The classes of a trial's marks: how it ended, and whether it won."""
    return f"mark {trial.state}" + (" best" if sweep.best and trial.run.id == sweep.best.run.id else "")


def axes(x: Scale, y: Scale, x_title: str, y_title: str, count: int) -> list[Markup]:
    """The frame of a chart, its ticks and the names of its axes."""
    parts = [line(x.start, y(value), x.end, y(value), class_="rule") for value, _ in y.ticks()]
    parts += [label(words, x.start - 6, y(value) + 4, "end") for value, words in y.ticks()]
    parts += [line(x(value), y.start, x(value), y.start + 5, class_="rule") for value, _ in x.ticks(count)]
    parts += [label(words, x(value), y.start + 19, "middle") for value, words in x.ticks(count)]
    parts += [line(x.start, y.start, x.end, y.start, class_="axis")]
    parts += [label(x_title, (x.start + x.end) / 2, y.start + 38, "middle", class_="title")]
    parts += [label(y_title, 4, y.end - 12, class_="title")]
    return parts


def curves(sweep: Sweep, named: str) -> Chart:
    """The objective over images seen, a line for each trial."""
    drawn = [trial for trial in spread(sweep.own, CURVES) if trial.curve]
    # What goes to the end is what is worth seeing; a trial that was stopped may be far above all of it.
    whole = [trial for trial in drawn if trial.complete] or drawn
    low, high = robust_range([value for trial in whole for _, value in trial.curve])
    most = max((trial.curve[-1][0] for trial in drawn), default=1)

    def draw(width: int) -> Markup:
        height = 400 if width == WIDE else 320
        x = scale_of(0, most, 62, width - 14)
        y = scale_of(low, high, height - 50, 30)
        parts = axes(x, y, "images seen", "bits/dim on valid", 8 if width == WIDE else 4)
        for trial in reversed(drawn):
            points = [(x(step), y(value)) for step, value in trial.curve]
            end = points[-1]
            if y.beyond(trial.curve[-1][1]):  # it ends further up than is drawn
                mark = element("polygon", points=triangle(*end), class_="dot")
            else:
                mark = element("circle", cx=end[0], cy=end[1], r=3.5, class_="dot")
            body = [path(points, class_="line"), mark]
            parts.append(group(*body, class_=marks(sweep, trial), data_trial=trial.name))
        return picture(width, height, *parts, class_="chart", named=named)

    return both(draw)


def dimension_scale(dimension: Dimension, trials: Sequence[Trial], start: float, end: float) -> Scale | None:
    """The scale of a dimension; None when no trial has a value there."""
    if dimension.kind == "choice":
        most = len(dimension.options)
        return Scale(-0.5, most - 0.5, start, end, options=dimension.options) if most else None
    values = [number for trial in trials if (number := as_number(trial.point.get(dimension.name, ""))) is not None]
    return scale_of(min(values), max(values), start, end, dimension.kind == "log") if values else None


def place(dimension: Dimension, value: str | None) -> float | None:
    """A setting as the number that its dimension's scale takes."""
    if value is None:
        return None
    if dimension.kind == "choice":
        return float(dimension.options.index(value)) if value in dimension.options else None
    return as_number(value)


Points = list[tuple[Trial, float, float]]  # trial, where on the axis, objective


def slices(sweep: Sweep, compared: Sequence[tuple[Trial, float]], named: str) -> list[tuple[Dimension, Chart]]:
    """The objective over each dimension, at a budget that the trials share."""
    low, high = robust_range([value for _, value in compared])
    charts = []
    for dimension in sweep.dimensions:
        points = [(t, place(dimension, t.point.get(dimension.name)), v) for t, v in compared]
        known: Points = [(trial, where, value) for trial, where, value in points if where is not None]

        def draw(width: int, dimension: Dimension = dimension, known: Points = known) -> Markup:
            size = 440 if width == WIDE else NARROW
            x = dimension_scale(dimension, [trial for trial, _, _ in known], 62, size - 20)
            assert x is not None
            y = scale_of(low, high, 210, 30)
            parts = axes(x, y, dimension.label, "bits/dim on valid", 5)
            for trial, where, value in spread(known, LINES):
                parts.append(dot(sweep, trial, x(where), y(value), y.beyond(value)))
            return picture(size, 260, *parts, class_="chart", named=f"{named}-{dimension.label}")

        if known:
            charts.append((dimension, both(draw)))
    return charts


def dot(sweep: Sweep, trial: Trial, x: float, y: float, beyond: bool = False, extra: str = "") -> Markup:
    """A trial as a dot; as a triangle where it is really further up or to the right."""
    words = {"class_": f"{marks(sweep, trial)} point {extra}".strip(), "data_trial": trial.name}
    if beyond:
        return element("polygon", points=triangle(x, y), **words)
    return element("circle", cx=x, cy=y, r=5.0 if " best" in words["class_"] else 4.0, **words)


def triangle(x: float, y: float) -> str:
    """The corners of a triangle that points up."""
    return f"{shown(x - 5)},{shown(y + 5)} {shown(x + 5)},{shown(y + 5)} {shown(x)},{shown(y - 4)}"


@dataclass(frozen=True)
class Cost:
    """One more thing of which less is better."""

    title: str
    of: Callable[[Trial], float]  # NaN: unknown


def trade_off(sweep: Sweep, cost: Cost, front: set[str], named: str) -> Chart | None:
    """Bits/dim over a cost, complete trials only; those of the front are ringed. None when all have the same cost."""
    known = [t for t in sweep.own if t.complete and math.isfinite(cost.of(t)) and cost.of(t) > 0]
    costs = [cost.of(trial) for trial in known]
    if len(set(costs)) < 2:
        return None
    low, high = robust_range([trial.value for trial in known])
    log = max(costs) / min(costs) >= 20

    def draw(width: int) -> Markup:
        size = 440 if width == WIDE else NARROW
        margin = 0 if log else 0.05 * (max(costs) - min(costs))
        x = scale_of(min(costs) - margin, max(costs) + margin, 62, size - 20, log)
        y = scale_of(low, high, 250, 30)
        parts = axes(x, y, cost.title, "bits/dim on valid", 4)
        for trial in spread(known, LINES):
            ring = "front" if trial.name in front else ""
            parts.append(dot(sweep, trial, x(cost.of(trial)), y(trial.value), y.beyond(trial.value), ring))
        return picture(size, 300, *parts, class_="chart", named=named)

    return both(draw)


def importance_bars(compared: Comparison, named: str) -> Chart:
    """How much each dimension explains, with the line that chance alone stays under."""

    def draw(width: int) -> Markup:
        row, left = 34, 24 + 8 * max(len(part.dimension.label) for part in compared.parts)
        height = row * len(compared.parts) + 50
        x = scale_of(0, 1, left, width - 50)
        parts = []
        for number, part in enumerate(compared.parts):
            top = row * number + 8
            sure = part.share > part.chance
            name = part.dimension.label
            parts.append(label(name, left - 8, top + 17, "end", class_="name"))
            words = f"{part.dimension.name}: {part.share:.0%} of the differences; by chance up to {part.chance:.0%}"
            size = {"x": left, "y": top + 3, "width": max(1.0, x(part.share) - left), "height": 20}
            parts.append(element("rect", class_="bar" if sure else "bar unsure", data_tip=words, **size))
            parts.append(line(x(part.chance), top, x(part.chance), top + 26, class_="chance"))
            parts.append(label(f"{part.share:.0%}", max(x(part.share), x(part.chance)) + 6, top + 18))
        base = height - 40
        parts.append(line(left, base, width - 50, base, class_="axis"))
        parts += [label(f"{value:.0%}", x(value), base + 18, "middle") for value in (0, 0.5, 1)]
        return picture(width, height, *parts, class_="chart", named=named)

    return both(draw)


def whiskers(trials: Sequence[Trial], named: str) -> Chart:
    """Means over seeds with their 95 % intervals, and each seed as a dot."""
    ends = [trial.mean + sign * (trial.interval or 0) for trial in trials for sign in (-1, 1)]
    ends += [value for trial in trials for value in trial.over_seeds()]
    margin = 0.05 * (max(ends) - min(ends))

    def draw(width: int) -> Markup:
        row, left = 36, 110 if width == WIDE else 60
        height = row * len(trials) + 60
        x = scale_of(min(ends) - margin, max(ends) + margin, left, width - 24)
        parts = []
        for number, trial in enumerate(trials):
            y = row * number + 22.0
            body = [line(x(trial.mean - (trial.interval or 0)), y, x(trial.mean + (trial.interval or 0)), y)]
            body += [element("circle", cx=x(value), cy=y, r=3.0, class_="seed") for value in trial.over_seeds()]
            body.append(line(x(trial.mean), y - 9, x(trial.mean), y + 9, class_="mean"))
            parts.append(label(trial.name, left - 10, y + 4, "end", class_="name"))
            parts.append(group(*body, class_="whisker", data_trial=trial.name))
        base = height - 46.0
        parts.append(line(left, base, width - 24, base, class_="axis"))
        parts += [label(words, x(value), base + 19, "middle") for value, words in x.ticks(6 if width == WIDE else 3)]
        parts.append(label("bits/dim on valid", (left + width - 24) / 2, base + 38, "middle", class_="title"))
        return picture(width, height, *parts, class_="chart", named=named)

    return both(draw)


def short_count(value: float) -> str:
    """``1.2M``."""
    return short(value) if value >= 1e4 else f"{value:,.0f}"
