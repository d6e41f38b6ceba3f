"""Experiments as flat dotted names: ``--model.num_codes 64``, tracker params, JSON, and the hash of a run."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import hashlib
import json
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from vqvae_core.config import (
    DataConfig,
    DVAEConfig,
    Experiment,
    HierarchyConfig,
    ModelConfig,
    PriorConfig,
    TrainConfig,
    VAEConfig,
    VIMCOConfig,
    VQVAEConfig,
    allowed,
    plain_types,
    type_hints,
)

MODELS: dict[str, type[ModelConfig]] = {
    config.type: config for config in (VQVAEConfig, VAEConfig, VIMCOConfig, DVAEConfig, PriorConfig, HierarchyConfig)
}


def flatten(experiment: Experiment) -> dict[str, Any]:
    """``{"data.name": "mnist", "model.type": "vqvae", ..., "seed": 0}``."""
    flat: dict[str, Any] = {}
    for name in ("data", "model", "train"):
        section = getattr(experiment, name)
        if name == "model":
            flat["model.type"] = section.type
        flat |= {f"{name}.{f.name}": getattr(section, f.name) for f in dataclasses.fields(section)}
    return flat | {"seed": experiment.seed}


def unflatten(flat: Mapping[str, Any]) -> Experiment:
    """The experiment that ``flatten`` was given; raises ``ValueError`` for a field that does not exist."""
    kinds = flat.get("model.type", VQVAEConfig.type)
    if kinds not in MODELS:
        raise ValueError(f"model.type is {kinds!r}; allowed is one of {', '.join(MODELS)}")
    base = Experiment(DataConfig(), MODELS[kinds](), TrainConfig())
    return with_overrides(base, {name: value for name, value in flat.items() if name != "model.type"})


def with_overrides(experiment: Experiment, overrides: Mapping[str, Any]) -> Experiment:
    """The experiment with some dotted fields changed.

    Values may be texts, as from a command line. Raises ``ValueError`` that names the field, the value and what is
    allowed.
    """
    known = {name for name in flatten(experiment) if name != "model.type"}
    changes: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}, "": {}}
    for name, value in overrides.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else "there are " + ", ".join(sorted(known))
            raise ValueError(f"{name} is not a field of this experiment; {hint}")
        section, _, field_name = name.rpartition(".")
        owner = getattr(experiment, section) if section else experiment
        changes[section][field_name] = parse(name, value, type(owner), field_name) if isinstance(value, str) else value
    sections = {
        name: dataclasses.replace(getattr(experiment, name), **changes[name]) for name in ("data", "model", "train")
    }
    return dataclasses.replace(experiment, **sections, **changes[""])


def parse(name: str, text: str, owner: type, field_name: str) -> Any:
    """A text as the value of a field; raises ``ValueError`` when it is not one."""
    spec = {f.name: f for f in dataclasses.fields(owner)}[field_name]
    hint = type_hints(owner)[field_name]
    kinds = plain_types(hint)
    if types.NoneType in kinds and text.lower() == "none":
        return None
    try:
        match kinds[0].__name__:
            case "bool":
                return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
            case "int":
                return int(text.replace("_", ""))
            case "float":
                return float(text)
            case _:
                return text
    except (ValueError, KeyError):
        raise ValueError(f"{name} is {text!r}; allowed is {allowed(spec, hint)}") from None


def to_json(experiment: Experiment) -> str:
    """The experiment as JSON text, one dotted field a line."""
    return json.dumps(flatten(experiment), indent=1)


def from_json(text: str) -> Experiment:
    """The experiment that ``to_json`` was given."""
    return unflatten(json.loads(text))


@cache
def code_version() -> str:
    """A hash of this package's own source: the same numbers are only to be expected from the same code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_key(experiment: Experiment, data_fingerprint: str) -> str:
    """A hash of all that decides a run's numbers: configuration, seed, data and code."""
    flat = flatten(experiment)
    # Where the files lie, and which device does the work, does not make it another run.
    decisive = {
        k: v for k, v in flat.items() if k not in ("data.root", "data.source", "train.device", "train.eval_batch")
    }
    text = json.dumps([decisive, data_fingerprint, code_version()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """``train.lr 0.0003 -> 0.001, model.beta 1 -> 2``; empty when nothing differs."""
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`` (did you mean mnist?)`` of the name that is most like this one; empty where none is."""
    close = difflib.get_close_matches(name.lower(), known := {other.lower(): other for other in names}, 1, 0.6)
    return f" (did you mean {known[close[0]]}?)" if close else ""


NO_NUMBER = re.compile(r"invalid (int|float) value: (.*)")  # what argparse says of a text that is no number


def _allowed_number(found: re.Match[str]) -> str:
    """The same with what is allowed."""
    return f"{found[2]}; allowed is {'an integer' if found[1] == 'int' else 'a number'}"


class OneLineParser(argparse.ArgumentParser):
    """``argparse`` whose errors are one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        fail(f"{self.prog}: {NO_NUMBER.sub(_allowed_number, message)}")


def at_least(least: float, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """An argparse type: a number that is not below ``least``."""
    noun = "an integer" if kind is int else "a number"

    def parse(text: str) -> float:
        try:
            value = kind(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}; allowed is {noun} >= {least:g}") from None
        if not value >= least:  # nor is NaN
            raise argparse.ArgumentTypeError(f"{text!r}; allowed is {noun} >= {least:g}")
        return value

    return parse


def first_line(error: BaseException) -> str:
    """What an exception says, as far as one line holds it; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def fail(message: str) -> NoReturn:
    """Say what was wrong in one line and leave with status 2, as for every mistake of a user."""
    print(" ".join(f"error: {message}".split()), file=sys.stderr)
    raise SystemExit(2)


def split_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """``["--model.beta", "2", "--seed=3"]`` -> ``{"model.beta": "2", "seed": "3"}``."""
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        head = rest.pop(0)
        if not head.startswith("--"):
            raise ValueError(f"{head!r} is not expected here; options look like --model.beta 0.25")
        name, equals, value = head[2:].partition("=")
        if not equals:
            if not rest or (rest[0].startswith("--")):
                raise ValueError(f"--{name} needs a value")
            value = rest.pop(0)
        overrides[name.replace("-", "_")] = value
    return overrides


def describe_fields(experiment: Experiment) -> str:
    """The ``--help`` of every dotted field: name, value, meaning and what is allowed."""
    lines = []
    for section in (experiment.data, experiment.model, experiment.train, experiment):
        hints = type_hints(type(section))
        for spec in dataclasses.fields(section):
            if "doc" not in spec.metadata:
                continue
            name = ".".join(part for part in (section.section, spec.name) if part)
            lines.append(f"  --{name} {getattr(section, spec.name)}")
            lines.append(f"        {spec.metadata['doc']} ({allowed(spec, hints[spec.name])})")
    return "\n".join(lines)
