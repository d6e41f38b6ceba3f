"""Charts as SVG text: scales, ticks, marks. How they look is in report.css, what they answer to in report.js."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape


def element(tag: str, *inside: str, **attributes: object) -> Markup:
    """An element; ``class_`` is ``class``, ``data_trial`` is ``data-trial``; None leaves an attribute out."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(shown(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(str(escape(part)) for part in inside)
    return Markup(f"<{tag}{words}>{content}</{tag}>" if content else f"<{tag}{words}/>")


def shown(value: object) -> str:
    """A coordinate with a tenth of a pixel, anything else as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def group(*parts: Markup, **attributes: object) -> Markup:
    """Marks that belong together."""
    return element("g", *parts, **attributes)


def label(text: str, x: float, y: float, anchor: str = "start", **attributes: object) -> Markup:
    """Words at a place."""
    return element("text", text, x=x, y=y, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """A broken line."""
    return element("path", d="M" + "L".join(f"{shown(x)} {shown(y)}" for x, y in points), **attributes)


def picture(width: int, height: int, *parts: Markup, class_: str, named: str) -> Markup:
    """A whole chart; ``named`` is the id of the words that say what it shows."""
    return element(
        "svg", *parts, viewBox=f"0 0 {width} {height}", width=width, height=height, class_=class_, role="img",
        aria_labelledby=named,
    )  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Values along one direction of a chart; those beyond the range are drawn at its edge."""

    low: float
    high: float
    start: float  # pixels
    end: float
    log: bool = False
    options: tuple[str, ...] = ()  # of a choice; its values are their places in this list

    def __call__(self, value: float) -> float:
        """Where a value is, in pixels."""
        return self.start + (self.end - self.start) * self.share(value)

    def share(self, value: float) -> float:
        """How far along a value is, from 0 to 1."""
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def beyond(self, value: float) -> bool:
        """Whether a value is drawn where it is not."""
        return not self.low <= value <= self.high

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Values to mark, and how they are written."""
        if self.options:
            return [(float(place), words) for place, words in enumerate(self.options)]
        values = log_ticks(self.low, self.high, count) if self.log else linear_ticks(self.low, self.high, count)
        return list(zip(values, written(values), strict=True))


def scale_of(low: float, high: float, start: float, end: float, log: bool = False) -> Scale:
    """A scale for numbers, with some room where there is but one."""
    if high <= low:
        low, high = (low / 1.5, low * 1.5) if log else (low - 0.5, low + 0.5)
    return Scale(low, high, start, end, log)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values, about ``count`` of them."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten, with twos and fives where there is room for them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        values = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(values) <= count + 2:
            break
    if len(values) > count + 2:
        values = values[:: -(-len(values) // (count + 1))]
    return values if len(values) >= 2 else [low, high]


def written(values: Sequence[float]) -> list[str]:
    """Numbers with as many digits as tell them apart, in one unit where they are large."""
    finest = min((abs(b - a) for a, b in pairwise(values) if a != b), default=0.0)
    most = max(map(abs, values), default=0.0)
    if most < 1e4 and finest >= 1e-4 and most < 1e4 * finest:
        digits = max(0, math.ceil(-math.log10(finest) - 1e-9))
        return [f"{value:.{digits}f}" for value in values]
    unit = next((unit for unit in UNITS if most >= unit[1]), None) if most < 1e4 * finest else None
    words: list[str] = []
    for digits in range(2, 16):
        words = [f"{v / unit[1]:.{max(digits, 3)}g}{unit[0]}" if unit and v else short(v, digits) for v in values]
        if len(set(words)) == len(set(values)):
            break
    return words


UNITS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def short(value: float, digits: int = 4) -> str:
    """``12k``, ``3e-4``, ``0.25``: a number in little room."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    if size >= 1e4:
        return next(f"{value / unit:.{max(digits, 3)}g}{name}" for name, unit in UNITS if size >= unit)
    return f"{value:.{max(digits, 4)}g}"
