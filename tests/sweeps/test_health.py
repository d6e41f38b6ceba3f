"""Limits of a codebook: what breaks them, in numbers for the search and in words for a reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sweeps._board import verdict
from sweeps._finish import best_group
from sweeps._health import Limits, with_flags
from sweeps._plan import Plan, describe_plan
from sweeps._resume import replicates, row_of
from sweeps._search import OptunaSearcher
from sweeps._study import open_storage, open_study

WELL = {"valid/perplexity": 8.0, "valid/dead_codes": 0.25, "valid/latent_growth": 2.0}


def test_only_what_is_asked_for_is_looked_at() -> None:
    assert Limits().excess({"valid/perplexity": 1.0}) == {}
    assert Limits().broken({"valid/perplexity": 1.0}) == ""
    assert Limits(min_perplexity=4).excess({}) == {}  # a model without codes has no perplexity


@pytest.mark.parametrize(
    ("limits", "excess", "words"),
    [
        (Limits(min_perplexity=4), -1.0, ""),
        (Limits(min_perplexity=8), 0.0, ""),
        (Limits(min_perplexity=16), 0.5, "perplexity is 8, below 16"),
        (Limits(max_dead_codes=0.1), 1.5, "the share of dead codes is 0.25, above 0.1"),
        (Limits(max_latent_growth=1.5), 1 / 3, "the growth of the latents' norm is 2, above 1.5"),
    ],
)
def test_a_limit_is_broken_by_more_than_itself(limits: Limits, excess: float, words: str) -> None:
    assert list(limits.excess(WELL).values()) == pytest.approx([excess])
    assert limits.broken(WELL) == words


def test_all_that_is_broken_is_said() -> None:
    broken = Limits(min_perplexity=16, max_dead_codes=0.1).broken(WELL)
    assert broken == "perplexity is 8, below 16 and the share of dead codes is 0.25, above 0.1"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("min_perplexity", 0.5, "--min-perplexity is 0.5; allowed is a number >= 1"),
        ("max_dead_codes", 2.0, "--max-dead-codes is 2; allowed is a number >= 0 and <= 1"),
        ("max_latent_growth", float("nan"), "--max-latent-growth is nan; allowed is a number >= 1"),
    ],
)
def test_an_impossible_limit_is_refused(field: str, value: float, said: str) -> None:
    with pytest.raises(ValueError, match="allowed") as caught:
        Limits(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_flags_change_only_what_they_name() -> None:
    own = Limits(min_perplexity=4, prune=True)
    assert with_flags(own, min_perplexity=None, max_dead_codes=0.5, prune=None) == Limits(4, 0.5, None, True)


def result(seen: int, value: float, perplexity: float) -> dict[str, Any]:
    return {"images_seen": seen, "objective": value, "metrics/valid/perplexity": perplexity}


def test_the_study_is_told_of_sick_codebooks_and_a_healthy_one_wins(make: Callable[..., Plan]) -> None:
    plan = make("--trials", "4", "--images", "900", "--min-perplexity", "4", "--seeds", "2", "--confirm", "1")
    study = open_study(plan, open_storage(plan.storage))
    searcher = OptunaSearcher(plan, study, lambda trial_id, spec: None)
    for trial_id in "abcd":
        searcher.suggest(trial_id)
    searcher.on_trial_complete("a", result(900, 3.0, 1.5))
    searcher.on_trial_complete("b", result(900, 4.0, 6.0))
    searcher.on_trial_complete("c", result(300, 5.0, 1.0) | {"stopped_for": "codebook: perplexity"})
    searcher.on_trial_complete("d", {"failed": "Diverged"})
    trials = study.get_trials()
    assert [trial.constraints for trial in trials] == [
        {"min_perplexity": pytest.approx(0.625)},
        {"min_perplexity": pytest.approx(-0.5)},
        {"min_perplexity": pytest.approx(0.75)},
        {},
    ]
    assert json.loads(trials[2].user_attrs["record"])["reason"] == "codebook: perplexity"
    assert study.best_trial.number == 1  # optuna's own word for it
    from sweeps._board import Board

    board = Board(4, 1)
    board.rows = {row.run: row for row in (row_of(trial, plan.base) for trial in trials)}
    best = best_group(board)
    assert best is not None
    assert best.run == "001"
    assert [spec.parent for spec in replicates(plan, study)] == ["001"]
    board.rows["001"].unhealthy = "as well"
    best = best_group(board)
    assert best is not None
    assert best.run == "000"  # nobody is healthy: the best of them, and the last line says so


def test_a_trial_that_is_stopped_for_its_codebook_is_pruned_and_says_so() -> None:
    last = {"images_seen": 300, "objective": 3.0, "stopped_for": "codebook: perplexity is 1, below 4 at 300 images"}
    assert verdict(last, 900) == ("pruned", "codebook: perplexity is 1, below 4 at 300 images")


def test_the_plan_says_what_is_asked_of_a_codebook(make: Callable[..., Plan]) -> None:
    text = describe_plan(make("--images", "900", "--max-dead-codes", "0.5", "--prune-unhealthy"))
    assert "codebook: the share of dead codes <= 0.5; a trial that breaks one from 100 images on is stopped" in text


def test_other_limits_under_the_same_name_are_refused(make: Callable[..., Plan]) -> None:
    first = make()
    open_study(first, open_storage(first.storage))
    other = make("--min-perplexity", "4")
    with pytest.raises(ValueError, match=r"limits None -> perplexity >= 4"):
        open_study(other, open_storage(other.storage))
