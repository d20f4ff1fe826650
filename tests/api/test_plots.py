"""Plots: they show what the JSON beside them says, for runs that have hardly begun too."""

import uuid
from typing import Any
from xml.etree import ElementTree

import pytest

from shared import db
from shared.domain import search_course
from shared.models import Optimization
from tests.support import Api, Drain, evaluation_body, make_triage, optimization_body

SVG = "{http://www.w3.org/2000/svg}"


class Plot:
    """A picture by its parts: what is written in it, and how many marks each of its groups has."""

    def __init__(self, api: Api, path: str) -> None:
        answer = api.get(path)
        assert (answer.status_code, answer.mimetype) == (200, "image/svg+xml"), answer.get_data(as_text=True)
        self._root = ElementTree.fromstring(answer.get_data())
        self.texts = ["".join(text.itertext()).strip() for text in self._root.iter(f"{SVG}text")]

    def marks(self, group: str) -> int:
        return sum(
            len(list(found.iter(f"{SVG}use"))) for found in self._root.iter(f"{SVG}g") if found.get("id") == group
        )


@pytest.fixture
def run(api: Api, drain: Drain) -> str:
    make_triage(api, cases=60)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(seed=7))
    drain()
    return f"/v1/optimizations/{started['optimization_id']}"


def test_progress_has_a_mark_for_each_candidate_with_a_score(api: Api, run: str) -> None:
    candidates = api.expect(200, "GET", f"{run}/candidates?limit=100")["data"]
    scored = [one["cases"] for one in candidates if one["mean"] is not None]

    plot = Plot(api, f"{run}/progress.svg")

    assert 0 < plot.marks("complete") == scored.count(24)
    assert 0 < plot.marks("partial") == len(scored) - scored.count(24)
    assert {"calls asked for", "mean score on dev", "best so far"} <= set(plot.texts)


def test_a_candidate_stands_where_the_last_of_its_dev_cases_was_asked_for(api: Api, run: str) -> None:
    spent = api.expect(200, "GET", run)["spent"]
    with db.reading() as session:
        marks = search_course.course(session, session.get_one(Optimization, uuid.UUID(run.rsplit("/", 1)[1])))

    assert (marks[0].ordinal, marks[0].calls) == (0, 24)  # and not at the holdout, which comes last
    assert [mark.calls for mark in marks] == sorted(mark.calls for mark in marks)
    assert marks[-1].calls == spent["task_calls"] + spent["proposer_calls"] - 2 * 18


def test_the_same_run_gives_the_same_picture(api: Api, run: str) -> None:
    assert api.get(f"{run}/progress.svg").get_data() == api.get(f"{run}/progress.svg").get_data()


def test_pareto_joins_the_front_and_names_its_points(api: Api, run: str) -> None:
    points = api.expect(200, "GET", f"{run}/pareto")["data"]
    front = [str(one["ordinal"]) for one in points if one["on_front"]]

    plot = Plot(api, f"{run}/pareto.svg")

    assert 0 < plot.marks("front") == len(front)
    assert 0 < plot.marks("beaten") == len(points) - len(front)
    assert set(front) <= set(plot.texts)
    assert "USD per 1,000 calls" in plot.texts


def test_strategies_are_named_with_a_mark_for_each_seed(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    body = {name: value for name, value in optimization_body().items() if name not in ("strategy", "knobs")}
    arms = [{"strategy": "noop"}, {"strategy": "random"}]
    started = api.expect(202, "POST", "/v1/optimizations:compare", {**body, "strategies": arms, "seeds": [1, 2, 3]})
    path = f"/v1/optimization-comparisons/{started['comparison_id']}"
    before = Plot(api, f"{path}/strategies.svg")
    drain()

    plot = Plot(api, f"{path}/strategies.svg")

    assert before.texts == ["Nothing is scored yet."]
    assert {"noop", "random", "no gain"} <= set(plot.texts)
    measured = [arm["measured"] for arm in api.expect(200, "GET", path)["strategies"]]
    assert measured == [3, 3]
    assert (plot.marks("seeds"), plot.marks("means")) == (6, 2)


def test_scores_say_the_mean_that_the_evaluation_says(api: Api, drain: Drain) -> None:
    make_triage(api)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    path = f"/v1/evaluations/{started['evaluation_id']}"
    before = Plot(api, f"{path}/scores.svg")
    drain()

    plot = Plot(api, f"{path}/scores.svg")

    assert before.texts == ["Nothing is scored yet."]
    said = api.expect(200, "GET", path)["aggregate"]["score"]
    assert f"mean {said:.3f}" in plot.texts
    assert "95 % interval" in plot.texts


@pytest.mark.parametrize("plot", ["progress", "pareto"])
def test_a_run_that_has_not_begun_says_so(api: Api, plot: str) -> None:
    make_triage(api)
    started: Any = api.expect(202, "POST", "/v1/optimizations", optimization_body())

    assert Plot(api, f"/v1/optimizations/{started['optimization_id']}/{plot}.svg").texts == ["Nothing is scored yet."]
