"""From a sweep file to a finished sweep: ``launch(sweep)`` is all that a sweep file calls."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace

import optuna
from filelock import FileLock, Timeout
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler

from sweeps import _preflight as preflight
from sweeps._board import Board
from sweeps._budget import Meter
from sweeps._cache import Cache
from sweeps._cluster import connect
from sweeps._display import Display, open_display, progress
from sweeps._events import INTERRUPTED, NO_ROOM, NOTHING, SPENT, Events, code_tags, command, hardware
from sweeps._execute import StopFlag, execute, scheduler
from sweeps._finish import best_group, mean_image_floor, summarise, tag_front, test_best
from sweeps._first import encode_for, parent_of, share_one, tags_of_first
from sweeps._images import images_of, prepared_images
from sweeps._importance import importance, importance_text
from sweeps._journal import Journal
from sweeps._node import ends_with_ray, leave_if_lost
from sweeps._past import existing_storage
from sweeps._plan import Plan, describe_plan, make_plan
from sweeps._ranking import confirmed, outcome, pareto_table, ranking, where_next
from sweeps._resume import check_fixed, fixed, replicates, restore, restore_replicates
from sweeps._search import FixedList, OptunaSearcher, TrialSpec
from sweeps._settings import Settings, parse
from sweeps._signals import Signals
from sweeps._space import Sweep, describe
from sweeps._study import check_identity, fresh_name, open_storage, open_study
from sweeps._tracker import SWEEP, Tracker, check
from vqvae_core.data import Dataset
from vqvae_core.files import is_full
from vqvae_core.overrides import fail, flatten


def launch(sweep: Sweep, arguments: list[str] | None = None) -> None:
    """Run a sweep as the command line says. A mistake in it is one line and exit status 2, and nothing is written."""
    settings = parse(sweep, sys.argv[1:] if arguments is None else arguments, f"sweeps/{sweep.name}.py")
    try:
        with Signals() as signals:
            status = carry_out(sweep, settings, signals)
    except ValueError as error:
        fail(str(error))
    except KeyboardInterrupt:  # before there was a sweep to stop, or a second time
        print("\nstopped; the same command continues it", file=sys.stderr)
        status = INTERRUPTED
    except OSError as error:
        if not is_full(error):
            raise
        print(full(f"{error.strerror}: {error.filename}"), file=sys.stderr)
        status = NO_ROOM
    leave_if_lost(status)
    if status:
        raise SystemExit(status)


def carry_out(sweep: Sweep, settings: Settings, signals: Signals) -> int:
    """Do what the settings ask for; gives the exit status."""
    plan = make_plan(sweep, settings)
    if settings.dry_run:
        plan = as_it_would_be(plan, settings.fresh)
    if settings.dry_run and not settings.preflight:
        print(describe_plan(plan))
        return 0
    check(plan.tracking_uri)
    dataset = images_of(plan.base.data)
    plan = with_dataset(plan, dataset)
    if settings.dry_run:
        print(describe_plan(plan), flush=True)
        print(preflight.full(plan)[1])
        return 0
    storage = open_storage(plan.storage)
    plan = fresh_name(plan, storage) if settings.fresh else plan
    study = open_study(plan, storage)
    plan = replace(plan, part=study.user_attrs.get("part"))
    check_fixed(plan)
    with only_one(plan):
        return Run(plan, study, dataset, signals).go()


def full(what: str) -> str:
    """What a user is told when a disk is full."""
    return f"error: {what}; make room, then the same command continues the sweep"


def as_it_would_be(plan: Plan, fresh: bool) -> Plan:
    """The plan under the name that the sweep would have; ``ValueError`` where it would be refused. Writes nothing."""
    if have := prepared_images(plan.base.data):
        plan = replace(plan, data_fingerprint=have.fingerprint)
    storage = existing_storage(plan.storage)
    if storage and fresh:
        plan = fresh_name(plan, storage)
    elif storage:
        with suppress(KeyError):  # there is none of this name
            study = optuna.load_study(study_name=plan.name, storage=storage)
            if "identity" in study.user_attrs:
                check_identity(plan, study)
    check_fixed(plan)
    return plan


def with_dataset(plan: Plan, dataset: Dataset) -> Plan:
    """The plan, now that its images are known."""
    source = dataset.meta["source"]
    tags = {"data.fingerprint": dataset.fingerprint, "data.from": str(source.get("from", "unknown"))}
    if tags["data.from"] == "atari_collect":
        tags["data.collected"] = json.dumps(source)
    tags |= {f"data.{split}_images": str(count) for split, count in dataset.splits.items()}
    tags["data.shape"] = "x".join(map(str, dataset.shape))
    encode_for(plan.base, dataset)
    folder = dataset.folder.absolute()
    return replace(plan, dataset_folder=folder, data_fingerprint=dataset.fingerprint, data_tags=tags)


def only_one(plan: Plan) -> FileLock:
    """A lock that one driver of a sweep holds; ``ValueError`` when another one does."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(plan.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"the sweep {plan.name} is running already; give --name or --fresh for another one") from None
    return lock


