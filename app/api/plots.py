"""…/*.svg: how a search went, what it weighed, how strategies compare, how scores are spread. See also their JSON."""

import uuid

import flask

from app import plots
from app.api import blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import evaluations, lineages, optimizations, search_course, strategy_comparisons

blp = blueprint("plots", "Searches, comparisons and evaluations as pictures (SVG).")
SVG = "image/svg+xml"
_FILE = {"type": "string"}


@blp.get("/optimizations/<uuid:optimization_id>/progress.svg")
@blp.response(200, _FILE, content_type=SVG)
def plot_progress(optimization_id: uuid.UUID) -> flask.Response:
    """Plot the scores of its candidates against calls, with the best so far; while it runs too"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        marks = search_course.course(session, optimization)
    return _answer(plots.progress(marks))


@blp.get("/optimizations/<uuid:optimization_id>/pareto.svg")
@blp.response(200, _FILE, content_type=SVG)
def plot_pareto(optimization_id: uuid.UUID) -> flask.Response:
    """Plot its candidates by score and cost, with the front"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        points, _ = lineages.pareto(session, optimization)
    return _answer(plots.pareto(points))


@blp.get("/optimization-comparisons/<uuid:comparison_id>/strategies.svg")
@blp.response(200, _FILE, content_type=SVG)
def plot_strategies(comparison_id: uuid.UUID) -> flask.Response:
    """Plot the gain of each strategy on the holdout, by seed, with its interval"""
    with reading() as session:
        comparison = strategy_comparisons.get_comparison(session, caller(), comparison_id)
        standings = strategy_comparisons.standings_of(session, [comparison])[0]
    return _answer(plots.strategies(standings))


@blp.get("/evaluations/<uuid:evaluation_id>/scores.svg")
@blp.response(200, _FILE, content_type=SVG)
def plot_scores(evaluation_id: uuid.UUID) -> flask.Response:
    """Plot how many cases scored how much, with the mean and its interval"""
    with reading() as session:
        evaluation = evaluations.get_evaluation(session, caller(), evaluation_id)
        values = evaluations.scores_by_case(session, evaluation)
    return _answer(plots.scores(values, evaluation.aggregate or {}))


def _answer(svg: bytes) -> flask.Response:
    return flask.Response(svg, mimetype=SVG)
