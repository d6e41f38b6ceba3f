"""Published results: bits/dim with everything that a reader needs to judge and to repeat them, as small JSON files.

A file is ``{"kind": "bits_per_dim", "rows": [...]}``; files of another kind are somebody else's. A row is a ``Result``,
field by field, null where something is unknown:

    {"dataset": "mnist", "model": "vqvae", "split": "test",
     "value": 1.234, "interval": 0.005, "n": 3, "seeds": [0, 1, 2], "values": [1.232, 1.234, 1.236],
     "D": 1.1, "R": 0.134, "prior": "unigram", "rates": {"uniform": 0.5625, "unigram": 0.134},
     "eq7": 6.221, "eq7_values": [6.22, 6.221, 6.222],
     "bounds": {"s1": 1.24, "s10": 1.23, "s50": 1.22}, "bound_images": 256, "unigram_pixels": 1.967,
     "images_seen": [1000000, 1000000, 1000000],
     "data": {"from": "...", "fingerprint": "...", "train": 54000, "valid": 6000, "test": 10000},
     "sweep": "table1-mnist", "command": "python sweeps/...", "commit": ["<hash>"], "dirty": false,
     "hardware": "1 x NVIDIA H200", "config": {"model.beta": "1.0", ...}, "runs": ["<id in the tracker>", ...]}
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqvae_core.files import write_whole

KIND = "bits_per_dim"
OF_FIRST = "first."  # before a field of the first stage, in the configuration of a second


@dataclass(frozen=True)
class Result:
    """What one configuration of a model is worth on one split of a data set, in bits/dim."""

    dataset: str
    model: str
    value: float  # mean over seeds of distortion plus rate, an upper bound on -log2 p(x) per dimension
    interval: float | None  # half the width of its 95 % interval (Student's t); None for one seed
    n: int  # seeds
    D: float | None  # distortion
    R: float | None  # rate under the prior
    prior: str | None  # the one that priced R: unigram, uniform, learned, ...
    data: Mapping[str, Any]  # from, fingerprint, and the number of images in each split
    command: str | None  # that gives these numbers again
    commit: Sequence[str]  # of the code, all that the seeds were trained with
    hardware: str | None
    split: str = "test"
    seeds: Sequence[int | None] = ()
    values: Sequence[float] = ()  # bits/dim of each seed
    rates: Mapping[str, float] = field(default_factory=dict)  # R under every prior that was measured
    eq7: float | None = None  # the report's Equation 7: not a likelihood
    eq7_values: Sequence[float] = ()  # of each seed
    bounds: Mapping[str, float] = field(default_factory=dict)  # L_S of models that sample z, "s1", "s10", ...
    bound_images: int | None = None  # that L_S was measured on
    unigram_pixels: float | None = None  # of a code for single pixels by one histogram: what to beat
    images_seen: Sequence[int] = ()  # by the model that was measured, of each seed
    dirty: bool = False  # the code had been changed since the commit
    sweep: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)  # all settings but the seed
    runs: Sequence[str] = ()  # ids in the tracker

    @property
    def row(self) -> str:
        """Its row of the table, as ``sweeps/table1.py`` names them: vqvae, vqvae_mse, ..."""
        return row_of(self.model, self.config)


def row_of(model: str, config: Mapping[str, str]) -> str:
    """The row of a configuration: what its sweep noted, else the model, with _mse when trained on squared errors.

    vqvae_mse has the report's codebook, which is trained by gradients; any other kind is a row of its own. A second
    stage's row is its first stage's and its own kind: vqvae_prior.
    """
    if first := first_of(config):
        return config.get("row") or f"{row_of(model, first)}_{config['model.type']}"
    errors = config.get("model.scale") == "fitted" and config.get("model.likelihood") in ("logistic", "gaussian")
    codebook = config.get("model.quantizer", "gradient")
    names = {"gradient": f"{model}_mse", "ema": f"{model}_ema"}
    return config.get("row") or (names.get(codebook, f"{model}_{codebook}_mse") if errors else model)


def first_of(config: Mapping[str, str]) -> dict[str, str]:
    """The first stage's settings in a second stage's configuration; empty for a model of images."""
    return {name.removeprefix(OF_FIRST): value for name, value in config.items() if name.startswith(OF_FIRST)}


def read_results(folder: Path) -> list[tuple[str, Result]]:
    """All published rows under ``folder``, each with the name of its file; none when there is no such folder.

    Raises ``ValueError`` that names the file and what is wrong in it.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text())
            if isinstance(content, dict) and content.get("kind") == KIND:
                found += [(path.name, _result(row)) for row in content["rows"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no file of published results ({error!r})") from None
    return found


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Publish results in a file, replacing it whole; ``ValueError`` when it cannot be written."""
    content = {"kind": KIND, "rows": [as_json(result) for result in results]}
    try:
        write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror})") from None


def as_json(result: Result) -> dict[str, Any]:
    """A result as JSON holds it: a number that is not finite becomes null."""
    content: dict[str, Any] = _finite(dataclasses.asdict(result))
    return content


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
    return value


def _result(row: Mapping[str, Any]) -> Result:
    """A row of a file, checked as far as it is going to be formatted."""
    spec = {f.name: f for f in dataclasses.fields(Result)}
    result = Result(**{name: value for name, value in row.items() if name in spec})
    for name in ("value", "interval", "n", "D", "R", "eq7", "unigram_pixels", "bound_images"):
        value = getattr(result, name)
        optional = name not in ("value", "n")
        if (value is None and not optional) or not isinstance(value, int | float | None) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; allowed is a number")
    texts, objects = ("dataset", "model", "split"), ("data", "rates", "bounds", "config")
    lists = ("commit", "seeds", "values", "eq7_values", "images_seen", "runs")
    for names, kind, words in ((texts, str, "a text"), (objects, dict, "an object"), (lists, (list, tuple), "a list")):
        for name in names:
            if not isinstance(getattr(result, name), kind):
                raise ValueError(f"{name} is {getattr(result, name)!r}; allowed is {words}")
    return result


def this_machine() -> str:
    """The hardware that this process runs on, in words."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{cores} x {cpu}"
    import torch  # seconds, and only needed to publish

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return words + "".join(f", 1 x {gpu}" for gpu in gpus)
