"""Whether a codebook is well: limits that a winner must keep to, and by which a trial may be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

WHAT = {  # field -> metric of the validation split, whether the limit is a floor, and in words
    "min_perplexity": ("perplexity", True, "perplexity"),
    "max_dead_codes": ("dead_codes", False, "the share of dead codes"),
    "max_latent_growth": ("latent_growth", False, "the growth of the latents' norm"),
}


@dataclass(frozen=True)
class Limits:
    """What a codebook must keep to; None means that nothing is asked."""

    min_perplexity: float | None = None  # least perplexity of the codes on validation images
    max_dead_codes: float | None = None  # largest share of codes that no validation image uses
    max_latent_growth: float | None = None  # latents' root mean square over that of the first report
    prune: bool = False  # stop a trial that breaks one, from ASHA's first rung on

    def __post_init__(self) -> None:
        allowed = {"min_perplexity": (1, None), "max_dead_codes": (0, 1), "max_latent_growth": (1, None)}
        for name, (least, most) in allowed.items():
            value = getattr(self, name)
            if value is not None and not (least <= value and (most is None or value <= most)):
                flag = "--" + name.replace("_", "-")
                raise ValueError(
                    f"{flag} is {value:g}; allowed is a number >= {least}{f' and <= {most}' if most else ''}"
                )

    def given(self) -> dict[str, float]:
        """The limits that are asked for, by name."""
        return {
            f.name: getattr(self, f.name) for f in fields(self) if f.name in WHAT and getattr(self, f.name) is not None
        }

    def excess(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is broken, relative to it; zero or less where it is kept.

        A metric that a model does not have breaks nothing.
        """
        found: dict[str, float] = {}
        for name, limit in self.given().items():
            metric, floor, _ = WHAT[name]
            value = metrics.get(f"valid/{metric}")
            if value is not None:
                scale = max(abs(limit), 1e-9)
                found[name] = (limit - value if floor else value - limit) / scale
        return found

    def broken(self, metrics: Mapping[str, float]) -> str:
        """In words, which limits are broken; empty when all are kept."""
        words = []
        for name, excess in self.excess(metrics).items():
            if excess > 0:
                metric, floor, text = WHAT[name]
                value, limit = metrics[f"valid/{metric}"], self.given()[name]
                words.append(f"{text} is {value:.3g}, {'below' if floor else 'above'} {limit:g}")
        return " and ".join(words)

    def described(self) -> str:
        """``perplexity >= 4, the share of dead codes <= 0.5``; empty when nothing is asked."""
        return ", ".join(
            f"{WHAT[name][2]} {'>=' if WHAT[name][1] else '<='} {limit:g}" for name, limit in self.given().items()
        )


NO_LIMITS = Limits()


def unhealthy(reason: str, seen: int) -> str:
    """The reason of a trial that was stopped for its codebook."""
    return f"codebook: {reason} at {seen:,} images"


def with_flags(limits: Limits, **flags: Any) -> Limits:
    """A sweep's limits with those changed that a command line gives; a flag that was not given is None."""
    values = {f.name: getattr(limits, f.name) for f in fields(limits)}
    return Limits(**(values | {name: value for name, value in flags.items() if value is not None}))
