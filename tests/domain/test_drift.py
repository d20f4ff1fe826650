"""Drift: what is compared with what, and that nothing is claimed of too little."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from shared import db
from shared.domain import drift, prompts
from shared.domain.content import check_content
from shared.domain.drift import Span
from shared.domain.executions import Filter
from shared.domain.tenants import Caller
from shared.errors import NotFound, Unprocessable
from shared.models import Dataset, Evaluation, Prompt, Version, WorkItem, new_id
from tests.executed import MONDAY, insert_executions, insert_feedback, make_versions

DAY = timedelta(days=1)
RUNS = Filter(purpose="run")
PERIODS = {"baseline": Span(start=MONDAY, end=MONDAY + DAY), "current": Span(start=MONDAY + DAY, end=MONDAY + 2 * DAY)}


def report(caller: Caller, version: Version, wanted: Filter = RUNS, **spans: Any) -> drift.Report:
    with db.reading() as session:
        prompt = session.get_one(Prompt, version.prompt_id)
        spans = {"baseline": None, "current": None, **(spans or PERIODS)}
        return drift.report(session, caller, prompt, wanted, **spans)


def signal(found: drift.Report, name: str) -> drift.Signal:
    return next(one for one in found.signals if one.name == name)


def runs(count: int, *, seed: int, day: int = 0, slower: float = 1.0, **fields: Any) -> list[dict[str, Any]]:
    """Answers of a day with latencies and lengths of the same distribution, but for how much slower they are."""
    generator = np.random.default_rng(seed)
    at = MONDAY + day * DAY + timedelta(hours=1)
    return [
        {
            "created_at": at,
            "latency_ms": int(generator.lognormal(6, 0.5) * slower),
            "response_text": "x" * int(generator.integers(50, 150)),
            **fields,
        }
        for _ in range(count)
    ]


def test_two_periods_of_the_same_kind_have_not_drifted(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, runs(200, seed=1), version=version)
    insert_executions(admin, runs(200, seed=2, day=1), version=version)

    found = report(admin, version)

    assert found.verdict == drift.NOTHING_FOUND
    tested = {one.name: one.verdict for one in found.signals if one.n == (200, 200)}
    assert tested == dict.fromkeys(["latency_ms", "response_length", "error_rate"], drift.NOTHING_FOUND)


def test_slower_answers_are_drift_of_the_latency_and_of_nothing_else(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, runs(100, seed=1), version=version)
    insert_executions(admin, runs(120, seed=2, day=1, slower=2), version=version)

    found = report(admin, version)

    latency = signal(found, "latency_ms")
    assert [one.name for one in found.signals if one.verdict == drift.DRIFT] == ["latency_ms"]
    assert (found.verdict, latency.test, latency.n) == (drift.DRIFT, "Mann-Whitney U", (100, 120))
    assert latency.effect is not None
    assert latency.effect > 0.5
    assert latency.adjusted_p_value is not None
    assert latency.p_value is not None
    assert latency.p_value < latency.adjusted_p_value < 0.001


def test_longer_answers_are_drift_of_the_length(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, runs(60, seed=1), version=version)
    longer = [{**row, "response_text": row["response_text"] * 2} for row in runs(60, seed=2, day=1)]
    insert_executions(admin, longer, version=version)

    found = report(admin, version)

    assert [one.name for one in found.signals if one.verdict == drift.DRIFT] == ["response_length"]
    assert signal(found, "response_length").test == "Kolmogorov-Smirnov"


def test_more_failures_are_drift_of_the_error_rate(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, runs(100, seed=1), version=version)
    insert_executions(admin, runs(80, seed=2, day=1), version=version)
    failed = {"created_at": MONDAY + DAY, "state": "failed", "error_type": "timeout"}
    insert_executions(admin, [failed] * 20, version=version)

    found = report(admin, version)

    errors = signal(found, "error_rate")
    assert (errors.verdict, errors.test, errors.middle) == (drift.DRIFT, "Fisher's exact", (0, 0.2))
    assert signal(found, "latency_ms").n == (100, 80)


def test_worse_ratings_are_drift_of_the_feedback(admin: Caller) -> None:
    (version,) = make_versions(admin)
    for day, score in ((0, 1.0), (1, 0.0)):
        ids = insert_executions(admin, runs(30, seed=day, day=day), version=version)
        insert_feedback(admin, {id_: score if place % 5 else 0.5 for place, id_ in enumerate(ids)})

    feedback = signal(report(admin, version), "feedback_score")

    assert (feedback.verdict, feedback.n, feedback.middle) == (drift.DRIFT, (30, 30), (1, 0))
    assert feedback.effect == pytest.approx(-0.96)


def test_with_one_value_too_few_nothing_is_said(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, runs(drift.ENOUGH - 1, seed=1), version=version)
    insert_executions(admin, runs(500, seed=2, day=1, slower=50), version=version)

    found = report(admin, version)

    assert found.verdict == drift.NOT_ENOUGH_DATA
    assert {one.verdict for one in found.signals} == {drift.NOT_ENOUGH_DATA}
    assert {(one.effect, one.p_value, one.adjusted_p_value) for one in found.signals} == {(None, None, None)}
    insert_executions(admin, runs(1, seed=3), version=version)
    assert report(admin, version).verdict == drift.DRIFT


def test_a_difference_that_is_sure_and_tiny_is_no_drift(admin: Caller) -> None:
    (version,) = make_versions(admin)
    for day in (0, 1):
        rows = [
            {"created_at": MONDAY + day * DAY, "latency_ms": 1_000 + place // 10 + day * 10} for place in range(2_000)
        ]
        insert_executions(admin, rows, version=version)

    latency = signal(report(admin, version), "latency_ms")

    assert latency.adjusted_p_value is not None
    assert latency.effect is not None
    assert (latency.adjusted_p_value < 0.001, 0 < latency.effect < 0.147) == (True, True)
    assert latency.verdict == drift.NOTHING_FOUND


def test_only_the_newest_of_very_many_are_read(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "SAMPLE", 30)
    (version,) = make_versions(admin)
    insert_executions(admin, [{"created_at": MONDAY, "latency_ms": 1}] * 30, version=version)
    insert_executions(admin, [{"created_at": MONDAY + timedelta(hours=1), "latency_ms": 9}] * 30, version=version)

    latency = signal(report(admin, version), "latency_ms")

    assert (latency.n, latency.middle) == ((30, 0), (9, None))


def test_what_does_not_belong_to_the_prompts_own_runs_is_left_out(admin: Caller) -> None:
    (version,) = make_versions(admin)
    (other,) = make_versions(admin, name="other")
    insert_executions(admin, runs(3, seed=1), version=other)
    insert_executions(admin, runs(3, seed=1, purpose="evaluation"), version=version)
    insert_executions(admin, runs(3, seed=1, prompt_id=version.prompt_id))  # of a search: no version
    insert_executions(admin, runs(3, seed=1, state="canceled"), version=version)
    insert_executions(admin, runs(3, seed=1, environment="prod"), version=version)
    insert_executions(admin, runs(2, seed=1), version=version)

    assert report(admin, version).baseline.executions == 5
    assert report(admin, version, Filter(purpose="run", environment="prod")).baseline.executions == 3


def test_two_versions_are_compared_whenever_they_ran(admin: Caller) -> None:
    first, second = make_versions(admin, 2)
    recently = datetime.now(MONDAY.tzinfo) - DAY
    insert_executions(admin, runs(50, seed=1, created_at=recently), version=first)
    insert_executions(admin, runs(50, seed=2, created_at=recently, slower=3), version=second)

    named = report(admin, first, baseline=Span(version_number=1), current=Span(version_number=2))

    assert (signal(named, "latency_ms").verdict, signal(named, "latency_ms").n) == (drift.DRIFT, (50, 50))
    for spans in ({"baseline": Span(version_number=1)}, {"current": Span(version_number=2)}):
        assert report(admin, first, **spans).signals == named.signals


def evaluate(caller: Caller, version: Version, scores: list[float], *, day: int, dataset: str) -> None:
    """An evaluation of a version, as rows."""
    ids = insert_executions(caller, runs(len(scores), seed=1, day=day, purpose="evaluation"), version=version)
    with db.transaction() as session:
        prompt = session.get_one(Prompt, version.prompt_id)
        home = session.query(Dataset).filter_by(name=dataset).one_or_none()
        if home is None:
            home = Dataset(workspace_id=caller.workspace_id, project_id=prompt.project_id, name=dataset)
            session.add(home)
            session.flush()
        evaluation = Evaluation(
            id=new_id(),
            workspace_id=caller.workspace_id,
            project_id=prompt.project_id,
            prompt_id=prompt.id,
            version_id=version.id,
            dataset_id=home.id,
            dataset_revision=1,
            scorers=[{"type": "exact"}],
            model={"provider": "simulated"},
            state="succeeded",
        )
        session.add(evaluation)
        session.flush()
        for place, (id_, score) in enumerate(zip(ids, scores, strict=True)):
            session.add(
                WorkItem(
                    workspace_id=caller.workspace_id,
                    scope_id=evaluation.id,
                    step_no=1,
                    ordinal=place,
                    work_key=str(place),
                    kind="evaluate",
                    execution_id=id_,
                    score=score,
                )
            )


def test_scores_are_compared_on_the_same_dataset_only(admin: Caller) -> None:
    (version,) = make_versions(admin)
    evaluate(admin, version, [1.0] * 30, day=0, dataset="easy")
    evaluate(admin, version, [0.0] * 30, day=1, dataset="hard")

    apart = signal(report(admin, version), "evaluation_score")
    evaluate(admin, version, [0.5] * 25, day=1, dataset="easy")
    together = signal(report(admin, version), "evaluation_score")

    assert (apart.verdict, apart.n) == (drift.NOT_ENOUGH_DATA, (0, 0))
    assert (together.verdict, together.n, together.middle) == (drift.DRIFT, (30, 25), (1, 0.5))


def make_texts(caller: Caller, *texts: str) -> Version:
    with db.transaction() as session:
        made = [
            prompts.upsert(session, caller, "worded", check_content(template_source=text)).version for text in texts
        ]
    return made[-1]


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [("a b c", "A  b\nc", 1), ("a b c", "a b d", 0.5), ("a", "b", 0), ("a b c d e f g", "a b c d e f g h i j", 0.7)],
)
def test_the_similarity_of_texts_is_the_share_of_words_that_both_have(one: str, other: str, similarity: float) -> None:
    assert drift.jaccard(one, other) == drift.jaccard(other, one) == similarity


def test_a_text_that_shares_less_than_seven_words_in_ten_with_the_one_before_has_drifted(admin: Caller) -> None:
    make_texts(admin, "one two three four five six seven")
    close = make_texts(admin, "one two three four five six seven eight nine ten")

    at_the_limit = report(admin, close).textual
    beyond = report(
        admin, make_texts(admin, "one two three four five six seven eight nine ten more words here now up")
    ).textual

    assert (at_the_limit.compared_with, at_the_limit.similarity, at_the_limit.has_drifted) == (1, 0.7, False)
    assert (beyond.compared_with, beyond.has_drifted) == (2, True)
    assert [one.version_number for one in beyond.significant] == [2, 1]
    assert beyond.score == pytest.approx(1 - (10 / 15 + 7 / 15) / 2)


def test_a_first_version_has_nothing_to_be_compared_with(admin: Caller) -> None:
    (version,) = make_versions(admin)

    found = report(admin, version).textual

    assert (found.compared_with, found.similarity, found.has_drifted, found.score) == (None, None, False, 0)


@pytest.mark.parametrize(
    "spans",
    [
        {"baseline": Span(version_number=1), "current": PERIODS["current"]},
        {"baseline": PERIODS["baseline"], "current": Span(version_number=1)},
        {"baseline": Span(version_number=1), "current": Span(version_number=1)},
        {"current": Span(version_number=1)},
        {"baseline": Span(start=MONDAY, end=MONDAY)},
        {"baseline": Span(start=MONDAY, end=MONDAY + 367 * DAY)},
        {
            "baseline": Span(start=MONDAY, end=MONDAY + 2 * DAY),
            "current": Span(start=MONDAY + DAY, end=MONDAY + 3 * DAY),
        },
    ],
)
def test_sides_that_cannot_be_compared_are_refused(admin: Caller, spans: Any) -> None:
    versions = make_versions(admin, 2)

    with pytest.raises(Unprocessable):
        report(admin, versions[0], **spans)


def test_a_version_that_is_not_there_is_not_found(admin: Caller) -> None:
    (version,) = make_versions(admin)

    with pytest.raises(NotFound):
        report(admin, version, baseline=Span(version_number=1), current=Span(version_number=9))
