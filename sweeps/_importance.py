"""Which dimensions of a space decided, by PED-ANOVA (Watanabe et al. 2023), also where only some trials have them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps._search import history_of

FEWEST = 10  # trials, below which nothing can be said


def importance(study: optuna.Study) -> dict[str, float]:
    """The share of each varied dimension in what told good trials from the others; largest first, the sum is 1.

    Good are the best tenth, or the best five where these are more. PED-ANOVA asks only which trials are good, so the
    stopped ones count too: behind the complete ones, those that came further first. Empty for fewer than ``FEWEST``
    trials.
    """
    ranked = sorted((trial for trial in study.get_trials(deepcopy=False) if trial.state in ENDED), key=_merit)
    if len(ranked) < FEWEST:
        return {}
    # Here, for it brings scikit-learn along: two seconds that every start of a sweep would wait.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    copy = optuna.create_study(direction="minimize")
    for place, trial in enumerate(ranked):
        copy.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=float(place))
        )
    good = min(0.5, max(0.1, 5 / len(ranked)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an interface that may change, and a space without any dimension
        evaluator = PedAnovaImportanceEvaluator(target_quantile=good)
        found = get_param_importances(copy, evaluator=evaluator)
    return {name: share for name, share in found.items() if math.isfinite(share)}


def importance_text(study: optuna.Study) -> str:
    """The shares in a line for a user; why there are none where there are none."""
    shares = importance(study)
    if not shares:
        return f"What mattered cannot be said from fewer than {FEWEST} trials."
    listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return f"What told the best trials from the others: {listed}."


def shown(study: optuna.Study, as_json: bool) -> str:
    """What ``python -m sweeps importance`` prints."""
    if as_json:
        return json.dumps({"sweep": study.study_name, "importance": importance(study)})
    return importance_text(study)


ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def _merit(trial: FrozenTrial) -> tuple[bool, int, float, int]:
    """Complete trials by bits/dim, then stopped ones by how far they came and what they were worth there."""
    record: Mapping[str, float] = json.loads(trial.user_attrs.get("record", "{}"))
    history = history_of(trial)
    seen = int(record.get("images_seen", max(history, default=0)))
    value = trial.values[0] if trial.state == TrialState.COMPLETE else history.get(seen, math.inf)
    stopped = trial.state != TrialState.COMPLETE
    return stopped, -seen if stopped else 0, value, trial.number
