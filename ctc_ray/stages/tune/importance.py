"""How much each searched setting matters for the objective, by Optuna's PED-ANOVA."""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import create_trial

from ctc_ray.config.choices import Direction
from ctc_ray.reports.search_charts import SearchedField, ShownTrial

_LEAST_TRIALS, _LEAST_BEST = 10, 5  # fewer among the best say nothing (Optuna's documentation)


def importance_of(
    fields: Sequence[SearchedField],
    trials: Sequence[ShownTrial],
    direction: Direction,
    *,
    is_inherited: bool = False,
) -> tuple[dict[str, float], str]:
    """Setting -> its share, the largest first, and how that was computed.

    Args:
        is_inherited: whether trials go on from the weights of others.

    Returns:
        No share, and why not, if they go on from others, or too few are done.
    """
    if is_inherited:
        return {}, (
            "Trials of --method pbt go on from the weights of others: a late one is better than an "
            "early one whatever its settings, so the share of a setting cannot be told."
        )
    done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
    if len(done) < _LEAST_TRIALS:
        return {}, (
            f"Too few trials: {len(done)} are done, and {_LEAST_TRIALS} are needed to say which "
            "settings matter."
        )
    n_best = max(_LEAST_BEST, len(done) // 10)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    way = StudyDirection.MINIMIZE if direction == "min" else StudyDirection.MAXIMIZE
    study = optuna.create_study(directions=[way])
    distributions = {
        one.name: found for one in fields if (found := _distribution(one, done)) is not None
    }
    for trial in done:
        params = {
            one.name: _param(one, trial.sample[one.name])
            for one in fields
            if one.name in distributions and one.name in trial.sample
        }
        given = {name: distributions[name] for name in params}
        study.add_trial(create_trial(params=params, distributions=given, value=trial.value))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=n_best / len(done))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(shares.values())
    if not total:
        return {}, f"No setting sets the best {n_best} of {len(done)} trials apart from the others."
    return {name: share / total for name, share in shares.items()}, (
        f"PED-ANOVA (Watanabe et al. 2023, by Optuna): how much the values of a setting among the "
        f"best {n_best} of the {len(done)} trials that are done differ from those of all of them. "
        f"{_about_number(len(done))}"
    )


def _about_number(n_done: int) -> str:
    return "With so few trials this is a hint." if n_done < 10 * _LEAST_BEST else ""


def _distribution(one: SearchedField, done: Sequence[ShownTrial]) -> BaseDistribution | None:
    """What its values are drawn from; None: they are all the same."""
    found = {trial.sample[one.name] for trial in done if one.name in trial.sample}
    if len(found) < 2:
        return None
    if one.options:
        return CategoricalDistribution(one.options)
    numbers = [float(value) for value in found]
    return FloatDistribution(min([one.low, *numbers]), max([one.high, *numbers]), log=one.is_log)


def _param(one: SearchedField, value: str | float) -> Any:
    return value if one.options else float(value)
