"""Starting, comparing and canceling optimizations of Prompt Studio."""

from typing import Any

import pytest

from shared import knobs
from shared.models import Optimization
from tests.compat.studio import NOBODY, Studio, triage
from tests.rows import count, event_data, everything
from tests.support import Drain, pointers

RANDOM = {"optimizer_type": "random_search", "max_iterations": 2}


def body_of(studio: Studio, config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    project_id, prompt_id = triage(studio)
    return {
        "project_id": project_id,
        "initial_prompt_id": prompt_id,
        "optimization_config": config or RANDOM,
        **fields,
    }


def ours(studio: Studio, optimization_id: str) -> Any:
    return studio.api.expect(200, "GET", f"/v1/optimizations/{optimization_id}")


def test_an_optimization_starts_as_one_run_with_one_executor(studio: Studio) -> None:
    data = studio.data(201, "POST", "/optimizations/create", body_of(studio, name="first try"))

    made = data["optimization"]
    jobs = studio.api.expect(200, "GET", "/v1/jobs?kind=optimization")["data"]
    assert data["job_id"] == made["id"] == made["uuid"]
    assert [job["subject_id"] for job in jobs] == [made["id"]]
    assert (made["name"], made["optimizer_type"], made["status"]) == ("first try", "random", "pending")
    assert (made["max_iterations"], made["iterations_completed"]) == (2, 0)
    assert ours(studio, made["id"])["spec"]["knobs"]["proposals"] == 2


def test_the_config_decides_the_search(studio: Studio) -> None:
    config = {
        "optimizer_type": "beam_search",
        "max_iterations": 4,
        "target_metric": "json_fields",
        "target_value": 0.9,
        "early_stopping_patience": 2,
        "models_to_test": ["simulated-small"],
        "budget_limit": 0.5,
        "beam_width": 4,
        "strategy_params": {"prune_threshold": 0.25},
    }

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, config))["optimization"]

    spec = ours(studio, made["id"])["spec"]
    chosen = {name: spec["knobs"][name] for name in ("max_rounds", "beam_width", "prune_threshold")}
    assert chosen == {"max_rounds": 4, "beam_width": 4, "prune_threshold": 0.25}
    assert (spec["early_stopping"]["patience"], spec["early_stopping"]["target_score"]) == (2, 0.9)
    assert spec["budget"] == {
        "max_task_calls": None,
        "max_proposer_calls": None,
        "max_tokens": None,
        "max_cost_nano": 500_000_000,
    }
    assert spec["model"]["model_name"] == "simulated-small"
    assert [scorer["type"] for scorer in spec["scorers"]] == ["json_fields"]
    for name, value in config.items():
        if name in ("optimizer_type", "max_iterations", "target_value", "models_to_test", "budget_limit"):
            assert made["optimization_config"][name] == value


def test_the_defaults_are_those_of_the_original(studio: Studio) -> None:
    config = {"optimizer_type": "random"}

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, config))["optimization"]

    spec = ours(studio, made["id"])["spec"]
    assert (spec["knobs"]["proposals"], spec["early_stopping"]["patience"]) == (50, 5)
    assert spec["early_stopping"]["target_score"] is None
    assert spec["budget"]["max_task_calls"] == 52 * 12  # no run without a ceiling: each iteration on all cases


def test_early_stopping_can_be_switched_off(studio: Studio) -> None:
    config = {**RANDOM, "early_stopping": False}

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, config))["optimization"]

    assert ours(studio, made["id"])["spec"]["early_stopping"]["patience"] == 1000


@pytest.mark.parametrize("name", ["miprov3", "tree_of_thought", "Greedy", "nonsense"])
def test_a_strategy_that_does_not_search_is_refused_with_those_that_do(studio: Studio, name: str) -> None:
    body = body_of(studio, {"optimizer_type": name})
    before = everything()

    answer = studio.request("POST", "/optimizations/create", body)

    assert (answer.status_code, pointers(answer)) == (422, ["/optimization_config/optimizer_type"])
    assert all(strategy in answer.get_json()["error"] for strategy in knobs.STRATEGIES)
    assert everything() == before


