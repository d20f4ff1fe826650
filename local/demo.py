"""The demo: one real prompt, from import to verdict, over the HTTP API of a running stack.

It uses nothing but the public API, so what it shows is what an integrator gets.
"""

import difflib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from local.stack import ROOT, Stack

DATASET = ROOT / "worker" / "simulator" / "support_tickets.jsonl"
PROMPT = """\
You triage support tickets for Quillbox.
Reply with JSON like {"category": "...", "priority": "..."}.
Categories: billing, account_access, bug, how_to, feature_request, cancellation, data_privacy.
Priorities: low, normal, high, urgent.

Ticket:
{{ ticket }}"""
SCORERS = [{"type": "json_fields"}]
# The ceiling of the whole demo is split beforehand: what is promised then holds whatever the baseline costs.
EVALUATION_COST_USD, SEARCH_COST_USD = 0.35, 0.65
SEARCH_TASK_CALLS, SEARCH_PROPOSER_CALLS = 4000, 400
PARAMS = {"temperature": 0.0, "max_new_tokens": 60}
# A reasoning model thinks within the limit before it writes. More would not fit: the search keeps back what the
# confirmation costs at most, which with gpt-5-mini is most of its share already.
REASONING_PARAMS = {"max_new_tokens": 600}
POLL_SECONDS = 0.25


