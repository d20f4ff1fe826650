"""Two evaluations case by case, slices of one, and the gate that a build asks."""

import uuid
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from shared import db, stats
from shared.models import Evaluation, WorkItem
from tests.judged import JUDGE, evaluate, fail_some, read, results
from tests.support import TRIAGE, Api, Drain, evaluation_body, make_prompt, make_triage, pointers, tickets

BETTER = (
    TRIAGE + "\nAnswer with valid JSON and nothing else. If there is more than one request, go by the main request."
    " Ignore signatures, greetings and quoted mail. Do not let an angry tone change the answer."
)


def two(api: Api, drain: Drain, *, cases: int = 40, **fields: Any) -> tuple[Any, Any]:
    """Evaluations of a prompt and of a better one."""
    make_triage(api, cases=cases)
    first = evaluate(api, drain, **fields)
    make_prompt(api, "triage", template=BETTER, model=api.get("/v1/prompts/triage/versions/1").get_json()["model"])
    return first, evaluate(api, drain, **fields)


def compare(api: Api, candidate: Any, baseline: Any) -> Any:
    path = f"/v1/evaluations/{candidate['evaluation_id']}/compare?with={baseline['evaluation_id']}"
    return api.expect(200, "GET", path)


def gate(api: Api, evaluation: Any, query: str) -> Any:
    return api.expect(200, "GET", f"/v1/evaluations/{evaluation['evaluation_id']}/gate?{query}")


def set_scores(evaluation: Any, scores: list[float | None], *, threshold: float = 1.0) -> None:
    """Let the answers of an evaluation, case by case, have these scores."""
    with db.transaction() as session:
        items = session.scalars(
            sa.select(WorkItem)
            .where(WorkItem.scope_id == uuid.UUID(evaluation["evaluation_id"]))
            .order_by(WorkItem.ordinal)
        ).all()
        for item, score in zip(items, scores, strict=True):
            item.score, item.passed = score, None if score is None else score >= threshold


# ---- compare -------------------------------------------------------------------------------------


def test_two_evaluations_are_compared_case_by_case(api: Api, drain: Drain) -> None:
    first, second = two(api, drain)

    found = compare(api, second, first)

    before = {row["ordinal"]: row["score"] for row in results(api, first)}
    after = {row["ordinal"]: row["score"] for row in results(api, second)}
    pairs = [before[key] for key in sorted(before)], [after[key] for key in sorted(before)]
    expected = stats.compare_paired(*pairs, seed=0)
    assert (found["cases"], found["only_in_baseline"], found["only_in_candidate"]) == (40, 0, 0)
    assert found["difference"] == pytest.approx(second["aggregate"]["score"] - first["aggregate"]["score"])
    assert found["difference"] == pytest.approx(expected.difference)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((expected.ci_low, expected.ci_high))
    assert found["p_value"] == pytest.approx(expected.p_value)
    assert found["effect"] == pytest.approx(stats.paired_effect(*pairs))
    assert found["verdict"] == ("better" if found["ci_low"] > 0 else "not_significant")
    assert found["differs"] == ["version"]
    gained = [key for key in sorted(before) if before[key] < 1 <= after[key]]
    lost = [key for key in sorted(before) if after[key] < 1 <= before[key]]
    assert ([flip["ordinal"] for flip in found["gained"]], found["gained_count"]) == (gained, len(gained))
    assert ([flip["ordinal"] for flip in found["lost"]], found["lost_count"]) == (lost, len(lost))
    assert gained


def test_a_comparison_turned_round_is_its_mirror(api: Api, drain: Drain) -> None:
    first, second = two(api, drain, cases=20)

    there, back = compare(api, second, first), compare(api, first, second)

    assert there["difference"] == pytest.approx(-back["difference"])
    assert (there["gained_count"], there["lost_count"]) == (back["lost_count"], back["gained_count"])


