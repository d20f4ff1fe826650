"""Who gets there with how many calls, as a picture: the data profiles of Moré and Wild (2009)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.optimizers.outcomes import Outcome


def save(outcomes: Sequence[Outcome], file: Path, *, budget: int) -> None:
    """Of the runs in worlds with something to gain, the share that has 80 % of it, against calls; as SVG."""
    real = [each for each in outcomes if not each.is_null]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "promptmill", "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(8.0, 4.5), layout="constrained")
        axes = figure.subplots()
        for method in dict.fromkeys(each.method for each in real):
            own = [each for each in real if each.method == method]
            reached = np.sort([each.calls_to_80 for each in own if each.reached])
            shares = np.arange(len(reached) + 1) / len(own)
            axes.step([0, *reached, budget], [*shares, shares[-1]], where="post", label=f"{method} ({len(own)} runs)")
        axes.set(xlabel="calls", ylabel="share of runs with 80 % of the gain", xlim=(0, budget), ylim=(0.0, 1.0))
        axes.legend(fontsize="small")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
