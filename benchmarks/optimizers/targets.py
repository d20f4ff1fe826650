"""What is aimed at, and whether a report says that it was reached."""

from collections.abc import Mapping
from typing import Any

from benchmarks.optimizers.bench import PEERS
from shared.knobs import DEFAULT


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target that this run measured; of the two sets of worlds the worse one counts."""
    made: list[dict[str, Any]] = []

    def judge(what: str, target: str, found: Any, met: bool) -> None:
        made.append({"what": what, "target": target, "found": found, "met": met})

    compared = report.get("http", {})
    sets = [compared[which] for which in ("named", "fresh") if which in compared]
    to_peers = [[found["value"] for name, found in each["ratio_to"].items() if name in PEERS] for each in sets]
    ratios = [max(values) for values in to_peers if values]
    if ratios:
        judge("calls_to_80_ratio", "at most 0.5 of the best library's", max(ratios), max(ratios) <= 0.5)
    rates = [each["figures"][DEFAULT]["false_improvements"] for each in sets if DEFAULT in each["figures"]]
    values = [rate["value"] for rate in rates if rate]
    if values:
        judge("false_improvements", "at most 0.05", max(values), max(values) <= 0.05)
    if "kills" in report:
        kills = report["kills"]
        allowed = kills["calls_left_alone"] + kills["slots_open_at_kills"]
        judge("paid_calls_under_kills", f"at most {allowed}", kills["calls_with_kills"], kills["within"])
    if "same_ranking" in compared:
        judge("same_ranking_on_a_fresh_seed", "yes", compared["same_ranking"], compared["same_ranking"])
    return made