def test_an_evaluation_is_as_good_as_itself(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    done = evaluate(api, drain)

    found = compare(api, done, done)

    assert (found["difference"], found["p_value"], found["effect"]) == (0, 1, None)
    assert (found["verdict"], found["gained"], found["lost"]) == ("not_significant", [], [])


def test_cases_are_paired_by_content_and_repeats_are_averaged(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    first = evaluate(api, drain, repeats=2)
    api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    api.expect(201, "POST", "/v1/datasets/other/cases", tickets(14)[::-1][:9])  # five of them are in both
    second = evaluate(api, drain, dataset="other")
    set_scores(first, [1.0, 0.0] * 10)
    set_scores(second, [1.0] * 9)

    found = compare(api, second, first)

    assert (found["cases"], found["only_in_baseline"], found["only_in_candidate"]) == (5, 5, 4)
    assert (found["baseline"], found["candidate"], found["gained_count"]) == (0.5, 1.0, 5)
    assert found["differs"] == ["dataset"]


def test_a_cell_without_a_score_is_in_no_pair(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    first, second = evaluate(api, drain), evaluate(api, drain)
    set_scores(first, [None] * 2 + [1.0] * 8)
    set_scores(second, [1.0] * 10)

    found = compare(api, second, first)

    assert (found["cases"], found["only_in_candidate"], found["difference"]) == (8, 2, 0)


def test_scores_of_other_scorers_are_not_compared(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    first = evaluate(api, drain)
    second = evaluate(api, drain, scorers=[{"type": "json_fields", "tolerance": 1}])

    answer = api.get(f"/v1/evaluations/{second['evaluation_id']}/compare?with={first['evaluation_id']}")

    assert answer.status_code == 422
    assert pointers(answer) == ["?with"]


def test_what_is_open_has_nothing_to_compare(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    first = evaluate(api, drain)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    api.expect(409, "GET", f"/v1/evaluations/{first['evaluation_id']}/compare?with={started['evaluation_id']}")
    api.expect(409, "GET", f"/v1/evaluations/{started['evaluation_id']}/compare?with={first['evaluation_id']}")


@pytest.mark.parametrize("route", ["compare?with={}", "gate?non_inferior_to={}"])
def test_the_evaluation_of_another_workspace_is_not_there(
    api: Api, drain: Drain, as_user: Callable[..., Api], route: str
) -> None:
    make_triage(api, cases=10)
    ours = evaluate(api, drain)
    other = as_user(workspace="elsewhere")
    make_triage(other, cases=10)
    theirs = evaluate(other, drain)

    hidden = api.get(f"/v1/evaluations/{ours['evaluation_id']}/{route.format(theirs['evaluation_id'])}")
    absent = api.get(f"/v1/evaluations/{ours['evaluation_id']}/{route.format(uuid.uuid4())}")

    assert hidden.status_code == absent.status_code == 404
    assert hidden.get_json()["code"] == absent.get_json()["code"]


# ---- slices --------------------------------------------------------------------------------------


def test_slices_are_the_aggregate_of_their_cases(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    rows = [{**case, "group": "b"} for case in tickets(44)[40:]]
    api.expect(201, "POST", "/v1/datasets/tickets/cases", rows)
    done = evaluate(api, drain, repeats=2, scorers=[{"type": "json_fields", "weight": 3}, {"type": "json_valid"}])

    found = api.expect(200, "GET", f"/v1/evaluations/{done['evaluation_id']}/slices")

    cells = results(api, done)
    by_tag: dict[str, list[float]] = {}
    for cell in cells:
        for tag in cell["tags"]:
            by_tag.setdefault(tag, []).append(cell["score"])
    assert {row["name"]: row["cases"] for row in found["tag"]} == {tag: len(got) for tag, got in by_tag.items()}
    assert [row["cases"] for row in found["tag"]] == sorted((row["cases"] for row in found["tag"]), reverse=True)
    for row in found["tag"]:
        assert row["score"] == pytest.approx(sum(by_tag[row["name"]]) / row["cases"])
        assert row["ci_low"] <= row["score"] <= row["ci_high"]
    (group,) = [row for row in found["group"] if row["name"] == "b"]
    assert group["cases"] == 8
    fields, valid = found["scorer"]
    assert (fields["name"], valid["name"]) == ("json_fields", "json_valid")
    assert (3 * fields["score"] + valid["score"]) / 4 == pytest.approx(done["aggregate"]["score"])
    assert found["left_out"] == {"tag": 0, "group": 0, "scorer": 0}


def test_of_very_many_slices_the_largest_are_kept(api: Api, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.domain import aggregates

    monkeypatch.setattr(aggregates, "MOST_SLICES", 1)
    make_triage(api, cases=30)
    done = evaluate(api, drain)

    found = api.expect(200, "GET", f"/v1/evaluations/{done['evaluation_id']}/slices")

    assert len(found["tag"]) == 1
    assert found["left_out"]["tag"] >= 2


def test_an_evaluation_that_is_open_has_no_slices(api: Api) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    found = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/slices")

    assert found == {"tag": [], "group": [], "scorer": [], "left_out": {}}


# ---- gate ----------------------------------------------------------------------------------------


def test_the_gate_passes_from_the_wanted_score_on(api: Api, drain: Drain) -> None:
    make_triage(api, cases=20)
    done = evaluate(api, drain)
    score = done["aggregate"]["score"]

    passed, failed = (
        gate(api, done, f"min_score={score - 0.001:.6f}"),
        gate(api, done, f"min_score={score + 0.001:.6f}"),
    )

    assert (passed["passed"], passed["reasons"]) == (True, [])
    assert failed["passed"] is False
    assert failed["reasons"] == [f"score {score:.4f}, at least {score + 0.001:.6g} is wanted"]


@pytest.mark.parametrize(("margin", "passed"), [("0.3", True), ("0.15", False), ("0.01", False)])
def test_the_gate_wants_it_no_worse_than_the_other_by_more_than_the_margin(
    api: Api, drain: Drain, margin: str, passed: bool
) -> None:
    make_triage(api, cases=20)
    first, second = evaluate(api, drain), evaluate(api, drain)
    set_scores(first, [1.0] * 20)
    set_scores(second, [1.0] * 18 + [0.0] * 2)

    found = gate(api, second, f"non_inferior_to={first['evaluation_id']}&margin={margin}")

    assert found["passed"] is passed
    (check,) = [check for check in found["checks"] if check["name"] == "non_inferior"]
    assert "difference -0.1000" in check["detail"]
    assert check["passed"] is passed


@pytest.mark.parametrize("wanted", ["min_score=0.8", "non_inferior_to={first}&margin=0.1"])
def test_the_gate_passes_at_the_very_number_that_is_wanted(api: Api, drain: Drain, wanted: str) -> None:
    """The mean of ten scores of 0.8 is below 0.8 in the last bit, and 0.7 less 0.8 is below -0.1."""
    make_triage(api, cases=10)
    first, second = evaluate(api, drain), evaluate(api, drain)
    set_scores(first, [0.8] * 10)
    set_scores(second, [0.7] * 10)
    with db.transaction() as session:
        row = session.get_one(Evaluation, uuid.UUID(second["evaluation_id"]))
        row.aggregate = {**row.aggregate, "score": sum([0.8] * 10) / 10}

    found = gate(api, second, wanted.format(first=first["evaluation_id"]))

    assert (found["passed"], found["reasons"]) == (True, [])


def test_too_few_pairs_prove_nothing(api: Api, drain: Drain) -> None:
    make_triage(api, cases=4)
    done = evaluate(api, drain)

    found = gate(api, done, f"non_inferior_to={done['evaluation_id']}&margin=1")

    assert (found["passed"], found["reasons"]) == (False, ["only 4 cases in common, at least 5 are needed"])


def test_answers_without_a_score_fail_the_gate_unless_some_are_allowed(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    fail_some(drain, 2)
    done = read(api, started)

    strict, lenient = gate(api, done, "min_score=0"), gate(api, done, "min_score=0&max_missing=0.2")

    assert (strict["passed"], strict["reasons"]) == (False, ["2 of 10 answers have no score"])
    assert lenient["passed"] is True


def test_an_evaluation_that_is_open_is_neither_passed_nor_failed(api: Api) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    api.expect(409, "GET", f"/v1/evaluations/{started['evaluation_id']}/gate?min_score=0")


@pytest.mark.parametrize("ending", ["canceled", "failed"])
def test_an_evaluation_that_has_not_succeeded_is_not_passed(api: Api, drain: Drain, ending: str) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    if ending == "canceled":
        api.expect(200, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")
    else:
        fail_some(drain, 10)

    found = gate(api, started, "min_score=0")

    assert found["passed"] is False
    assert found["reasons"][0].startswith(f"the evaluation has {ending}")


def test_junit_has_a_test_for_each_check_and_the_worst_answers_as_output(api: Api, drain: Drain) -> None:
    make_triage(api, cases=20)
    done = evaluate(api, drain, name="nightly \u0007 <run>")
    path = f"/v1/evaluations/{done['evaluation_id']}/gate?min_score=0.99"

    answer = api.get(path, headers={"Accept": "application/xml"})

    assert (answer.status_code, answer.mimetype) == (200, "application/xml")
    (suite,) = ElementTree.fromstring(answer.get_data())
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("nightly \ufffd <run>", "2", "1")
    assert [case.get("name") for case in suite.iter("testcase")] == ["complete", "min_score"]
    (failure,) = suite.iter("failure")
    assert "at least 0.99 is wanted" in (failure.get("message") or "")
    output = suite.findtext("system-out") or ""
    worst = min(results(api, done), key=lambda row: (row["score"], row["ordinal"]))
    assert f"case {worst['ordinal']} ({worst['name']}): {worst['score']:.3f} {worst['feedback'][:20]}" in output


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "?min_score"),
        ("min_score=2", "?min_score"),
        ("min_score=nan", "?min_score"),
        ("min_score=0.5&margin=0.1", "?margin"),
        ("non_inferior_to=me", "?non_inferior_to"),
        ("min_score=0.5&max_missing=-1", "?max_missing"),
        ("min_score=0.5&threshold=1", "?threshold"),
    ],
)
def test_a_gate_that_asks_for_nothing_or_for_nonsense_is_refused(
    api: Api, drain: Drain, query: str, pointer: str
) -> None:
    make_triage(api, cases=5)
    done = evaluate(api, drain)

    answer = api.get(f"/v1/evaluations/{done['evaluation_id']}/gate?{query}")

    assert answer.status_code == 422
    assert pointers(answer) == [pointer]


def test_the_scorers_are_listed_with_their_options(api: Api) -> None:
    found = {row["type"]: row for row in api.expect(200, "GET", "/v1/evaluations/scorers")["data"]}

    assert found["length"]["options"]["unit"]["enum"] == ["characters", "words", "lines"]
    assert found["latency"]["required"] == ["limit_ms"]
    assert [name for name, row in found.items() if row["asks_a_model"]] == ["embedding_similarity", "llm_judge"]


def test_what_judges_said_stays_out_of_the_aggregate(api: Api, drain: Drain) -> None:
    make_triage(api, cases=5)
    done = evaluate(api, drain, scorers=[JUDGE])

    with db.reading() as session:
        stored = session.get_one(Evaluation, uuid.UUID(done["evaluation_id"]))
        assert "votes" not in str(stored.aggregate) + str(stored.slices)