class DemoError(Exception):
    """The API answered something that the demo cannot go on with."""

    def __init__(self, text: str, *, pointers: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.pointers = pointers  # the fields of the request that were refused


@dataclass(frozen=True)
class Limits:
    """What the demo may use. A model without a known price can be limited in calls only."""

    evaluation: Mapping[str, float]
    search: Mapping[str, float]

    @classmethod
    def of(cls, cases: int, *, has_price: bool) -> "Limits":
        # A fifth more than there are cases: an attempt that was lost on the way counts, and is repeated.
        evaluation: dict[str, float] = {"max_task_calls": cases + cases // 5}
        search: dict[str, float] = {
            "max_task_calls": SEARCH_TASK_CALLS,
            "max_proposer_calls": SEARCH_PROPOSER_CALLS,
        }
        if has_price:
            evaluation["max_cost_usd"], search["max_cost_usd"] = EVALUATION_COST_USD, SEARCH_COST_USD
        return cls(evaluation, search)

    @property
    def has_price(self) -> bool:
        return "max_cost_usd" in self.search


@dataclass
class Api:
    """The API of the stack. While it waits, the stack is looked after."""

    stack: Stack

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, kind: str = "") -> Any:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = self._request(path, data=data, method=method)
        request.add_header("Content-Type", kind or "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            if error.code == 409 and problem["code"] == "already_exists":
                return None
            raise DemoError(
                f"{method} {path}: {problem['title']}: {problem['detail']}",
                pointers=[refused["pointer"] for refused in problem.get("errors", [])],
            ) from error

    def save(self, path: str, file: Path) -> None:
        with urllib.request.urlopen(self._request(path), timeout=60) as answer:
            file.write_bytes(answer.read())

    def _request(self, path: str, **options: Any) -> urllib.request.Request:
        return urllib.request.Request(
            self.stack.up["url"] + path, headers={"X-API-Key": self.stack.up["api_key"]}, **options
        )

    def follow(self, path: str) -> Iterator[Any]:
        """The resource again and again until it has ended."""
        while True:
            self.stack.supervisor.watch()
            try:
                state = self.call("GET", path)
            except (urllib.error.URLError, ConnectionError):
                time.sleep(POLL_SECONDS)  # the API is being started again
                continue
            yield state
            if state["status"] not in ("queued", "running"):
                return
            time.sleep(POLL_SECONDS)


def play(stack: Stack, *, seed: int) -> None:
    """Run the demo and print its report; the last line is one JSON object."""
    began = time.monotonic()
    console = Console(highlight=False)
    api = Api(stack)
    model = _model()
    version = put_prompt(api, model)
    api.call("POST", "/v1/datasets", {"name": "support-tickets", "description": "420 tickets; see the datasheet"})
    imported = api.call(
        "POST", "/v1/datasets/support-tickets/cases", raw=DATASET.read_bytes(), kind="application/x-ndjson"
    )
    cases = imported["dataset"]["case_count"]
    started, limits = start_evaluation(api, version, cases)
    console.print(Panel(opening(stack, model, limits), title="Promptmill demo", border_style="cyan"))
    console.print(f"prompt [b]ticket-triage[/b] v{version}, {cases} test cases")

    evaluation = _follow_evaluation(api, console, started)
    optimization = _optimize(api, console, version, seed, limits)
    summary = _summary(evaluation, optimization, limits, time.monotonic() - began)
    _report(api, console, stack, evaluation, optimization, summary)
    print(json.dumps(summary))


def _model() -> dict[str, str]:
    if os.environ.get("OPENAI_API_KEY"):
        return {"provider": "openai", "model_name": os.environ.get("PROMPTMILL_MODEL") or "gpt-4o-mini"}
    return {"provider": "simulated", "model_name": os.environ.get("PROMPTMILL_MODEL") or "simulated-small"}


def put_prompt(api: Api, model: dict[str, str]) -> int:
    """The version's number. The parameters are those that the model takes: the API names what it refuses."""
    body: dict[str, Any] = {
        "template_source": PROMPT,
        "description": "Category and priority of a ticket",
        "set_active": True,
        "model": {**model, "params": PARAMS},
    }
    try:
        upserted = api.call("PUT", "/v1/prompts/ticket-triage", body)
    except DemoError as error:
        if not any(pointer.endswith("/temperature") for pointer in error.pointers):
            raise
        body["model"]["params"] = REASONING_PARAMS
        upserted = api.call("PUT", "/v1/prompts/ticket-triage", body)
    return int(upserted["version"]["version_number"])


def start_evaluation(api: Api, version: int, cases: int) -> tuple[Any, Limits]:
    """The evaluation, and the limits that hold from here on. The API knows whether the model has a price."""
    body = {"prompt_name": "ticket-triage", "version_number": version, "dataset": "support-tickets", "scorers": SCORERS}
    limits = Limits.of(cases, has_price=True)
    try:
        return api.call("POST", "/v1/evaluations", {**body, "budget": limits.evaluation}), limits
    except DemoError as error:
        if "/budget/max_cost_usd" not in error.pointers:
            raise
    limits = Limits.of(cases, has_price=False)
    return api.call("POST", "/v1/evaluations", {**body, "budget": limits.evaluation}), limits


def opening(stack: Stack, model: dict[str, str], limits: Limits) -> str:
    where = os.environ.get("OPENAI_BASE_URL", "api.openai.com")
    real = f"Provider: [b]openai[/b] ({model['model_name']} at {where}), with your key.\n"
    if model["provider"] == "simulated":
        who = (
            f"Provider: [b]simulated[/b] ({model['model_name']}), offline and free. It ranks mechanics, not writing;\n"
            "costs are what a small model would have charged. Set OPENAI_API_KEY to use a real one."
        )
    elif limits.has_price:
        who = (
            f"{real}Nothing is spent beyond {EVALUATION_COST_USD + SEARCH_COST_USD:.2f} USD, reserved before each "
            f"call: {EVALUATION_COST_USD:.2f} to score the baseline, {SEARCH_COST_USD:.2f} to search."
        )
    else:
        who = (
            f"{real}No price is known for this model, so [b]no limit in USD holds[/b], only limits in calls: "
            f"{limits.evaluation['max_task_calls']} to score the baseline, {limits.search['max_task_calls']} and "
            f"{limits.search['max_proposer_calls']} for proposals to search."
        )
    return f"{who}\n{stack.options.workers} worker processes, API at {stack.up['url']}"


def _follow_evaluation(api: Api, console: Console, started: Any) -> Any:
    progress = Progress(
        TextColumn("baseline on all cases"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
    )
    with progress:
        task = progress.add_task("", total=None)
        for state in api.follow(f"/v1/evaluations/{started['evaluation_id']}"):
            if state["progress"]["total"]:
                progress.update(task, completed=state["progress"]["done"], total=state["progress"]["total"])
    _require(state)
    found = state["aggregate"]
    console.print(
        f"baseline: score [b]{found['score']:.3f}[/b] (95 % interval {found['ci_low']:.3f} to {found['ci_high']:.3f}), "
        f"{found['passed']} of {found['cases']} all right"
    )
    return state


def _optimize(api: Api, console: Console, version: int, seed: int, limits: Limits) -> Any:
    body = {
        "prompt_name": "ticket-triage",
        "version_number": version,
        "dataset": "support-tickets",
        "scorers": SCORERS,
        "strategy": "beam_search",
        "budget": limits.search,
        "seed": seed,
    }
    started = api.call("POST", "/v1/optimizations", body)
    began = time.monotonic()
    path = f"/v1/optimizations/{started['optimization_id']}"
    shown = -1
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        for state in api.follow(path):
            if console.is_terminal:
                live.update(_live_view(state, time.monotonic() - began, limits))
            elif len(state["progress"].get("curve", [])) > shown:
                shown = len(state["progress"].get("curve", []))
                live.console.print(_line(state, limits))
    _require(state)
    if state["result"]["baseline_dev"] is None:
        raise DemoError(
            f"the search ended with {state['finish_reason']} before the baseline had a score: if that is a limit, "
            "the calls of this model may cost more than the demo's ceiling covers; try a smaller PROMPTMILL_MODEL"
        )
    return state


def _live_view(state: Any, seconds: float, limits: Limits) -> Group:
    progress, step = state["progress"], state["progress"]["step"]
    total_rounds = progress.get("max_rounds", 1)
    done_rounds = len(progress.get("curve", []))
    share = step["done"] / step["total"] if step["total"] else 0.0
    part = (done_rounds + share / 4) / total_rounds
    eta = f"{seconds / part - seconds:.0f} s" if part > 0.05 else "…"
    table = Table.grid(padding=(0, 2))
    best = progress.get("best_score")
    baseline = progress.get("baseline_score")
    table.add_row("phase", f"{progress.get('phase', 'starting')}, step {share:.0%} of {step['total']} calls")
    table.add_row("round", f"{progress.get('round', 0)} of {total_rounds}")
    table.add_row("best score", "…" if best is None else f"{best:.3f}  (baseline {baseline:.3f})")
    table.add_row("calls", f"{state['spent']['task_calls']} task, {state['spent']['proposer_calls']} proposer")
    of = f" of {SEARCH_COST_USD:.2f}" if limits.has_price else ""
    table.add_row("spend", f"{_spend(state, limits)}{of}")
    table.add_row("candidates", f"{progress.get('candidates', 0)} tried, {progress.get('rejected', 0)} refused unpaid")
    table.add_row("time", f"{seconds:.0f} s, at most {eta} left")
    return Group(Panel(table, title="beam search", border_style="green"), _curve(state))


def _line(state: Any, limits: Limits) -> str:
    progress = state["progress"]
    best = progress.get("best_score")
    return (
        f"round {progress.get('round', 0)}/{progress.get('max_rounds', '?')}: best "
        f"{'…' if best is None else format(best, '.3f')}, {state['spent']['task_calls']} calls, "
        f"{_spend(state, limits)}"
    )


def _spend(state: Any, limits: Limits) -> str:
    return f"{state['spent']['cost_usd']:.4f} USD" if limits.has_price else "cost unknown"


def _curve(state: Any) -> Table:
    """The best dev score after each round, as bars."""
    table = Table.grid(padding=(0, 1))
    baseline = state["progress"].get("baseline_score")
    points = [("baseline", baseline, 0)] if baseline is not None else []
    points += [(f"round {p['round']}", p["best"], p["task_calls"]) for p in state["progress"].get("curve", [])]
    for name, score, calls in points:
        bar = "█" * round(score * 40)
        table.add_row(name, Text(bar, style="green"), f"{score:.3f}", f"{calls} calls" if calls else "")
    return table


def _report(api: Api, console: Console, stack: Stack, evaluation: Any, state: Any, summary: Mapping[str, Any]) -> None:
    result, holdout = state["result"], state["result"]["holdout"]
    console.print(_curve(state))
    table = Table(title=f"verdict: {result['verdict']}", title_style="bold green", title_justify="left")
    for column in ("", "baseline", "best", "difference", "95 % interval", "cases"):
        table.add_column(column, justify="right" if column else "left")
    cases = result["cases"]
    table.add_row(
        "dev (chose the winner)",
        f"{result['baseline_dev']:.3f}",
        f"{result['best_dev']:.3f}",
        f"{result['best_dev'] - result['baseline_dev']:+.3f}",
        "",
        str(cases["dev"]),
    )
    if holdout:
        table.add_row(
            "held out (confirms)",
            f"{holdout['baseline']:.3f}",
            f"{holdout['candidate']:.3f}",
            f"{holdout['difference']:+.3f}",
            f"{holdout['ci_low']:+.3f} to {holdout['ci_high']:+.3f}",
            str(cases["holdout"]),
        )
    console.print(table)
    best = _content(api, state["best_version_number"])
    diff = difflib.unified_diff(PROMPT.splitlines(), best.splitlines(), "baseline", "best", lineterm="", n=2)
    console.print(Syntax("\n".join(diff), "diff", theme="ansi_dark", background_color="default", word_wrap=True))
    plot = stack.options.home / "demo-progress.svg"
    api.save(f"/v1/optimizations/{state['optimization_id']}/progress.svg", plot)
    has_price = summary["cost_usd"] is not None
    scored, searched = evaluation["spent"], state["spent"]
    console.print(
        f"baseline on all cases: {scored['task_calls']} task calls, {_exact(scored['cost_usd'], has_price)}\n"
        f"search: {searched['task_calls']} task calls and {searched['proposer_calls']} proposer calls, "
        f"{_exact(searched['cost_usd'], has_price)}; finished because: {state['finish_reason']}\n"
        f"together: {summary['provider_calls']} calls, {_exact(summary['cost_usd'], has_price)}\n"
        f"best prompt: ticket-triage v{state['best_version_number']} (no label was moved)\n"
        f"how the search went, as a plot: {plot}\n"
        f"this run (`make up`, then GET): {stack.up['url']}/v1/optimizations/{state['optimization_id']}",
        soft_wrap=True,
    )


def _exact(usd: float | None, has_price: bool) -> str:
    """To the nano-dollar, so that the parts add up to the whole."""
    return f"{usd:.9f} USD" if has_price else "cost unknown"


def _content(api: Api, number: int) -> str:
    return str(api.call("GET", f"/v1/prompts/ticket-triage/versions/{number}")["template_source"])


def _summary(evaluation: Any, optimization: Any, limits: Limits, seconds: float) -> dict[str, Any]:
    result, holdout = optimization["result"], optimization["result"]["holdout"] or {}
    spent = optimization["spent"]
    return {
        "baseline_dev": result["baseline_dev"],
        "best_dev": result["best_dev"],
        "holdout": {
            "baseline": holdout.get("baseline"),
            "best": holdout.get("candidate"),
            "difference": holdout.get("difference"),
            "ci_low": holdout.get("ci_low"),
            "ci_high": holdout.get("ci_high"),
            "verdict": result["verdict"],
        },
        "provider_calls": evaluation["spent"]["task_calls"] + spent["task_calls"] + spent["proposer_calls"],
        "cost_usd": round(evaluation["spent"]["cost_usd"] + spent["cost_usd"], 9) if limits.has_price else None,
        "seconds": round(seconds, 1),
    }


def _require(state: Any) -> None:
    if state["status"] != "succeeded":
        raise DemoError(f"ended as {state['status']}: {state['error_type']}: {state['error_message']}")
