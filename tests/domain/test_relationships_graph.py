"""The graph around a prompt and the impact of its change: bounded, and the same every time."""

import itertools
import threading
from collections.abc import Iterable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import prompts, relationships
from shared.domain.content import check_content
from shared.domain.relationships import Graph, Impact
from shared.domain.tenants import Caller
from shared.errors import RelationshipCycle, Unprocessable
from shared.models import Prompt, Relationship
from tests.factories import fail
from tests.rows import count
from tests.servers import wait_until
from tests.support import (
    Api,
    Drain,
    batch_body,
    evaluation_body,
    make_prompt,
    make_triage,
    optimization_body,
    run_body,
    waits_for_a_lock,
)


def make(caller: Caller, names: Iterable[str]) -> None:
    with db.transaction() as session:
        for name in names:
            prompts.upsert(session, caller, name, check_content(template_source=f"I am {name}"))


def relate(caller: Caller, *edges: tuple[str, str, str] | tuple[str, str, str, float]) -> None:
    with db.transaction() as session:
        for source, kind, target, *strength in edges:
            prompt = prompts.get_prompt(session, caller, source)
            fields = {"strength": strength[0]} if strength else {}
            relationships.create(session, caller, prompt, target=target, type=kind, **fields)


def graph(caller: Caller, name: str, depth: int, **options: Any) -> Graph:
    with db.reading() as session:
        return relationships.graph(session, caller, prompts.get_prompt(session, caller, name), depth=depth, **options)


def impact(caller: Caller, name: str) -> Impact:
    with db.reading() as session:
        return relationships.impact(session, caller, prompts.get_prompt(session, caller, name))


def nodes(found: Graph) -> list[tuple[str, int]]:
    return [(node.prompt.name, node.depth) for node in found.nodes]


def edges(found: Graph) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.relationship.type, edge.target) for edge in found.edges]


def paths(found: Impact) -> dict[str, tuple[float, str]]:
    return {
        one.prompt.name: (round(one.strength, 6), " ".join(f"{kind} {name}" for kind, name in one.path))
        for one in found.dependents
    }


def test_a_graph_reaches_as_far_as_its_depth_in_any_direction(admin: Caller) -> None:
    make(admin, "abcde")
    relate(admin, ("b", "extends", "a"), ("b", "references", "c"), ("d", "depends_on", "c"), ("e", "extends", "d"))

    assert nodes(graph(admin, "a", 1)) == [("a", 0), ("b", 1)]
    assert nodes(graph(admin, "a", 3)) == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
    assert edges(graph(admin, "a", 3)) == [("b", "extends", "a"), ("b", "references", "c"), ("d", "depends_on", "c")]


def test_a_graph_of_some_types_goes_along_no_others(admin: Caller) -> None:
    make(admin, "abc")
    relate(admin, ("a", "extends", "b"), ("b", "references", "c"), ("a", "similar", "b"))

    found = graph(admin, "a", 5, types=["extends"])

    assert (nodes(found), edges(found)) == ([("a", 0), ("b", 1)], [("a", "extends", "b")])


def test_a_graph_shows_each_edge_once_though_it_is_met_from_both_ends(admin: Caller) -> None:
    make(admin, "abc")
    relate(
        admin, ("a", "references", "b"), ("b", "references", "a"), ("b", "references", "c"), ("c", "references", "a")
    )

    found = graph(admin, "a", 5)

    assert edges(found) == [(s, "references", t) for s, t in ("ab", "ba", "bc", "ca")]
    assert nodes(found) == [("a", 0), ("b", 1), ("c", 1)]


def test_a_graph_too_large_to_show_is_cut_at_the_same_place_every_time(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"leaf{number:02}" for number in range(20)]
    make(admin, ["hub", *names])
    relate(admin, *((name, "extends", "hub") for name in names))
    monkeypatch.setattr(relationships, "MOST_NODES", 8)

    first, second = graph(admin, "hub", 2), graph(admin, "hub", 2)

    assert (len(first.nodes), len(first.edges), first.is_complete) == (8, 7, False)
    assert (nodes(first), edges(first)) == (nodes(second), edges(second))
    assert graph(admin, "leaf00", 1).is_complete


