"""Ours as it is deployed: API, two worker processes and a beat on SQLite, asked over HTTP as any client would."""

import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.optimizers import server
from benchmarks.optimizers.outcomes import PROMPT_END
from benchmarks.optimizers.record import TASK
from benchmarks.optimizers.worlds import World
from tests.faults.fleet import Fleet, Process
from tests.servers import wait_until

_PROVIDER = "openai"
_LIMIT_SECONDS = 900.0


def strategies(fleet: Fleet) -> list[str]:
    return [each["name"] for each in fleet.api.get("/v1/optimizations/strategies").raise_for_status().json()["data"]]


def start(fleet: Fleet, world: World, strategy: str, *, seed: int, budget: Mapping[str, int]) -> str:
    """The address of an optimization of this world's seed prompt, under a name of its own."""
    name = f"{world.name}-{strategy.replace('_', '-')}-{seed}-{time.time_ns()}"
    model = {"provider": _PROVIDER, "model_name": "world-task"}
    prompt = {
        "template_source": world.seed_text + PROMPT_END,
        "set_active": True,
        "model": {**model, "params": {"temperature": 0.0, "max_new_tokens": 50}},
    }
    _send(fleet, "PUT", f"/v1/prompts/{name}", prompt)
    _send(fleet, "POST", "/v1/datasets", {"name": name})
    cases = [{"inputs": {"record": case.text}, "expected": case.answer} for case in world.cases]
    _send(fleet, "POST", f"/v1/datasets/{name}/cases", cases)
    started = _send(
        fleet,
        "POST",
        "/v1/optimizations",
        {
            "prompt_name": name,
            "dataset": name,
            "strategy": strategy,
            "scorers": [{"type": "exact_match"}],
            "proposer": {"provider": _PROVIDER, "model_name": "world-proposer"},
            "budget": dict(budget),
            "seed": seed,
        },
    )
    return f"/v1/optimizations/{started['optimization_id']}"


def ended(fleet: Fleet, path: str) -> tuple[str, dict[str, Any]]:
    """The prompt that came out, and the optimization, when it has ended."""
    found: dict[str, Any] = {}

    def ended_now() -> bool:
        found.update(fleet.api.get(path).raise_for_status().json())
        return found["status"] not in ("queued", "running")

    wait_until(ended_now, f"{path} has ended", seconds=_LIMIT_SECONDS, every=0.1)
    if found["status"] != "succeeded":
        raise RuntimeError(f"{path} {found['status']}: {found['error_type']} {found['error_message']}")
    best = found["result"]["best"]
    for candidate in _candidates(fleet, path):
        if candidate["hash"] == best:
            return str(candidate["components"]["template"]), found
    raise AssertionError("the best prompt is no candidate")


def killed_at_random(
    fleet: Fleet, path: str, calls: Callable[[], int], *, kills: int, expected: int, chance: random.Random
) -> list[dict[str, int]]:
    """Kill a worker that holds work, at moments spread at random over the calls that the run is expected to make.

    Each is started again. How many slots each kill found open: the leases that the dead worker left. Fewer kills
    than were asked for where the run ends before.
    """
    found: list[dict[str, int]] = []
    for moment in sorted(chance.sample(range(expected // 20, expected * 19 // 20), kills)):
        stopped: list[Process] = []

        def is_time(moment: int = moment, stopped: list[Process] = stopped) -> bool:
            if calls() >= moment:
                stopped.extend(_stopped_while_it_holds(fleet, chance))
            return bool(stopped) or has_ended(fleet, path)

        wait_until(is_time, "a worker holds work", seconds=_LIMIT_SECONDS, every=0.01)
        if not stopped:
            return found
        worker = stopped[0]
        worker.kill()
        found.append({"at_call": calls(), "slots_open": len(fleet.holding(worker))})
        fleet.restart_worker(worker)
    return found


def _stopped_while_it_holds(fleet: Fleet, chance: random.Random) -> list[Process]:
    """One of the workers that hold leases, stopped, so that it cannot give them back before it is killed, or none."""
    holders = [worker for worker in fleet.workers if fleet.holding(worker)]
    if not holders:
        return []
    worker = chance.choice(holders)
    worker.signal(signal.SIGSTOP)
    if fleet.holding(worker):
        return [worker]
    worker.signal(signal.SIGCONT)
    return []


def has_ended(fleet: Fleet, path: str) -> bool:
    return fleet.api.get(path).raise_for_status().json()["status"] not in ("queued", "running")


def repeats(calls: Sequence[Mapping[str, Any]], kills: Sequence[Mapping[str, int]]) -> tuple[list[int], int]:
    """How many task calls were made again because of each kill, and how many that no kill explains.

    A call that was made again was under way at the first kill after it.
    """
    first: dict[tuple[str, int], int] = {}
    by_kill, unexplained = [0] * len(kills), 0
    for number, call in enumerate(calls, 1):
        if call["role"] != TASK:
            continue
        key = (call["prompt"], call["case"])
        before = first.setdefault(key, number)
        if before == number:
            continue
        kill = next((k for k, one in enumerate(kills) if before <= one["at_call"] < number), None)
        if kill is None:
            unexplained += 1
        else:
            by_kill[kill] += 1
        first[key] = number
    return by_kill, unexplained


def calls_at(control_port: int) -> Callable[[], int]:
    return lambda: int(server.ask(control_port, "GET", "/calls")["calls"])


def _candidates(fleet: Fleet, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = fleet.api.get(f"{path}/candidates", params={"limit": 100, **({"cursor": cursor} if cursor else {})})
        found += page.raise_for_status().json()["data"]
        cursor = page.json()["next_cursor"]
        if not cursor:
            return found


def _send(fleet: Fleet, method: str, path: str, body: Any) -> Any:
    answer = fleet.api.request(method, path, json=body)
    if answer.is_error:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
    return answer.json()
