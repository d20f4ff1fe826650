"""POST /v1/optimizations:compare: strategies at equal budget, on one split, with several seeds each."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db, stats
from shared.models import Job, JobKind, Optimization, OptimizationComparison
from tests.rows import count, event_data, everything
from tests.support import Api, Drain, evaluation_body, make_triage, pointers
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

FEW = {"strategy": "random", "knobs": {"proposals": 2}}
MORE = {"strategy": "random", "knobs": {"proposals": 4}}


def body(**fields: Any) -> dict[str, Any]:
    given = {"strategies": [FEW, MORE], "seeds": [1, 2, 3], "budget": {"max_task_calls": 400}}
    return {**evaluation_body(), "evaluation": {"min_cases": 6}, **given, **fields}


def start(api: Api, **fields: Any) -> str:
    started = api.expect(202, "POST", "/v1/optimizations:compare", body(**fields))
    return f"/v1/optimization-comparisons/{started['comparison_id']}"


def test_each_strategy_runs_with_each_seed_on_the_same_split_and_budget(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    begun = api.expect(200, "GET", path)
    drain()

    done = api.expect(200, "GET", path)

    assert (begun["status"], done["status"]) == ("running", "succeeded")
    assert [[run["seed"] for run in arm["runs"]] for arm in done["strategies"]] == [[1, 2, 3], [1, 2, 3]]
    runs = [
        api.expect(200, "GET", f"/v1/optimizations/{run['optimization_id']}")
        for arm in done["strategies"]
        for run in arm["runs"]
    ]
    for name in ("split", "budget", "evaluation", "scorers", "model"):
        assert all(run["spec"][name] == runs[0]["spec"][name] for run in runs)
    assert {run["dataset_revision"] for run in runs} == {runs[0]["dataset_revision"]}
    assert [run["spec"]["knobs"]["proposals"] for run in runs] == [2, 2, 2, 4, 4, 4]
    assert {(run["relation"], run["source_id"]) for run in runs} == {("comparison", done["comparison_id"])}
    assert event_data("optimization_comparison.created")[0]["seeds"] == [1, 2, 3]


def test_an_arm_is_the_mean_over_its_seeds_with_the_interval_over_them(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    drain()

    for arm in api.expect(200, "GET", path)["strategies"]:
        differences = []
        for run in arm["runs"]:
            shown = api.expect(200, "GET", f"/v1/optimizations/{run['optimization_id']}")
            assert run["difference"] == pytest.approx(shown["result"]["holdout"]["difference"])
            assert (run["task_calls"], run["tokens"]) == (shown["spent"]["task_calls"], shown["spent"]["tokens"])
            differences.append(run["difference"])
        low, high = stats.mean_interval(differences, seed=0)
        assert (arm["measured"], arm["difference"]) == (3, pytest.approx(sum(differences) / 3))
        assert (arm["ci_low"], arm["ci_high"]) == (pytest.approx(low), pytest.approx(high))
        assert arm["task_calls"] == pytest.approx(sum(run["task_calls"] for run in arm["runs"]) / 3)
        assert arm["cost_usd"] == pytest.approx(sum(run["cost_usd"] for run in arm["runs"]) / 3)


def test_the_others_are_compared_with_the_first_seed_by_seed(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    drain()

    first, second = api.expect(200, "GET", path)["strategies"]

    a, b = ([run["difference"] for run in arm["runs"]] for arm in (first, second))
    wanted = stats.compare_paired(a, b, seed=0)
    assert first["against_first"] is None
    assert second["against_first"]["difference"] == pytest.approx(wanted.difference)
    assert (second["against_first"]["ci_low"], second["against_first"]["n"]) == (pytest.approx(wanted.ci_low), 3)
    assert second["against_first"]["p_adjusted"] == second["against_first"]["p_value"]  # one question alone


def test_several_that_are_held_against_the_first_are_corrected_for_by_holm(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    arms = [FEW, {"strategy": "random", "knobs": {"proposals": 3}}, {"strategy": "noop"}, {"strategy": "noop"}]
    path = start(api, strategies=arms)
    drain()

    shown = api.expect(200, "GET", path)

    against = [arm["against_first"] for arm in shown["strategies"]]
    wanted = stats.holm([one["p_value"] for one in against[1:]])
    assert (shown["correction"], against[0]) == ("holm", None)
    assert [one["p_adjusted"] for one in against[1:]] == pytest.approx(wanted)
    assert any(one["p_adjusted"] > one["p_value"] for one in against[1:])


def test_a_run_that_was_not_measured_is_missing_and_no_zero(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    drain()
    with db.transaction() as session:
        found = session.scalars(sa.select(OptimizationComparison)).one()
        run = session.scalars(sa.select(Optimization).where(Optimization.id.in_(_ids(found)[:1]))).one()
        run.result = {**run.result, "verdict": "not_measured", "holdout": None}

    arm, _ = api.expect(200, "GET", path)["strategies"]

    known = [run["difference"] for run in arm["runs"][1:]]
    assert (arm["runs"][0]["difference"], arm["measured"]) == (None, 2)
    assert arm["difference"] == pytest.approx(sum(known) / 2)
    assert (arm["ci_low"], arm["ci_high"]) == (None, None)


@pytest.mark.parametrize(
    ("cases", "pointer", "code"), [(3, "/dataset", "invalid_fields"), (40, "/budget/max_tokens", "budget_too_small")]
)
def test_cases_and_tokens_that_are_too_few_start_no_run(api: Api, cases: int, pointer: str, code: str) -> None:
    make_triage(api, cases=cases)
    before = everything()

    answer = api.post("/v1/optimizations:compare", body(budget={"max_tokens": 100}))

    assert (answer.status_code, pointers(answer), answer.get_json()["code"]) == (422, [pointer], code)
    assert everything() == before


def test_a_comparison_of_which_every_run_failed_has_failed(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)

    while claimed := drain.claim():
        calls = [lease for lease in claimed if lease.kind == JobKind.EXECUTION]
        record(STEPS, [(lease, Failure("bad_request", "", retryable=False)) for lease in calls])
        record(STEPS, drain.outcomes([lease for lease in claimed if lease not in calls]))

    found = api.expect(200, "GET", path)
    assert found["status"] == "failed"
    for arm in found["strategies"]:
        assert {run["status"] for run in arm["runs"]} == {"failed"}
        assert (arm["measured"], arm["difference"], arm["against_first"]) == (0, None, None)


def test_a_comparison_of_which_one_run_failed_has_succeeded_without_it(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    drain()
    with db.transaction() as session:
        found = session.scalars(sa.select(OptimizationComparison)).one()
        session.execute(sa.update(Optimization).where(Optimization.id.in_(_ids(found)[:1])).values(state="failed"))

    shown = api.expect(200, "GET", path)

    assert shown["status"] == "succeeded"
    assert [arm["measured"] for arm in shown["strategies"]] == [2, 3]


def test_cancel_ends_all_runs_and_keeps_what_was_paid_for(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = start(api)
    drain(most=20)

    canceled = api.expect(200, "POST", f"{path}/cancel")

    assert canceled["status"] == "canceled"
    assert {run["status"] for arm in canceled["strategies"] for run in arm["runs"]} == {"canceled"}
    assert sum(run["task_calls"] for arm in canceled["strategies"] for run in arm["runs"]) == 14
    assert drain() == 0
    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).where(Job.state.in_(("queued", "running")))) == 0


def test_the_same_key_starts_them_once(api: Api) -> None:
    make_triage(api, cases=40)
    headers = {"Idempotency-Key": "compare"}

    first, again = (api.post("/v1/optimizations:compare", body(), headers=headers) for _ in range(2))

    assert first.get_json() == again.get_json()
    assert again.headers["Location"] == first.headers["Location"]
    assert (count(OptimizationComparison), count(Optimization)) == (1, 6)


def test_they_are_listed_newest_first(api: Api) -> None:
    make_triage(api, cases=40)
    paths = [start(api, name=name) for name in ("one", "two")]

    listed = api.expect(200, "GET", "/v1/optimization-comparisons")["data"]

    assert [one["name"] for one in listed] == ["two", "one"]
    assert paths[1].endswith(listed[0]["comparison_id"])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"seeds": [1, 2]}, "/seeds"),
        ({"seeds": [1, 2, 2]}, "/seeds"),
        ({"seeds": list(range(40))}, "/seeds"),
        ({"seeds": [1, 2, -3]}, "/seeds/2"),
        ({"strategies": [FEW]}, "/strategies"),
        ({"strategies": [FEW, {"strategy": "magic"}]}, "/strategies/1/strategy"),
        ({"strategies": [FEW, {"strategy": "random", "knobs": {"proposals": 0}}]}, "/strategies/1/knobs/proposals"),
        ({"strategy": "random"}, "/strategy"),
        ({"seed": 1}, "/seed"),
        ({"budget": {}}, "/budget"),
        ({"budget": {"max_task_calls": 5}}, "/budget/max_task_calls"),
    ],
)
def test_bad_input_is_named_and_starts_nothing(api: Api, change: dict[str, Any], pointer: str) -> None:
    make_triage(api, cases=40)
    before = everything()

    answer = api.post("/v1/optimizations:compare", body(**change))

    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert pointer in [error["pointer"] for error in answer.get_json()["errors"]]
    assert everything() == before


def _ids(found: OptimizationComparison) -> list[uuid.UUID]:
    return [uuid.UUID(one) for arm in found.arms for one in arm["runs"]]
