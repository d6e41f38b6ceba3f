"""Where the last driver got to, from the study and the checkpoints."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps._board import Board, Row
from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._search import TrialSpec, settle
from sweeps._space import LIST, TPE
from sweeps._trial import shown_of
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment
from vqvae_core.overrides import difference, flatten
from vqvae_core.train import MAY_CHANGE

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def restore(plan: Plan, study: optuna.Study, board: Board, journal: Journal) -> None:
    """Put the trials that are over on the board; what the journal missed of their end is noted there."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        record = json.loads(trial.user_attrs.get("record", "{}"))
        if "state" in record:  # the last driver had decided, and died before the study knew
            settle(study, optuna.Trial(study, trial._trial_id), record)
    for trial in study.get_trials(deepcopy=False, states=tuple(STATES)):
        row = row_of(trial, plan.base)
        board.rows[row.run] = row
        if row.run not in journal.ended and row.run in journal.started:
            if row.metrics:
                journal.add("report", row.run, step=row.images_seen, metrics=row.metrics)
            for path in shown_of(plan.folder / "trials" / row.run):
                journal.add("artifact", row.run, path=str(path))
            journal.add("end", row.run, state=row.state, tags={"status.reason": row.reason, "trial.state": row.state})


def row_of(trial: FrozenTrial, base: Experiment) -> Row:
    """A finished trial of the study as a row of the board."""
    record: dict[str, Any] = json.loads(trial.user_attrs.get("record", "{}"))
    return Row(
        run=f"{trial.number:03d}",
        origin=trial.user_attrs.get("origin", TPE),
        point=dict(trial.params),
        seed=base.seed,
        parent="sweep",
        budget=base.train.images,
        state=STATES[trial.state],
        reason=record.get("reason", ""),
        images_seen=record.get("images_seen", 0),
        value=record.get("objective", math.inf),
        metrics=record.get("metrics", {}),
        seconds=record.get("seconds", 0.0),
        unhealthy=record.get("unhealthy", ""),
        taken=record.get("taken", ""),
    )


def is_healthy(trial: FrozenTrial) -> bool:
    """Whether a finished trial keeps to the limits of its codebook, if there are any."""
    return all(excess <= 0 for excess in trial.constraints.values())


def replicates(plan: Plan, study: optuna.Study) -> list[TrialSpec]:
    """The best trials once more with each further seed, as children of their trial."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = sorted(complete, key=lambda trial: (not is_healthy(trial), trial.values[0], trial.number))[: plan.confirm]
    return [
        TrialSpec(
            number=trial.number,
            run=f"{trial.number:03d}-seed-{seed}",
            point=dict(trial.params),
            origin=f"trial {trial.number:03d}",
            experiment=plan.experiment(dict(trial.params), seed),
            folder=plan.folder / "trials" / f"{trial.number:03d}-seed-{seed}",
            parent=f"{trial.number:03d}",
        )
        for trial in best
        for seed in range(plan.base.seed + 1, plan.base.seed + plan.seeds)
    ]


def fixed(plan: Plan) -> list[TrialSpec]:
    """The runs of a sweep that is a list of them."""
    return [
        TrialSpec(
            number=number,
            run=name,
            point=dict(point),
            origin=LIST,
            experiment=plan.experiment(point),
            folder=plan.folder / "trials" / name,
            parent="sweep",
        )
        for number, (name, point) in enumerate(plan.sweep.fixed.items())
    ]


def check_fixed(plan: Plan) -> None:
    """``ValueError`` when a run of the list was begun with other settings than it has now."""
    for spec in fixed(plan):
        last = Keeper(spec.folder / "checkpoints").last()
        if last is None:
            continue
        before, now = (
            {k: v for k, v in flatten(e).items() if k not in MAY_CHANGE} for e in (last.experiment, spec.experiment)
        )
        if changed := difference(before, now):
            raise ValueError(
                f"the run {spec.run} in {spec.folder} has other settings: {changed}; give --name or --fresh"
            )


def restore_replicates(specs: list[TrialSpec], board: Board, journal: Journal) -> None:
    """Put those replicates on the board that an earlier driver brought to an end, as the journal has it."""
    for spec in specs:
        end = journal.ended.get(spec.run)
        if end and end["state"] != "stopped":
            budget = spec.experiment.train.images
            row = Row(spec.run, spec.origin, spec.point, spec.experiment.seed, spec.parent, budget, end["state"])
            row.reason, row.taken = end["tags"]["status.reason"], end["tags"].get("cache.from", "")
            if report := journal.reports.get(spec.run):
                row.images_seen, row.metrics = report["step"], report["metrics"]
                row.value = row.metrics["valid/bits_per_dim"]
            board.rows[spec.run] = row