def test_a_graph_asks_the_database_a_number_of_times_that_its_size_does_not_change(admin: Caller) -> None:
    names = [f"leaf{number:02}" for number in range(30)]
    make(admin, ["hub", *names])
    relate(admin, *((name, "extends", "hub") for name in names[:3]))
    few = statements_of(admin)
    relate(admin, *((name, "extends", "hub") for name in names[3:]))

    assert statements_of(admin) == few


def statements_of(caller: Caller) -> int:
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = db.engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        graph(caller, "hub", 3)
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return len(sent)


def test_who_needs_a_prompt_is_touched_by_its_change_through_any_number_of_others(admin: Caller) -> None:
    make(admin, ["base", "child", "grandchild", "user", "whole", "other", "successor"])
    relate(
        admin,
        ("child", "extends", "base", 0.5),
        ("grandchild", "depends_on", "child", 0.5),
        ("user", "references", "base", 0.9),
        ("base", "part_of", "whole", 0.8),
        ("base", "depends_on", "other"),  # what it needs itself does not break
        ("successor", "replaces", "base"),
        ("other", "similar", "base"),
    )

    found = impact(admin, "base")

    assert paths(found) == {
        "user": (0.9, "references user"),
        "whole": (0.8, "part_of whole"),
        "child": (0.5, "extends child"),
        "grandchild": (0.25, "extends child depends_on grandchild"),
    }
    assert [one.prompt.name for one in found.dependents] == ["user", "whole", "child", "grandchild"]
    assert found.is_complete


def test_a_part_does_not_break_when_its_whole_changes(admin: Caller) -> None:
    make(admin, ["part", "whole"])
    relate(admin, ("part", "part_of", "whole"))

    assert paths(impact(admin, "whole")) == {}
    assert list(paths(impact(admin, "part"))) == ["whole"]


def test_of_several_paths_the_strongest_counts_and_of_equal_ones_the_shortest(admin: Caller) -> None:
    make(admin, ["base", "weak", "m1", "m2", "top", "even"])
    relate(
        admin,
        ("weak", "extends", "base", 0.1),
        ("top", "extends", "weak", 1.0),
        ("m1", "extends", "base", 0.9),
        ("m2", "extends", "m1", 0.9),
        ("top", "depends_on", "m2", 0.9),
        ("even", "extends", "m1", 1.0),
        ("even", "references", "base", 0.9),
    )

    found = paths(impact(admin, "base"))

    assert found["top"] == (0.729, "extends m1 extends m2 depends_on top")
    assert found["even"] == (0.9, "references even")


def test_prompts_that_reference_each_other_in_a_circle_are_each_named_once(admin: Caller) -> None:
    make(admin, "abc")
    relate(admin, ("a", "references", "b"), ("b", "references", "c"), ("c", "references", "a"))

    assert sorted(paths(impact(admin, "a"))) == ["b", "c"]


@pytest.mark.parametrize(("length", "is_complete"), [(10, True), (11, False)])
def test_a_chain_of_dependents_is_followed_ten_steps_and_it_is_said_if_it_goes_on(
    admin: Caller, length: int, is_complete: bool
) -> None:
    names = [f"n{number:02}" for number in range(length + 1)]
    make(admin, names)
    relate(admin, *((later, "extends", earlier) for earlier, later in itertools.pairwise(names)))

    found = impact(admin, "n00")

    assert (len(found.dependents), found.is_complete) == (10, is_complete)