@pytest.mark.parametrize("name", [*knobs.STRATEGIES, *knobs.STRATEGY_ALIASES])
def test_every_strategy_starts_under_each_of_its_names(studio: Studio, name: str) -> None:
    meant, implied = knobs.canonical(name, {})

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, {"optimizer_type": name}))["optimization"]

    spec = ours(studio, made["id"])["spec"]
    assert made["optimizer_type"] == spec["strategy"] == meant
    assert implied.items() <= spec["knobs"].items()


def test_the_iterations_are_the_knob_under_its_older_name_too(studio: Studio) -> None:
    config = {"optimizer_type": "miprov2", "num_trials": 7}

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, config))["optimization"]

    assert ours(studio, made["id"])["spec"]["knobs"]["trials"] == 7


def test_a_range_of_temperatures_is_where_settings_are_looked_for(studio: Studio) -> None:
    config = {"optimizer_type": "hparam", "temperature_range": [0.2, 0.8]}

    made = studio.data(201, "POST", "/optimizations/create", body_of(studio, config))["optimization"]

    space = ours(studio, made["id"])["spec"]["knobs"]["params_to_optimize"]
    assert [(name, where["low"], where["high"]) for name, where in space.items()] == [("temperature", 0.2, 0.8)]


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({}, "optimizer_type"),
        ({"optimizer_type": "miprov2", "num_trials": 7, "max_iterations": 8}, "max_iterations"),
        ({"optimizer_type": "miprov2", "strategy_params": {"num_trials": 7, "trials": 7}}, "strategy_params/trials"),
        ({"optimizer_type": "miprov2", "num_trials": 0}, "strategy_params/num_trials"),
        ({"optimizer_type": "grid_search", "search_method": "random"}, "strategy_params/search_method"),
        ({"optimizer_type": "grid_search", "max_iterations": 5}, "strategy_params/max_trials"),
        ({"optimizer_type": "hparam", "temperature_range": [0.8, 0.2]}, "strategy_params/params_to_optimize"),
        (
            {"optimizer_type": "hparam", "temperature_range": [0, 1], "params_to_optimize": ["top_p"]},
            "temperature_range",
        ),
        ({**RANDOM, "max_iterations": 501}, "max_iterations"),
        ({**RANDOM, "max_iterations": 2.5}, "max_iterations"),
        ({**RANDOM, "strategy_params": {"proposals": 3}}, "max_iterations"),
        ({**RANDOM, "target_metric": "vibes"}, "target_metric"),
        ({**RANDOM, "target_value": 2}, "target_value"),
        ({**RANDOM, "early_stopping": 1}, "early_stopping"),
        ({**RANDOM, "early_stopping_patience": 0}, "early_stopping_patience"),
        ({**RANDOM, "temperature_range": [0, 1]}, "temperature_range"),
        ({**RANDOM, "models_to_test": ["a", "b"]}, "models_to_test"),
        ({**RANDOM, "budget_limit": -1}, "budget_limit"),
        ({**RANDOM, "budget_limit": 0}, "budget_limit"),
        ({**RANDOM, "strategy_params": {"api_key": "x"}}, "strategy_params/api_key"),
        ({**RANDOM, "beam_width": 3}, "strategy_params/beam_width"),
        ({**RANDOM, "mode": "edit", "strategy_params": {"mode": "paraphrase"}}, "strategy_params/mode"),
        ({"optimizer_type": "beam_search", "beam_width": 1}, "strategy_params/beam_width"),
        ({"optimizer_type": "beam_search", "beam_width": True}, "strategy_params/beam_width"),
        ({"optimizer_type": "beam_search", "max_iterations": 300}, "strategy_params/max_rounds"),
        (
            {"optimizer_type": "beam_search", "beam_width": 5, "max_candidates": 4},
            "strategy_params/max_candidates",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named(studio: Studio, config: dict[str, Any], pointer: str) -> None:
    body = {**body_of(studio), "optimization_config": config}
    before = everything()

    answer = studio.request("POST", "/optimizations/create", body)

    assert (answer.status_code, pointers(answer)) == (422, [f"/optimization_config/{pointer}"])
    assert everything() == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"bootstrap_config": {"num_samples": 50}}, "/bootstrap_config"),
        ({"test_case_ids": [NOBODY]}, "/test_case_ids/0"),
        ({"name": "a" * 256}, "/name"),
        ({"scorers": []}, "/scorers"),
        ({"colour": 1}, "/colour"),
    ],
)
def test_a_bad_field_is_named(studio: Studio, fields: dict[str, Any], pointer: str) -> None:
    answer = studio.request("POST", "/optimizations/create", body_of(studio, **fields))

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert count(Optimization) == 0


