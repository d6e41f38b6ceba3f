"""The training loop: a generator that knows nobody. The caller logs, saves and stops."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from vqvae_core.batches import Order, mix
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset, prepare
from vqvae_core.distributed import rank, sum_over_workers, world_size
from vqvae_core.hardware import choose_device, choose_precision, precision_context
from vqvae_core.overrides import difference, flatten
from vqvae_core.task import task_for
from vqvae_core.trainable import State, size

# What a continued run may do otherwise than before: go on for longer, elsewhere.
# (Which first stage a second one stands on is told by the examples' fingerprint, not by where it lies.)
MAY_CHANGE = {"train.images", "train.eval_every", "train.device", "train.eval_batch", "data.root", "data.source"} | {
    "model.first"
}


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Report:
    """What ``fit`` knows after so many images; ``state``, given back to ``fit``, continues from there.

    ``metrics`` is empty when training was interrupted between two evaluations.
    """

    images_seen: int
    metrics: dict[str, float]
    state: State


def fit(
    experiment: Experiment,
    state: State | None = None,
    dataset: Dataset | None = None,
    watch: Callable[[int], bool] | None = None,
) -> Iterator[Report]:
    """Train; yield a ``Report`` at every evaluation and at the end.

    With the ``state`` of one of its reports it continues with the numbers it would have had. Uses the
    ``torch.distributed`` group if there is one: ``train.batch_size`` is shared among the workers, each of which yields
    the same reports. ``watch`` is called after each step with the images seen; when it answers True, the next report is
    made at once, without an evaluation, and is the last. Seeds torch's global generator. Raises ``ValueError`` for a
    configuration that cannot be trained and ``Diverged`` when the loss is no longer finite.
    """
    dataset = dataset or prepare(experiment.data)
    run = _Run(experiment, dataset)
    if state is not None:
        run.load(state)
    while run.images_seen < experiment.train.images:
        report = run.until_report(watch)
        yield report
        if not report.metrics:
            return


class _Run:
    """One experiment being trained: everything that changes."""

    def __init__(self, experiment: Experiment, dataset: Dataset) -> None:
        self.experiment, self.config, self.dataset = experiment, experiment.train, dataset
        share = world_size() * self.config.accumulate
        if self.config.batch_size % share:
            raise ValueError(
                f"train.batch_size is {self.config.batch_size}; allowed is a multiple of {share} "
                f"({world_size()} workers x {self.config.accumulate} parts)"
            )
        self.device = choose_device(experiment)
        self.precision = precision_context(self.device, choose_precision(experiment, self.device))
        torch.manual_seed(mix("weights", experiment.seed))
        self.task = task_for(experiment, dataset, self.device, self.precision)
        self.model = self.task.model
        self.wrapped: torch.nn.Module = self.model
        if world_size() > 1:
            # Buffers are equal on all workers by construction; broadcasting rank 0's would hide it when they are not.
            self.wrapped = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.config.lr, fused=True if self.device.type == "cuda" else None
        )
        self.order = Order(self.task.count, experiment.seed)
        self.images_seen = 0
        self.seconds = 0.0  # spent in training steps, over all continuations
        self.first_rms: float | None = None  # of the latents at the first report, if the model has any
        self.window = _Window()

    def state(self) -> State:
        """Everything that ``load`` needs, copied: training on does not change it."""
        return {
            "experiment": flatten(self.experiment),
            "data": self.task.fingerprint,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "first_rms": self.first_rms,
            "window": _copied(dataclasses.asdict(self.window)),
            "model": _copied(self.model.state_dict()),
            "optimizer": _copied(self.optimizer.state_dict()),
            **self.task.carried(),
        }

    def load(self, state: State) -> None:
        may_change = MAY_CHANGE - {"train.images"} if self.model.anneals else MAY_CHANGE
        ours = {k: v for k, v in flatten(self.experiment).items() if k not in may_change}
        theirs = {k: v for k, v in state["experiment"].items() if k not in may_change}
        if changed := difference(theirs, ours):
            raise ValueError(f"the state to continue from is another experiment's: {changed}")
        if state["data"] != self.task.fingerprint:
            raise ValueError(
                f"the state to continue from has seen other images than those now in {self.dataset.folder}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.images_seen, self.seconds = state["images_seen"], state["seconds"]
        self.first_rms = state.get("first_rms")
        self.window = _Window(**state["window"])
        self.window.sums = {name: value.to(self.device) for name, value in self.window.sums.items()}

    def until_report(self, watch: Callable[[int], bool] | None) -> Report:
        """Train to the next multiple of the report interval, or the end, and evaluate; or until ``watch`` answers."""
        interval = self.config.report_interval
        window = self.window
        goal = min(self.config.images, (self.images_seen // interval + 1) * interval)
        began = time.perf_counter()
        while self.images_seen < goal:
            window.add(self.step())
            if window.steps % 50 == 0:
                self._check(window.sums["loss"])
            if watch and self._agree(watch(self.images_seen)) and self.images_seen < goal:
                self._check(window.sums["loss"])
                self._clock(began)
                return Report(self.images_seen, {}, self.state())
        self._check(window.sums["loss"])  # also waits for the device, so that the clock below is right
        self._clock(began)
        totals = sum_over_workers(torch.stack(list(window.sums.values()))) / (window.steps * world_size())
        metrics = {f"train/{name}": value for name, value in zip(window.sums, totals.tolist(), strict=True)}
        metrics["train/images_per_sec"] = window.steps * self.config.batch_size / window.seconds
        metrics["train/seconds"] = self.seconds
        metrics["train/parameters"] = float(size(self.model))
        self.window = _Window()
        metrics |= {f"valid/{name}": value for name, value in self.evaluate().items()}
        if "valid/latent_rms" in metrics:
            self.first_rms = self.first_rms or metrics["valid/latent_rms"]
            metrics["valid/latent_growth"] = metrics["valid/latent_rms"] / (self.first_rms or math.inf)
        if not math.isfinite(metrics["valid/bits_per_dim"]):  # the loss was the last step's, before its update
            raise self._diverged()
        return Report(self.images_seen, metrics, self.state())

    def step(self) -> Mapping[str, torch.Tensor]:
        """One optimiser step over ``batch_size`` images; the batch's mean loss and its terms, still on the device."""
        config, seen = self.config, self.images_seen
        numbers = self.order.take(seen, config.batch_size)
        count = len(numbers) // world_size()
        own = slice(rank() * count, (rank() + 1) * count)
        batch = self.task.batch(numbers[own])
        if self.model.noise:
            source = torch.Generator().manual_seed(mix("noise", self.experiment.seed, seen))
            noise = torch.rand(len(numbers), *self.model.noise, generator=source)
            batch = (*batch, noise[own].to(self.device))
        # Randomness is a function of the seed and the images seen, so no generator's state needs saving. Every worker
        # draws its own numbers, but codebooks are changed alike.
        torch.manual_seed(mix("step", self.experiment.seed, seen, rank()))
        shared = torch.Generator().manual_seed(mix("codebook", self.experiment.seed, seen))
        self.wrapped.train()
        self.model.before_step(seen / config.images)
        if seen == 0:
            with self.precision():
                self.model.start(batch, shared)
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, torch.Tensor] = {}
        # Every n-th image: batch normalisation then sees the same images together, however many workers share a part.
        parts = [tuple(t[number :: config.accumulate] for t in batch) for number in range(config.accumulate)]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            ddp = self.wrapped if isinstance(self.wrapped, DistributedDataParallel) else None
            with nullcontext() if last or ddp is None else ddp.no_sync():
                with self.precision():
                    out = self.wrapped(*part)
                (out.loss.mean() / len(parts)).backward()
            for name, value in {"loss": out.loss, **out.parts}.items():
                mean = value.detach().mean() / len(parts)
                means[name] = means[name] + mean if name in means else mean
        if config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self.optimizer.step()
        self.model.after_step(shared)
        self.images_seen = seen + config.batch_size
        return means

    def evaluate(self) -> dict[str, float]:
        self.model.eval()
        return self.task.evaluate()

    def _clock(self, began: float) -> None:
        elapsed = time.perf_counter() - began
        self.seconds += elapsed
        self.window.seconds += elapsed

    def _agree(self, wish: bool) -> bool:
        """Whether any worker wishes to stop; asked of all at every tenth step only, for the answer costs a round."""
        if world_size() == 1:
            return wish
        if self.window.steps % 10:
            return False
        return bool(sum_over_workers(torch.tensor(float(wish), device=self.device)))

    def _check(self, loss: torch.Tensor) -> None:
        # One worker's loss can be finite while another's is not; all must leave together, or the rest waits for ever.
        if not math.isfinite(float(sum_over_workers(loss.clone()))):
            raise self._diverged()

    def _diverged(self) -> Diverged:
        return Diverged(f"the loss is no longer finite at {self.images_seen} images (lr {self.config.lr:g})")


@dataclass
class _Window:
    """What was summed since the last report; part of the state, so that an interruption does not split a mean."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1


def _copied(value: Any) -> Any:
    """A state dict's tensors copied to the CPU, its containers rebuilt."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value