def test_two_opposite_relationships_at_once_leave_one(admin: Caller) -> None:
    make(admin, "ab")
    for kind in relationships.ACYCLIC:
        outcomes: list[str] = []
        start = threading.Barrier(2)

        def try_it(source: str, target: str, kind: str = kind, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                relate(admin, (source, kind, target))
                outcomes.append("made")  # noqa: B023  # the threads end with the round
            except RelationshipCycle:
                outcomes.append("refused")  # noqa: B023

        threads = [threading.Thread(target=try_it, args=ends) for ends in (("a", "b"), ("b", "a"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["made", "refused"], kind
    assert count(Relationship) == len(relationships.ACYCLIC)


def test_a_circle_is_seen_that_another_transaction_is_about_to_close(admin: Caller) -> None:
    """The first has not committed when the second looks: it must wait for it."""
    make(admin, "ab")
    outcomes: list[str] = []

    def oppose() -> None:
        try:
            relate(admin, ("b", "extends", "a"))
            outcomes.append("made")
        except RelationshipCycle:
            outcomes.append("refused")

    rival = threading.Thread(target=oppose)
    with db.transaction() as session:
        relationships.create(session, admin, prompts.get_prompt(session, admin, "a"), target="b", type="extends")
        rival.start()
        wait_until(lambda: bool(outcomes) or waits_for_a_lock(), "the other transaction waits or ends")
    rival.join()

    assert outcomes == ["refused"]
    assert count(Relationship) == 1


def test_a_prompt_has_only_so_many_relationships(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    make(admin, "abcd")
    monkeypatch.setattr(relationships, "MOST_PER_PROMPT", 2)
    relate(admin, ("a", "extends", "b"), ("a", "extends", "c"))

    with pytest.raises(Unprocessable, match="2 relationships"):
        relate(admin, ("a", "extends", "d"))
    relate(admin, ("d", "extends", "a"))


def test_relationships_go_with_either_prompt(admin: Caller) -> None:
    make(admin, "abc")
    relate(admin, ("a", "extends", "b"), ("c", "references", "a"), ("c", "extends", "b"))

    with db.transaction() as session:
        session.execute(sa.delete(Prompt).where(Prompt.name == "a"))

    assert count(Relationship) == 1
    assert paths(impact(admin, "b")) == {"c": (1.0, "extends c")}


def test_impact_counts_the_work_in_flight_labels_and_recent_use(api: Api, admin: Caller, drain: Drain) -> None:
    make_triage(api, cases=12)
    make_prompt(api)
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/staging", {"version_number": 1})
    done = [api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": n})) for n in ("Ada", "Bob")]
    drain()
    failed = api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": "Eve"}, environment="prod"))
    fail(failed["execution_id"])
    api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": "Kim"}, environment="prod"))
    batch = api.expect(202, "POST", "/v1/executions:batch", batch_body(["Lee", "Mia"]))
    ended = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    api.expect(200, "POST", f"/v1/evaluations/{ended['evaluation_id']}/cancel")
    evaluation = api.expect(202, "POST", "/v1/evaluations", evaluation_body(name="open"))
    optimization = api.expect(202, "POST", "/v1/optimizations", optimization_body())

    greeter = api.expect(200, "GET", "/v1/prompts/greeter/impact")
    triage = api.expect(200, "GET", "/v1/prompts/triage/impact")

    assert len(done) == 2
    assert greeter["executions"] | {"since": None} == {
        "since": None,
        "total": 6,
        "open": 3,
        "by_environment": {"dev": 4, "prod": 2},
        "is_complete": True,
    }
    assert greeter["batches"] == {"total": 1, "ids": [batch["batch_id"]]}
    assert [label["label"] for label in greeter["labels"]] == ["production", "staging"]
    assert (greeter["evaluations"], greeter["optimizations"]) == ({"total": 0, "ids": []}, {"total": 0, "ids": []})
    assert triage["evaluations"] == {"total": 1, "ids": [evaluation["evaluation_id"]]}
    assert triage["optimizations"] == {"total": 1, "ids": [optimization["optimization_id"]]}
    assert triage["batches"] == {"total": 0, "ids": []}


def test_impact_forgets_what_ran_more_than_thirty_days_ago(api: Api, admin: Caller, drain: Drain) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain()
    before = impact(admin, "greeter").usage.total

    db.offset_clock(relationships.USAGE_DAYS * 86_400 + 60)

    assert (before, impact(admin, "greeter").usage.total) == (1, 0)


def test_impact_counts_the_newest_executions_of_very_many_and_says_so(
    api: Api, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:batch", batch_body(["Ada", "Bob", "Eve"]))
    monkeypatch.setattr(relationships, "COUNTED", 2)

    usage = impact(admin, "greeter").usage

    assert (usage.total, usage.is_complete) == (2, False)


def test_the_sum_by_type_is_of_what_the_caller_sees(admin: Caller) -> None:
    make(admin, "abc")
    relate(admin, ("a", "extends", "b"), ("a", "extends", "c"), ("b", "similar", "c"))

    with db.reading() as session:
        counts = relationships.count_by_type(session, admin)

    assert {kind: number for kind, number in counts.items() if number} == {"extends": 2, "similar_to": 1}
    assert set(counts) == set(relationships.TYPES)