class Run:
    """One driver's work on a sweep, from the first trial or from where the last driver got to."""

    def __init__(self, plan: Plan, study: optuna.Study, dataset: Dataset, signals: Signals) -> None:
        self.plan, self.study, self.dataset, self.signals = plan, study, dataset, signals
        self.journal = Journal(plan.folder)
        self.tracker = Tracker(plan.tracking_uri, plan.experiment_name, study.user_attrs["sweep.id"], self.journal)
        self.board = Board(plan.trials, plan.concurrent)
        gpus = plan.workers * plan.gpus_per_worker
        meter = Meter(plan.folder, plan.budget, gpus, lambda: self.board.count("running"))
        self.stop = StopFlag(plan.folder, meter)
        self.cache = self._cache() if plan.cache else None
        self.display: Display | None = None

    def _cache(self) -> Cache:
        away, folder = (lambda: self.tracker.trouble is not None), self.plan.folder.parent
        return Cache(self.plan.tracking_uri, self.tracker.sweep_id, folder, self.plan.data_fingerprint, away)

    def go(self) -> int:
        """Search, confirm, finish; gives the exit status, 0 at the end of the sweep."""
        print(describe_plan(self.plan), flush=True)
        self.tracker.start()
        try:
            with ends_with_ray(self._close_display):
                self._begin()
                self._train()
                if not self.stop.raised.is_set():
                    self._finish()
        except KeyboardInterrupt:
            if self.stop.raised.is_set():  # a second time
                raise
            self.stop.ask()
        finished = not self.stop.raised.is_set()
        if not finished:
            self._stopped()
        self._close(finished)
        if finished:
            return 0 if self.board.count("complete") else NOTHING
        if self.stop.status == NO_ROOM:
            print(full(self.stop.reason), file=sys.stderr)
        return self.stop.status

    def _begin(self) -> None:
        """Everything before the first trial."""
        if "tested" not in self.study.user_attrs:  # else there may be nothing left for Ray to do
            connect(self.plan.cluster, with_groups=self.plan.workers > 1)
            self.signals.take()
        tags = {"stage": "sweep", "question": self.plan.sweep.question, "command": command(), "hardware": hardware()}
        space = {name: describe(dimension) for name, dimension in self.plan.sweep.space.items()}
        tags["mlflow.note.content"] = f"{self.plan.sweep.question}\n\n    {command()}"
        tags |= {"space": json.dumps(space), **self.plan.data_tags, **code_tags()}
        if not self.plan.sweep.fixed or share_one(spec.experiment for spec in fixed(self.plan)):
            tags |= tags_of_first(self.plan.base) | parent_of(self.plan.base, self.plan.tracking_uri)
        self.journal.add("start", SWEEP, name=self.plan.name, tags=tags, params=flatten(self.plan.base))
        self._continue()
        self._preflight()

    def _train(self) -> None:
        self.display = open_display(self.board)
        try:
            with self.signals.tell(self.stop.ask):
                self._search(self.display)
                self._confirm(self.display)
        finally:
            self._close_display()
        self.stop.file.unlink(missing_ok=True)

    def _close_display(self) -> None:
        if self.display:
            self.display.close()

    def _continue(self) -> None:
        restore(self.plan, self.study, self.board, self.journal)
        left = len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        if self.board.rows or left:
            print(f"continuing: {len(self.board.rows)} trials are over, {left} were in flight", flush=True)

    def _preflight(self) -> None:
        """Say what the sweep will cost; when all corners are measured, run it as it fits."""
        if self.plan.preflight:
            plan, text = preflight.full(self.plan)
            begun = self.study.get_trials(deepcopy=False) or any((plan.folder / "trials").glob("*"))
            # Batches are cut alike from the first trial to the last: a checkpoint knows how its own were.
            self.plan = replace(plan, part=self.plan.part) if begun else plan
            self.study.set_user_attr("part", self.plan.part)
            self.board.concurrent = self.plan.concurrent
            print(text, flush=True)
        elif not self.board.rows and (text := preflight.short(self.plan)):
            print(f"{'cost':10}{text}", flush=True)

    def _search(self, display: Display) -> None:
        count = self.plan.trials - len(self.board.rows)
        if count > 0:
            self.stop.ask_if_spent()
        if count > 0 and not self.stop.raised.is_set():
            events = Events(self.plan, self.board, self.journal, display, self.stop, "search", self.cache)
            searcher = OptunaSearcher(self.plan, self.study, events.started, events.taken)
            execute(self.plan, searcher, count, scheduler(self.plan, searcher, events), events, self.stop)

    def _confirm(self, display: Display) -> None:
        if self.stop.raised.is_set():
            return
        if self.plan.sweep.fixed:
            self._list(display, fixed(self.plan), "fixed", "training")
        else:
            why = f"confirming the best {self.plan.confirm} with {self.plan.seeds} seeds each:"
            self._list(display, replicates(self.plan, self.study), "confirm", why)

    def _list(self, display: Display, specs: list[TrialSpec], stage: str, why: str) -> None:
        restore_replicates(specs, self.board, self.journal)
        specs = [spec for spec in specs if spec.run not in self.board.rows]
        if specs:
            self.stop.ask_if_spent()
        if specs and not self.stop.raised.is_set():
            self.board.planned = len(self.board.rows) + len(specs)
            display.say(f"{why} {len(specs)} runs")
            events = Events(self.plan, self.board, self.journal, display, self.stop, stage, self.cache)
            searcher = FixedList(self.plan, specs, events.started, events.taken)
            execute(self.plan, searcher, len(specs), FIFOScheduler(), events, self.stop)

    def _finish(self) -> None:
        floor = mean_image_floor(self.dataset, self.plan)
        best = best_group(self.board)
        if best:
            test_best(self.plan, self.study, self.board, best, self.journal)
        note = f"{self.plan.sweep.question}\n\n{outcome(best)}\n\n    {command()}"
        self.journal.add("tags", SWEEP, tags={"mlflow.note.content": note})
        summarise(self.board, floor, best, importance(self.study), self.journal)
        print(f"\n{ranking(self.board, floor)}\n")
        if len(self.plan.objectives) > 1:
            tag_front(self.board, self.plan.objectives, self.journal)
            print(f"{pareto_table(self.board, self.plan.objectives)}\n")
        if self.plan.seeds > 1:
            print(f"{confirmed(self.board)}\n")
        if self.plan.sweep.space:
            print(importance_text(self.study))
        print(outcome(best))

    def _stopped(self) -> None:
        """Before its end: the sweep's own run says so, and whoever gave a budget sees what it has bought."""
        tags = {"status.reason": f"{self.stop.cause}: {progress(self.board)}"}
        with suppress(OSError):  # a full disk, which is told below
            if SWEEP in self.journal.started:
                self.journal.add("end", SWEEP, state="stopped", tags=tags)
        if self.stop.status == SPENT and self.board.rows:
            print(f"\n{ranking(self.board, mean_image_floor(self.dataset, self.plan))}\n")

    def _close(self, finished: bool) -> None:
        kept = self.tracker.close()
        self.journal.close()
        if kept:
            print(
                f"warning: {kept} events could not be told to {self.plan.tracking_uri} ({self.tracker.trouble}); "
                f"they are kept in {self.plan.folder} and the same command tells them",
                file=sys.stderr,
            )
        for text in self.tracker.refused:
            print(f"warning: the tracker refused the {text}", file=sys.stderr)
        if finished:
            print(where_next(self.plan))
        elif self.stop.status == SPENT:
            print(f"{self.stop.reason}; {progress(self.board)}. The same command with a larger --budget continues it.")
        else:
            print(f"stopped; {progress(self.board)}. The same command continues it.")
