"""A trial that is complete in the tracker is taken from there: by another sweep, by a replicate, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps._board import Board
from sweeps._cache import Cache, Found
from sweeps._display import PlainLines
from sweeps._events import Events
from sweeps._execute import StopFlag
from sweeps._journal import Journal
from sweeps._launch import launch, with_dataset
from sweeps._plan import Plan
from sweeps._ranking import remark
from sweeps._resume import fixed, restore, restore_replicates
from sweeps._search import FixedList, OptunaSearcher
from sweeps._space import Sweep, known_points
from sweeps._study import open_storage, open_study
from sweeps._trial import train
from vqvae_core.checkpoint import Keeper
from vqvae_core.data import prepare
from vqvae_core.overrides import flatten, run_key, with_overrides

SMALL = ["--dataset", "digits", "--train.calibration_images", "64", "--model.hidden", "8"]
SMALL += ["--model.num_codes", "16", "--model.code_dim", "4"]


@pytest.fixture
def client(tracked: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tracked}/mlflow.db")


@pytest.fixture
def plan(make: Callable[..., Plan]) -> Plan:
    return replace(make("--images", "400"), data_fingerprint="these images")


@pytest.fixture
def cache(tracked: Path, plan: Plan) -> Iterator[Cache]:
    yield Cache(f"sqlite:///{tracked}/mlflow.db", "ours-00000000", tracked / "runs", "these images", lambda: False)


def tell(client: MlflowClient, plan: Plan, state: str = "complete", seen: int = 400, **tags: str) -> str:
    """A run in the tracker with two reports."""
    experiment = client.get_experiment_by_name("digits/other")
    number = experiment.experiment_id if experiment else client.create_experiment("digits/other")
    own = {"trial.key": run_key(plan.base, "these images"), "trial.state": state}
    own |= {"sweep.id": "theirs-0123abcd", "sweep.run": "007"} | {k.replace("_", "."): v for k, v in tags.items()}
    run = client.create_run(number, tags=own)
    for step, value in ((200, 4.0), (seen, 3.5)):
        metrics = {"valid/bits_per_dim": value, "train/loss": value / 2, "test/bits_per_dim": 9.0}
        client.log_batch(run.info.run_id, [Metric(name, v, 0, step) for name, v in metrics.items()])
    return str(run.info.run_id)


def test_a_complete_run_of_the_same_key_is_found_in_any_experiment(
    client: MlflowClient, plan: Plan, cache: Cache
) -> None:
    assert cache.find(plan.base, "000") is None
    run_id = tell(client, plan)
    found = cache.find(plan.base, "000")
    assert found is not None
    assert (found.run_id, found.origin) == (run_id, "trial 007 of theirs")
    assert found.reports == [
        (200, {"valid/bits_per_dim": 4.0, "train/loss": 2.0}),
        (400, {"valid/bits_per_dim": 3.5, "train/loss": 1.75}),
    ]


def test_the_last_batch_may_go_beyond_the_budget(client: MlflowClient, plan: Plan, cache: Cache) -> None:
    tell(client, plan, seen=416)
    found = cache.find(plan.base, "000")
    assert found is not None and found.reports[-1][0] == 416


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"model.beta": 0.7}, {"train.images": 800}, {"train.batch_size": 16}], ids=str
)
def test_another_configuration_seed_or_budget_is_not(
    client: MlflowClient, plan: Plan, cache: Cache, change: dict[str, float]
) -> None:
    tell(client, plan)
    assert cache.find(plan.base, "000") is not None
    assert cache.find(with_overrides(plan.base, change), "000") is None


def test_what_was_not_finished_is_not(client: MlflowClient, plan: Plan, cache: Cache) -> None:
    for state in ("pruned", "failed", "stopped"):
        tell(client, plan, state)
    tell(client, plan, "complete", seen=300)  # its last report was refused
    assert cache.find(plan.base, "000") is None


def test_a_trial_does_not_stand_for_itself_but_for_another_of_its_sweep(
    client: MlflowClient, plan: Plan, cache: Cache
) -> None:
    tell(client, plan, sweep_id="ours-00000000", sweep_run="004")
    assert cache.find(plan.base, "004") is None
    assert cache.find(plan.base, "005") is not None


def test_a_copy_of_a_copy_names_the_run_that_was_trained(client: MlflowClient, plan: Plan, cache: Cache) -> None:
    trained = tell(client, plan)
    copied = {"cache_from": "trial 007 of theirs", "cache_run": trained}
    tell(client, plan, sweep_id="copies-0123abcd", sweep_run="002", **copied)
    found = cache.find(plan.base, "000")
    assert found is not None
    assert (found.run_id, found.origin, found.sweep, found.run) == (trained, "trial 007 of theirs", "theirs", "007")
    client.delete_run(trained)  # its copy still knows it, and has its checkpoints
    found = cache.find(plan.base, "000")
    assert found is not None
    assert (found.run_id, found.origin, found.sweep, found.run) == (trained, "trial 007 of theirs", "copies", "002")


def test_a_tracker_that_is_away_has_nothing(client: MlflowClient, plan: Plan, cache: Cache, tracked: Path) -> None:
    tell(client, plan)
    cache.away = lambda: True
    assert cache.find(plan.base, "000") is None
    nobody = Cache("http://127.0.0.1:9", "ours-00000000", tracked, "these images", lambda: False)
    assert nobody.find(plan.base, "000") is None


class TestSearch:
    """A driver's searcher and events with a cache, up to where Tune would train."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        journal = Journal(tmp_path / "sweep")
        yield journal
        journal.close()

    def driver(self, plan: Plan, cache: Cache | None, journal: Journal) -> tuple[OptunaSearcher, Board]:
        study, board = open_study(plan, open_storage(plan.storage)), Board(plan.trials, 1)
        restore(plan, study, board, journal)
        events = Events(plan, board, journal, PlainLines(board), StopFlag(plan.folder), "search", cache)
        return OptunaSearcher(plan, study, events.started, events.taken), board

    def tell_first(self, client: MlflowClient, plan: Plan) -> None:
        """The tracker has the first trial of the plan: the report's point."""
        point = next(iter(known_points(plan.sweep, flatten(plan.base)).values()))
        tell(client, replace(plan, base=plan.experiment(point)))

    def test_goes_on_behind_what_is_complete_and_tells_everyone_once(
        self, client: MlflowClient, plan: Plan, cache: Cache, journal: Journal
    ) -> None:
        self.tell_first(client, plan)
        searcher, board = self.driver(plan, cache, journal)
        config = searcher.suggest("tune's name")
        assert config["folder"].endswith("trials/001")
        row = board.rows["000"]
        assert (row.state, row.value, row.images_seen, row.taken) == ("complete", 3.5, 400, "trial 007 of theirs")
        assert remark(row) == "the report's point; taken from trial 007 of theirs"
        first = searcher.study.trials[0]
        assert (first.state, first.value) == (TrialState.COMPLETE, 3.5)
        assert first.intermediate_values == {200: 4.0, 400: 3.5}
        kinds = [event["kind"] for _, event in journal.untold() if event["run"] == "000"]
        assert kinds == ["start", "report", "report", "end"]

        again, board = self.driver(plan, cache, journal)
        assert again.suggest("another name")["folder"].endswith("trials/001")  # in flight
        assert remark(board.rows["000"]) == "the report's point; taken from trial 007 of theirs"
        assert [event["kind"] for _, event in journal.untold() if event["run"] == "000"] == kinds

    def test_with_all_complete_has_nothing_for_tune(
        self, client: MlflowClient, plan: Plan, cache: Cache, journal: Journal
    ) -> None:
        plan = replace(plan, trials=1)
        self.tell_first(client, plan)
        searcher, board = self.driver(plan, cache, journal)
        assert searcher.suggest("tune's name") == Searcher.FINISHED
        assert board.ended == 1

    def test_repeats_it_when_told_to(self, client: MlflowClient, plan: Plan, cache: Cache, journal: Journal) -> None:
        self.tell_first(client, plan)
        searcher, _ = self.driver(plan, None, journal)
        assert searcher.suggest("tune's name")["folder"].endswith("trials/000")

    def test_a_list_of_runs_is_shortened_alike(
        self, client: MlflowClient, plan: Plan, cache: Cache, journal: Journal
    ) -> None:
        runs = {"a": {"model.beta": 1.0}, "b": {"model.beta": 2.0}}
        plan = replace(plan, sweep=Sweep("list", "?", {}, fixed=runs))
        tell(client, replace(plan, base=plan.experiment({"model.beta": 1.0})))
        board = Board(0, 1)
        events = Events(plan, board, journal, PlainLines(board), StopFlag(plan.folder), "fixed", cache)
        listed = FixedList(plan, fixed(plan), events.started, events.taken)
        assert listed.suggest("one")["folder"].endswith("trials/b")
        assert listed.suggest("two") == Searcher.FINISHED
        board = Board(0, 1)
        restore_replicates(fixed(plan), board, journal)
        assert board.rows["a"].taken == "trial 007 of theirs" and board.rows["a"].value == 3.5

    def test_checkpoints_come_along_where_they_are_those_of_the_run(
        self, plan: Plan, tracked: Path, client: MlflowClient, cache: Cache
    ) -> None:
        plan = with_dataset(plan, prepare(plan.base.data))
        experiment = with_overrides(plan.base, {"train.images": 50, "train.eval_every": 32})
        there = tracked / "runs" / "theirs" / "trials" / "007"
        for _ in train(experiment, prepare(plan.base.data), there):
            pass
        cache.fingerprint = plan.data_fingerprint
        found = Found("id", "trial 007 of theirs", "theirs", "007", [(64, {"valid/bits_per_dim": 3.5})])
        ours = tracked / "runs" / "ours" / "trials" / "000"
        assert not cache.bring(found, with_overrides(experiment, {"model.beta": 0.9}), ours) and not ours.exists()
        assert cache.bring(found, experiment, ours)
        left, right = (Keeper(folder / "checkpoints").reported() for folder in (there, ours))
        assert left is not None and right is not None
        assert (left.metrics, left.images_seen) == (right.metrics, 64)
        weights = [checkpoint.folder / "model.safetensors" for checkpoint in (left, right)]
        assert weights[0].samefile(weights[1])
        assert (ours / "reconstructions.png").exists() and not (ours / "lock").exists()
        assert not cache.bring(replace(found, run="008"), experiment, ours.with_name("001"))


