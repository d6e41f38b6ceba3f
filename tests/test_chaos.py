"""A few rounds of ``make chaos``: the benchmark's own kills and comparisons, against one undisturbed sweep."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks._disturbed import Place, Wrong, below, check_equal, check_run, end_all, places, wait_for
from benchmarks._nodes import plain_environment, ray_head, short_folder

BUDGET = ["--trials", "4", "--images", "4500", "--concurrent", "1"]
CLUSTER = {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "VQSWEEP_GROWS_TO": "CPU=2"}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Place]]:
    with places(tmp_path_factory.mktemp("chaos"), [*chaos.SMALL, *BUDGET], **CLUSTER) as maker:
        yield maker


@pytest.fixture(scope="module")
def calm(make: Callable[..., Place]) -> chaos.Calm:
    return chaos.undisturbed(make)


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again(make: Callable[..., Place], calm: chaos.Calm) -> None:
    count = chaos.Count()
    place = make("driver")
    # Of this seed, the driver alone early in its training, and then everything early in the next one's start.
    table = chaos.kill_driver(place, random.Random(110), 2, calm.seconds / 2, count)
    assert count.kills == 2
    assert check_run(place, table, calm.place, calm.table) > 100


@pytest.mark.slow
def test_a_trials_actor_that_is_killed_goes_on_from_its_last_report(
    make: Callable[..., Place], calm: chaos.Calm
) -> None:
    count = chaos.Count()
    place = make("actor")
    table = chaos.kill_process(chaos.ACTOR)(place, random.Random(1), 1, 0, count)
    assert count.kills == count.continued == 1  # at once after its first report of nine
    check_run(place, table, calm.place, calm.table)


@pytest.mark.slow
def test_a_train_worker_that_is_killed_goes_on_from_its_last_report(make: Callable[..., Place]) -> None:
    count = chaos.Count()
    place = make("worker")
    place = replace(place, command=[*place.command, "--workers", "2", "--trials", "1"])
    table = chaos.kill_process(chaos.WORKER)(place, random.Random(1), 1, 0, count)
    assert count.kills == count.continued == 1
    assert check_run(place, table, None, "") > 100


@pytest.mark.slow
def test_a_node_that_is_lost_with_its_raylet(make: Callable[..., Place], calm: chaos.Calm, tmp_path: Path) -> None:
    count = chaos.Count()
    environment = plain_environment(tmp_path, **CLUSTER)
    with short_folder() as folder, ray_head(folder / "head", environment, "--num-cpus=0") as address:
        place = make("node", RAY_ADDRESS=address)
        table = chaos.kill_raylet(address, folder, environment, place, random.Random(1), 1, count)
    assert count.kills == 1
    check_run(place, table, calm.place, calm.table)


@pytest.mark.slow
def test_a_sweep_whose_own_ray_is_killed_says_so_and_goes_on(make: Callable[..., Place], calm: chaos.Calm) -> None:
    """It would wait for ever for actors that are gone."""
    place, continued = make("own-ray"), list[tuple[dict[str, int], int]]()  # what was reported at each death
    for name in ("raylet", "gcs_server"):
        driver, reports = place.start(), place.reports()
        assert wait_for("a report", lambda reports=reports: place.reports() > reports, driver)
        reported, before = place.last_steps(), place.finished()
        victims = [process for process in below(driver.pid) if process.name() == name]
        assert len(victims) == 1
        end_all(victims)
        assert driver.wait(60) == 1
        said = f"error: Ray's {name} on this machine, which this sweep had started, was ended by SIGKILL; the same"
        assert f"{said} command continues the sweep\n" in place.log.read_text()
        chaos.check_kept(before, place.finished())
        continued.append((reported, len(place.continued())))
    table = place.finish(place.start())
    for reported, known in continued:
        chaos.check_continued(reported, place.continued()[known:])
    check_run(place, table, calm.place, calm.table)


def test_a_trial_that_is_no_longer_what_it_was_is_wrong() -> None:
    before = {0: ("COMPLETE", 3.5), 1: ("PRUNED", 4.0)}
    chaos.check_kept(before, {**before, 2: ("COMPLETE", 3.0)})
    for after in ({0: ("COMPLETE", 3.5)}, {**before, 0: ("COMPLETE", 3.4)}, {**before, 1: ("COMPLETE", 4.0)}):
        with pytest.raises(Wrong, match="trial 00"):
            chaos.check_kept(before, after)


def test_a_point_that_is_missing_or_another_is_wrong() -> None:
    points = {("000", "valid/mse", 100): 0.5, ("001", "valid/mse", 100): 0.25}
    check_equal("both", points, dict(points))
    for other in ({("000", "valid/mse", 100): 0.5}, {**points, ("000", "valid/mse", 100): 0.50001}):
        with pytest.raises(Wrong, match="1 points differ: both"):
            check_equal("both", points, other)


def test_a_trial_that_goes_on_from_before_its_last_report_is_wrong() -> None:
    reported = {"000": 500, "001": 1000}
    assert chaos.check_continued(reported, [("000", 500), ("001", 1500), ("002", 500)]) == 3
    with pytest.raises(Wrong, match="trial 001 had reported 1000 images and went on from 500"):
        chaos.check_continued(reported, [("001", 500)])