def test_too_few_cases_are_an_error_and_not_a_made_up_result(studio: Studio) -> None:
    project_id, prompt_id = triage(studio, cases=3)
    body = {"project_id": project_id, "initial_prompt_id": prompt_id, "optimization_config": RANDOM}

    answer = studio.request("POST", "/optimizations/create", body)

    assert (answer.status_code, pointers(answer)) == (422, ["/test_case_ids"])


def test_what_has_no_effect_is_said_in_a_warning(studio: Studio) -> None:
    config = {**RANDOM, "techniques_to_try": ["cot", "few_shot"]}

    answer = studio.expect(201, "POST", "/optimizations/create", body_of(studio, config, description="why"))

    assert [warning.partition(":")[0] for warning in answer["metadata"]["warnings"]] == [
        "techniques_to_try",
        "description",
    ]


@pytest.mark.parametrize("path", ["/optimizations/create", "/optimizations", "/optimizations/compare"])
def test_the_same_idempotency_key_starts_one(studio: Studio, path: str) -> None:
    body = body_of(studio)
    prompt_id = body["initial_prompt_id"]
    others = {
        "/optimizations": {"prompt_id": prompt_id, "config": RANDOM},
        "/optimizations/compare": {"prompt_id": prompt_id, "strategies": ["random"]},
    }
    options: dict[str, Any] = {"headers": {"Idempotency-Key": "one"}}

    answers = [studio.request("POST", path, others.get(path, body), **options) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    assert count(Optimization) == 1


@pytest.mark.parametrize("field", ["prompt_id", "initial_prompt_id"])
def test_the_simple_way_starts_the_same_and_answers_bare(studio: Studio, field: str) -> None:
    body = body_of(studio)
    simple = {field: body["initial_prompt_id"], "strategy": "random_search", "config": {"max_iterations": 2}}

    answer = studio.request("POST", "/optimizations", simple)

    made = answer.get_json()
    assert (answer.status_code, set(made), made["status"]) == (201, {"id", "status"}, "pending")
    assert ours(studio, made["id"])["spec"]["knobs"]["proposals"] == 2
    assert studio.data(200, "GET", f"/optimizations/{made['id']}")["entity_id"] == made["id"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"strategy": "beam_search"}, "/strategy"),  # the config says random
        ({"strategy": "nonsense"}, "/strategy"),
        ({"config": {"max_iterations": 0}}, "/config/max_iterations"),
        ({"config": {}}, "/config/optimizer_type"),
        ({"config": {**RANDOM, "beam_width": 2}}, "/config/strategy_params/beam_width"),
        ({"initial_prompt_id": NOBODY}, "/prompt_id"),
    ],
)
def test_the_simple_way_checks_as_much(studio: Studio, fields: dict[str, Any], pointer: str) -> None:
    prompt_id = body_of(studio)["initial_prompt_id"]

    answer = studio.request("POST", "/optimizations", {"prompt_id": prompt_id, "config": RANDOM, **fields})

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert count(Optimization) == 0