def runs_of(folder: Path, experiment: str, sweep: str) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    return {r.data.tags["sweep.run"]: r for r in runs if r.data.tags["sweep.id"].startswith(f"{sweep}-")}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_second_sweep_trains_only_what_the_first_did_not(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.beta_lr import sweep

    arguments = [*SMALL, "--images", "400", "--train.eval_every", "200", "--scheduler", "none", "--concurrent", "1"]
    launch(sweep, [*arguments, "--trials", "3", "--name", "first", "--seeds", "2", "--confirm", "1"])
    first = capsys.readouterr().out
    assert "taken from" not in first

    launch(sweep, [*arguments, "--trials", "4", "--name", "second", "--seeds", "2", "--confirm", "1"])
    second = capsys.readouterr().out
    for number in range(3):
        assert f"taken from trial {number:03d} of first" in second
    assert second.count("starts") <= 2  # trial 003, and a replicate where 003 is the best
    before, after = runs_of(tracked, "digits/beta_lr", "first"), runs_of(tracked, "digits/beta_lr", "second")
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    for run in ("000", "001", "002"):
        assert after[run].data.tags["cache.run"] == before[run].info.run_id
        assert after[run].data.tags["cache.from"] == f"trial {run} of first"
        assert after[run].data.tags["status.reason"].startswith(f"taken from trial {run} of first")
        points = [
            [(m.step, m.value) for m in client.get_metric_history(r.info.run_id, "valid/bits_per_dim")]
            for r in (before[run], after[run])
        ]
        assert points[0] == points[1]
    storage = f"sqlite:///{tracked}/optuna.db"
    theirs, ours = (optuna.load_study(study_name=name, storage=storage).trials for name in ("first", "second"))
    assert [t.value for t in ours[:3]] == [t.value for t in theirs]
    assert [t.intermediate_values for t in ours[:3]] == [t.intermediate_values for t in theirs]

    launch(sweep, [*arguments, "--trials", "4", "--name", "second", "--seeds", "2", "--confirm", "1"])
    again = capsys.readouterr().out
    assert again[again.index("rank") :] == second[second.index("rank") :]

    # All of a sweep, its winner's test figures from the checkpoint that came along; and nothing of it.
    launch(sweep, [*arguments, "--trials", "3", "--name", "third"])
    third = capsys.readouterr().out
    assert "starts" not in third and "trained again" not in third
    assert third[third.index("best: trial") :].split("\n")[0] in first or "best: trial" in third
    launch(sweep, [*arguments, "--trials", "3", "--name", "fourth", "--no-cache"])
    fourth = capsys.readouterr().out
    assert fourth.count("starts") == 3 and "taken from" not in fourth
    assert fourth[fourth.index("best: trial") :].split("\n")[0] == third[third.index("best: trial") :].split("\n")[0]
