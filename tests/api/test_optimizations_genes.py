"""/v1/optimizations with strategies that show demonstrations or set the model: what is refused, and how it is named."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Execution, Job, Optimization
from tests.support import Api, make_triage, optimization_body, pointers

TUNE = {"strategy": "hyperparameter"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"strategy": "bootstrap", "knobs": {"max_labeled": 65}}, "/knobs/max_labeled"),
        ({"strategy": "bootstrap", "knobs": {"teacher": "gpt-5"}}, "/budget/max_cost_usd"),
        ({"strategy": "mipro", "knobs": {"sampler": "annealing"}}, "/knobs/sampler"),
        ({"strategy": "gepa", "knobs": {"use_merge": True}}, "/knobs/use_merge"),
        ({"strategy": "mcts", "knobs": {"mcts_simulations": 0}}, "/knobs/mcts_simulations"),
        ({**TUNE, "knobs": {"params_to_optimize": ["seed"]}}, "/knobs/params_to_optimize"),
        ({**TUNE, "knobs": {"params_to_optimize": ["top_p"]}}, "/knobs/params_to_optimize/top_p"),
        (
            {**TUNE, "knobs": {"params_to_optimize": {"model_name": {"choices": ["nobody"]}}}},
            "/budget/max_cost_usd",
        ),
        (
            {
                **TUNE,
                "model": {"provider": "openai", "model_name": "gpt-4o"},
                "knobs": {"params_to_optimize": {"model_name": {"choices": ["gpt-4o", "gpt-5"]}}},
            },
            "/knobs/params_to_optimize/model_name",
        ),
        (
            {
                "strategy": "bootstrap",
                "model": {"provider": "openai", "model_name": "gpt-4o"},
                "knobs": {"teacher": "gpt-5"},
            },
            "/knobs/teacher",
        ),
        *(
            ({"strategy": name, "knobs": {}, "budget": {"max_task_calls": 30}}, "/budget/max_task_calls")
            for name in ("bootstrap", "mipro", "hyperparameter", "gepa", "mcts")
        ),
        *(
            (
                {
                    "strategy": name,
                    "knobs": {},
                    "split": {"train_fraction": 0, "dev_fraction": 0.5, "holdout_fraction": 0.5},
                },
                "/split/train_fraction",
            )
            for name in ("bootstrap", "mipro", "gepa")
        ),
    ],
)
def test_bad_input_is_named_and_leaves_no_row(api: Api, change: dict[str, Any], pointer: str) -> None:
    make_triage(api, cases=40)

    answer = api.post("/v1/optimizations", optimization_body(**change))

    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert pointers(answer) == [pointer]
    with db.reading() as session:
        counted = [
            session.scalar(sa.select(sa.func.count()).select_from(model)) for model in (Optimization, Job, Execution)
        ]
    assert counted == [0, 0, 0]


@pytest.mark.parametrize("strategy", ["hyperparameter", "mcts"])
def test_without_train_cases_what_does_not_need_them_may_run(api: Api, strategy: str) -> None:
    make_triage(api, cases=40)
    no_train = {"train_fraction": 0, "dev_fraction": 0.5, "holdout_fraction": 0.5}

    api.expect(202, "POST", "/v1/optimizations", optimization_body(strategy=strategy, knobs={}, split=no_train))


def test_an_older_name_is_answered_with_the_name_here(api: Api) -> None:
    make_triage(api, cases=40)
    body = optimization_body(strategy="grid_search", knobs={"params_to_optimize": ["temperature"]})

    started = api.expect(202, "POST", "/v1/optimizations", body)

    assert started["strategy"] == started["spec"]["strategy"] == "hyperparameter"
    assert started["spec"]["knobs"]["search_method"] == "grid"