@pytest.mark.parametrize("path", ["/optimizations/compare", "/optimizations/compare-strategies"])
def test_a_comparison_starts_every_strategy_under_the_same_ceiling(studio: Studio, path: str) -> None:
    _, prompt_id = triage(studio)
    model = {"model_name": "simulated-small", "temperature": 0.5, "max_tokens": 40}
    body = {"prompt_id": prompt_id, "strategies": ["random_search", "beam_search"], "model_configuration": model}

    data = studio.data(201, "POST", path, body)

    specs = [ours(studio, item)["spec"] for item in data["optimization_ids"]]
    assert data["job_ids"] == data["optimization_ids"]
    assert data["strategies"] == [spec["strategy"] for spec in specs] == ["random", "beam_search"]
    assert {spec["budget"]["max_task_calls"] for spec in specs} == {12 * 12}
    assert [spec["model"]["params"] for spec in specs] == [{"temperature": 0.5, "max_new_tokens": 40}] * 2
    assert "144 task calls" in data["message"]


def test_a_comparison_of_ten_strategies_gives_each_as_much_as_the_dearest_needs(studio: Studio) -> None:
    _, prompt_id = triage(studio)
    chosen = set(knobs.STRATEGIES) - {"noop", "random", "hyperparameter"}
    body = {"prompt_id": prompt_id, "strategies": [*chosen, "grid_search"]}

    data = studio.data(201, "POST", "/optimizations/compare", body)

    specs = [ours(studio, item)["spec"] for item in data["optimization_ids"]]
    (calls,) = {spec["budget"]["max_task_calls"] for spec in specs}
    assert calls == max(144, *(knobs.minimum_task_calls(spec, 12) for spec in specs))
    assert specs[-1]["knobs"]["search_method"] == "grid"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"strategies": []}, "/strategies"),
        ({"strategies": ["random", "tree_of_thought"]}, "/strategies/1"),
        ({"strategies": ["random", "random_search"]}, "/strategies"),
        ({"model_configuration": {"temperature": 5}}, "/model_configuration/temperature"),
        ({"config": {"presence_penalty": 1}}, "/config/presence_penalty"),
        ({"config": {"top_p": 1}, "model_configuration": {"top_p": 1}}, "/config"),
        ({"test_case_ids": [NOBODY]}, "/test_case_ids/0"),
        ({"config": {"model_name": "gpt-5", "temperature": 0.5}}, "/config/temperature"),  # it takes none
    ],
)
def test_a_comparison_starts_all_or_none(studio: Studio, fields: dict[str, Any], pointer: str) -> None:
    _, prompt_id = triage(studio)
    before = everything()

    answer = studio.request(
        "POST", "/optimizations/compare", {"prompt_id": prompt_id, "strategies": ["random"], **fields}
    )

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_a_cancel_ends_it_and_keeps_the_reason(studio: Studio, drain: Drain) -> None:
    made = studio.data(201, "POST", "/optimizations/create", body_of(studio))["optimization"]

    canceled = studio.data(200, "POST", f"/optimizations/cancel/{made['id']}", {"reason": "too dear"})
    drain()

    assert canceled["status"] == "cancelled"
    assert event_data("optimization.canceled") == [{"reason": "too dear"}]
    assert studio.data(200, "GET", f"/optimizations/get/{made['id']}")["status"] == "cancelled"


def test_what_has_ended_is_not_canceled(studio: Studio, drain: Drain) -> None:
    made = studio.data(201, "POST", "/optimizations/create", body_of(studio))["optimization"]
    drain()

    answer = studio.expect(409, "POST", f"/optimizations/cancel/{made['id']}", {})

    assert answer["error_code"] == "conflict"
    assert studio.data(200, "GET", f"/optimizations/get/{made['id']}")["status"] == "completed"
