"""Plots as SVG: what people would rather look at than read. Plain values in, one picture out.

Colours are those of Okabe and Ito (2008), which the colour-blind tell apart. Equal values give equal bytes.
"""

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from shared.domain.lineages import Point
from shared.domain.search_course import Mark
from shared.domain.strategy_comparisons import Standing

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
INCHES = (8.0, 4.5)
BINS = 20
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "promptmill",
    "text.parse_math": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
}
_one_at_a_time = threading.Lock()  # matplotlib is not made for threads


def progress(marks: Sequence[Mark]) -> bytes:
    """Mean scores on dev against calls, with the best so far."""

    def draw(axes: Any) -> None:
        complete = [mark for mark in marks if mark.is_complete]
        partial = [mark for mark in marks if not mark.is_complete]
        _dots(axes, "partial", partial, GREY, "dropped before it had all cases", facecolors="none")
        _dots(axes, "complete", complete, BLUE, "asked about all dev cases")
        if complete:
            best = list(accumulate((mark.mean for mark in complete), max))
            axes.step([mark.calls for mark in complete], best, color=ORANGE, where="post", label="best so far")
            axes.axhline(complete[0].mean, color=GREY, linestyle="--", linewidth=1, label="the prompt it began with")
        axes.set(xlabel="calls asked for", ylabel="mean score on dev")

    return _svg(draw, empty=not marks)


def pareto(points: Sequence[Point]) -> bytes:
    """Score against cost, or against length where no price is known; the front is joined, and its points are named."""

    def draw(axes: Any) -> None:
        has_price = all(point.cost_usd is not None for point in points)
        place = {
            point.ordinal: 1000 * (point.cost_usd or 0.0) if has_price else point.prompt_tokens for point in points
        }
        front = sorted((point for point in points if not point.dominated_by), key=lambda one: place[one.ordinal])
        beaten = [point for point in points if point.dominated_by]
        for gid, group, colour, label in (
            ("beaten", beaten, GREY, "beaten"),
            ("front", front, BLUE, "on the front of score, cost and length"),
        ):
            x, y = [place[one.ordinal] for one in group], [one.score for one in group]
            axes.scatter(x, y, c=colour, label=label).set_gid(gid)
        axes.plot([place[one.ordinal] for one in front], [one.score for one in front], color=BLUE, linewidth=1)
        for one in front:
            axes.annotate(str(one.ordinal), (place[one.ordinal], one.score), (4, 4), textcoords="offset points")
        axes.set(xlabel="USD per 1,000 calls" if has_price else "prompt tokens per call", ylabel="mean score on dev")

    return _svg(draw, empty=not points)


def strategies(standings: Sequence[Standing]) -> bytes:
    """Each strategy's gain on the holdout: a dot per seed, the mean, and its 95 % interval over seeds."""

    def draw(axes: Any) -> None:
        names = [str(standing.arm["strategy"]) for standing in standings]
        rows = list(enumerate(standings))
        found = [(row, one.difference) for row, standing in rows for one in standing.outcomes]
        seeds = [(gain, row) for row, gain in found if gain is not None]
        spans = [(row, *standing.interval) for row, standing in rows if standing.interval]
        means = [(standing.mean, row) for row, standing in rows if standing.mean is not None]
        axes.scatter(*zip(*seeds, strict=True), c=GREY, s=16, label="one seed").set_gid("seeds")
        if spans:
            axes.hlines(*zip(*spans, strict=True), colors=BLUE, label="95 % interval")
        axes.scatter(*zip(*means, strict=True), c=BLUE, marker="D", label="mean").set_gid("means")
        axes.axvline(0.0, color=ORANGE, linestyle="--", linewidth=1, label="no gain")
        axes.set_yticks(range(len(names)), names)
        axes.margins(y=0.3)
        axes.invert_yaxis()
        axes.set(xlabel="difference to the prompt it began with, on the holdout")

    return _svg(draw, empty=all(standing.mean is None for standing in standings))


def scores(values: Sequence[float], aggregate: Mapping[str, Any]) -> bytes:
    """How many cases scored how much, with the mean and its 95 % interval."""

    def draw(axes: Any) -> None:
        axes.hist(values, bins=BINS, range=(0.0, 1.0), color=BLUE, edgecolor="white")
        if aggregate.get("score") is not None:
            axes.axvline(aggregate["score"], color=ORANGE, label=f"mean {aggregate['score']:.3f}")
        if aggregate.get("ci_low") is not None:
            axes.axvspan(aggregate["ci_low"], aggregate["ci_high"], color=ORANGE, alpha=0.2, label="95 % interval")
        axes.set(xlabel="score of a case", ylabel="cases", xlim=(0.0, 1.0))

    return _svg(draw, empty=not values)


def _dots(axes: Any, gid: str, marks: Sequence[Mark], colour: str, label: str, **options: Any) -> None:
    drawn = axes.scatter(
        [mark.calls for mark in marks],
        [mark.mean for mark in marks],
        edgecolors=colour,
        label=label,
        **{"facecolors": colour, **options},
    )
    drawn.set_gid(gid)


def _svg(draw: Callable[[Any], None], *, empty: bool) -> bytes:
    # Here, since it takes half a second that only those who look at a plot should pay.
    import matplotlib
    from matplotlib.figure import Figure

    with _one_at_a_time, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots()
        if empty:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "Nothing is scored yet.", ha="center", va="center")
        else:
            draw(axes)
            axes.legend(fontsize="small")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
