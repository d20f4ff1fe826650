"""How fast the registry is, beside an MLflow tracking server in the same run. Prints one JSON document.

    make bench-registry            or            python -m benchmarks.registry --help

Redis, both servers and their databases are its own. The two are filled with the same prompts and take turns; each
measurement is a process of its own. How to read it: docs/performance.md.
"""

import argparse
import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import redis

from app import seeds
from benchmarks import places, profiles, registries
from benchmarks.load import Names, Request
from benchmarks.places import say, spread
from benchmarks.registries import KINDS, Registry
from tests.servers import PostgresServer, RedisServer, temporary_directory

PARTS = ("read", "create", "search", "ceiling", "profile")
AS_CLIENT = "create as its client does"
IN_BATCHES = f"create in batches of {registries.BATCH}"
ORDERS = ("uniform", "zipf")  # which prompts are read: all alike, or the n-th most wanted 1/n as often as the first
LINES = 1_000_000  # of a file of names; no measurement asks for as many
UNREACHED = "100000000/minute"  # so that each request is counted by the limiter and none is refused
_STEP = 97_777  # lines between two measurements, so that none begins with what another has just asked for
TARGETS: Mapping[str, tuple[str, float]] = {
    "read_ratio": ("at least", 25.0),
    "read_ratio_stretch": ("at least", 50.0),
    "read_per_s": ("at least", 2_500.0),
    "read_p99_ms_at_half_load": ("below", 20.0),
    "create_ratio": ("at least", 20.0),
    "create_ratio_as_clients_do": ("at least", 20.0),
    "create_ratio_in_batches": ("at least", 20.0),
    "search_p95_ms": ("below", 50.0),
}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    with _bench(options) as bench:
        report = bench.described()
        if "ceiling" in options.part:
            report["ceiling"] = _ceiling(bench)
        rounds = [bench.round(number) for number in range(options.rounds)]
        report |= figures(rounds)
        if "profile" in options.part:
            report["profile"] = _profile(bench)
    report["targets"] = judged(report)
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.registry",
        description=(__doc__ or "").split("\n")[0],
        epilog="See docs/performance.md.",
    )
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: all but profile)")
    add("--prompts", type=int, default=100_000, help="in each registry (%(default)s)")
    add("--versions", type=int, default=10, help="of each prompt (%(default)s)")
    add("--data", type=Path, help="keep the filled databases here for the next run (default: fill anew)")
    add("--database", choices=("sqlite", "postgresql"), default="sqlite", help="what ours runs on (%(default)s)")
    add("--server", choices=registries.SERVERS, default="gunicorn", help="what ours runs under (%(default)s)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of ours; may be repeated")
    add("--without-mlflow", action="store_true", help="ours alone: no ratios")
    add("--mlflow-workers", type=int, default=4, help="processes of MLflow's server (%(default)s, as it has)")
    add("--rounds", type=int, default=3, help="how often each is measured, in turns (%(default)s)")
    add("--seconds", type=float, default=10, help="of each measurement (%(default)s)")
    add("--warm-seconds", type=float, default=3, help="of the same load before it (%(default)s)")
    add("--warm-passes", type=int, default=6, help="how often ours is asked for every prompt before (%(default)s)")
    add("--connections", type=int, nargs="+", default=[8, 32, 64], help="tried before; each keeps its best (8 32 64)")
    add("--clients", type=int, nargs="+", default=[4, 32], help="that create versions, tried in the same way (4 32)")
    add("--searches", type=int, default=300, help="of each kind in a round (%(default)s)")
    add("--generator", choices=("wrk", "own"), default="wrk", help="of the load that fills a server (%(default)s)")
    add("--smoke", action="store_true", help="tiny sizes, once, ours alone, no wrk: does it run at all?")
    chosen = parser.parse_args()
    chosen.part = chosen.part or [part for part in PARTS if part != "profile"]
    if chosen.smoke:
        chosen.prompts, chosen.versions, chosen.rounds, chosen.searches = 40, 3, 1, 4
        chosen.seconds, chosen.warm_seconds, chosen.connections, chosen.clients = 0.5, 0.2, [4], [2]
        chosen.generator, chosen.without_mlflow, chosen.warm_passes = "own", True, 1
    if chosen.generator == "wrk" and not shutil.which("wrk"):
        parser.error("wrk is not installed: apt-get install wrk, or --generator own")
    if not chosen.without_mlflow and not registries.MLFLOW_PYTHON.exists():
        parser.error("MLflow is not installed: make .venv-mlflow/.installed, or --without-mlflow")
    if unknown := [each for each in chosen.set if not each.startswith("PROMPTMILL_") or "=" not in each]:
        parser.error(f"--set {unknown[0]}: give PROMPTMILL_NAME=VALUE")
    return chosen


# ---- measurements ---------------------------------------------------------------------------


@dataclass
class Bench:
    """The registries that answer, and how they are measured."""

    options: argparse.Namespace
    registries: Sequence[Registry]
    environment: Mapping[str, str]
    work: Path
    facts: Mapping[str, Any]
    connections: dict[str, int]
    clients: dict[str, int]  # that create versions
    used: int = 0  # numbers given to requests: each stands in one only

    def described(self) -> dict[str, Any]:
        return {**self.facts, "connections": self.connections, "clients": self.clients}

    def round(self, number: int) -> dict[str, dict[str, Any]]:
        """All measurements once: by part, what was found of each registry."""
        found: dict[str, dict[str, Any]] = {}
        measurements: dict[str, Callable[[Registry], dict[str, Any]]] = {}
        if "read" in self.options.part:
            measurements |= {f"read {order}": partial(self.read, order=order, number=number) for order in ORDERS}
        if "create" in self.options.part:
            measurements["create"] = partial(self.create, number=number)
            measurements[AS_CLIENT] = partial(self.create_as_client, number=number)
            measurements[IN_BATCHES] = partial(self.create_many, number=number)
        if "search" in self.options.part:
            measurements |= {f"search {kind}": partial(self.search, kind=kind, number=number) for kind in KINDS}
        for what, measure in measurements.items():
            found[what] = {}
            for registry in self.registries:
                if not {IN_BATCHES: registry.create_many, AS_CLIENT: registry.create_as_client}.get(what, True):
                    continue
                busy = psutil.cpu_percent(interval=0.5)
                found[what][registry.name] = {**measure(registry), "busy_before_percent": busy}
                say(f"round {number + 1}: {what}, {registry.name}: {_in_short(found[what][registry.name])}")
        return found

    def read(self, registry: Registry, *, order: str, number: int) -> dict[str, Any]:
        """As many as it answers, then half as many a second."""
        full = self.saturate(registry, [registry.read], order, self.connections[registry.name], turn=2 * number)
        half = self._call(
            "at_rate",
            registry,
            request=registry.read,
            names=self._names(order, 4 * number + 2),
            per_s=full["per_s"] / 2,
            seconds=self.options.seconds,
            warm_seconds=self.options.warm_seconds,
        )
        return {"full": full, "half": half}

    def create(self, registry: Registry, *, number: int) -> dict[str, Any]:
        return {"full": self.saturate(registry, [registry.create], "uniform", self.clients[registry.name], turn=number)}

    def create_as_client(self, registry: Registry, *, number: int) -> dict[str, Any]:
        """The same, with all that its client sends: counted are versions. Latencies are of single requests."""
        sent = registry.create_as_client
        full = self.saturate(registry, sent, "uniform", self.clients[registry.name], turn=number)
        return {"full": {**full, "count": full["count"] / len(sent), "per_s": full["per_s"] / len(sent)}}

    def create_many(self, registry: Registry, *, number: int) -> dict[str, Any]:
        """The same, a batch to a request."""
        assert registry.create_many is not None
        full = self.saturate(registry, [registry.create_many], "uniform", min(self.options.clients), turn=number)
        return {"full": {**full, "versions_per_s": full["per_s"] * registries.BATCH}}

    def warm(self, registry: Registry) -> None:
        """Have every prompt read so often, that what is measured is not the first time."""
        reads = self.options.warm_passes * self.options.prompts
        if reads:
            self._call(
                "in_turn",
                registry,
                request=registry.read,
                names={"file": str(self.work / "all.txt"), "at": 0, "number": 0},
                clients=8,
                at_most=reads,
                seconds=900,
            )
            say(f"{registry.name}: every prompt was read {self.options.warm_passes} times")

    def search(self, registry: Registry, *, kind: str, number: int) -> dict[str, Any]:
        """One client with one search after the other, each for other words."""
        draw = random.Random(number)
        wanted = [draw.randint(1, self.options.prompts) for _ in range(self.options.searches)]
        file = self.work / "words.txt"
        file.write_text("\n".join(registry.words(each)[kind] for each in wanted))
        found = self._call(
            "in_turn",
            registry,
            request=registry.searches[kind],
            names={"file": str(file), "at": 0, "number": 0},
            clients=1,
            at_most=self.options.searches,
            seconds=3 * self.options.seconds,
        )
        return {"full": found}

    def saturate(
        self, registry: Registry, requests: Sequence[Request], order: str, connections: int, *, turn: int
    ) -> Any:
        found: dict[str, Any] = {}
        warm, counted = self.options.warm_seconds, self.options.seconds
        for place, seconds in ((2 * turn, warm), (2 * turn + 1, counted)):
            found = self._call(
                "saturate",
                registry,
                requests=list(requests),
                names=self._names(order, place),
                connections=connections,
                seconds=seconds,
                generator=self.options.generator,
            )
        return {**found, "per_s": found["count"] / found["seconds"]}

    def _names(self, order: str, place: int) -> Names:
        """The same for all registries, which are measured at the same places of the same file."""
        self.used += LINES
        return {"file": str(self.work / f"{order}.txt"), "at": place * _STEP % LINES, "number": self.used}

    def _call(self, function: str, registry: Registry, **arguments: Any) -> Any:
        where = {"server": registry.pid, "port": registry.port}
        return places.call("benchmarks.load", function, self.environment, **where, **arguments)


def _ceiling(bench: Bench) -> dict[str, Any]:
    """What a Flask view that does nothing answers under the same server, to the same load."""
    with registries.serving("benchmarks.bare:application", bench.environment, bench.work, bench.options.server) as bare:
        ours = bench.registries[0]
        idle = Registry("bare", *bare, ours.read, ours.create, {}, ours.words, ours.template_of)
        found = bench.saturate(idle, [ours.read], "uniform", bench.connections[ours.name], turn=0)
    say(f"a bare view: {_in_short({'full': found})}")
    return {"per_s": round(found["per_s"]), **_costs([found])}


def _profile(bench: Bench) -> dict[str, Any]:
    """What one process of ours does with its interpreter while it is asked as much as it answers."""
    ours = bench.registries[0]
    busiest = max(psutil.Process(ours.pid).children(), key=lambda child: sum(child.cpu_times()[:2]))
    return profiles.sampled(
        busiest.pid,
        lambda: bench.saturate(ours, [ours.read], "uniform", bench.connections[ours.name], turn=0),
        bench.work / "api.profile",
    )


# ---- figures --------------------------------------------------------------------------------


def figures(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """By part: of each registry medians and ranges over the rounds, and the ratios within each round."""
    found_in_all: dict[str, Any] = {}
    for what in (each for each in rounds[0] if rounds[0][each]):  # without MLflow nobody's client sends more
        of_part: dict[str, Any] = {}
        for name in rounds[0][what]:
            found = [each[what][name] for each in rounds]
            of_part[name] = _summary(found, searching=what.startswith("search"))
        if what == IN_BATCHES:
            rates = [each[what]["promptmill"]["full"]["versions_per_s"] for each in rounds]
            of_part["promptmill"]["versions_per_s"] = spread(rates)
            if "mlflow" in rounds[0]["create"]:
                theirs = [_rate(each["create"]["mlflow"]) for each in rounds]
                of_part["ratio"] = spread([rate / their for rate, their in zip(rates, theirs, strict=True)])
        elif what == AS_CLIENT:
            fast = [_rate(each["create"]["promptmill"]) / _rate(each[what]["mlflow"]) for each in rounds]
            of_part["ratio"] = spread(fast)
        elif "mlflow" in of_part:
            fast = [_rate(each[what]["promptmill"]) / _rate(each[what]["mlflow"]) for each in rounds]
            of_part["ratio"] = spread(fast)
        found_in_all[what] = of_part
    return found_in_all


def _summary(found: Sequence[Mapping[str, Any]], *, searching: bool) -> dict[str, Any]:
    full = [each["full"] for each in found]
    latencies = ("p50_ms", "p95_ms", "p99_ms")
    summary: dict[str, Any] = {
        **({} if searching else {"per_s": spread([each["per_s"] for each in full])}),
        **{figure: spread([each[figure] for each in full]) for figure in latencies},
        **_costs(full),
    }
    if "half" in found[0]:
        half = [each["half"] for each in found]
        shown = ("per_s", *latencies, "late_p99_ms")
        summary["half_load"] = {**{each: spread([one[each] for one in half]) for each in shown}, **_costs(half)}
    return {**summary, "busy_before_percent": spread([each["busy_before_percent"] for each in found])}


def _costs(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """CPU time of the server for each request, and how much of one core the load itself took."""
    return {
        "cpu_ms_each": spread([1000 * each["cpu_seconds"] / each["count"] for each in found]),
        "load_cores": spread([each["load_cpu_seconds"] / each["seconds"] for each in found]),
    }


def _rate(found: Mapping[str, Any]) -> float:
    return float(found["full"]["count"] / found["full"]["seconds"])


def _in_short(found: Mapping[str, Any]) -> str:
    full = found["full"]
    text = f"{full['count'] / full['seconds']:.0f}/s, p50 {full['p50_ms']:.1f}, p95 {full['p95_ms']:.1f} ms"
    if "half" in found:
        half = found["half"]
        text += f"; at {half['per_s']:.0f}/s p50 {half['p50_ms']:.1f}, p99 {half['p99_ms']:.1f} ms"
    return text


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target that this run measured, at the median of its rounds; of reads the worse order of the two."""
    reads = [report[f"read {order}"] for order in ORDERS if f"read {order}" in report]
    searches = [report[f"search {kind}"] for kind in KINDS if f"search {kind}" in report]
    values: dict[str, float] = {}
    if reads:
        values["read_per_s"] = min(each["promptmill"]["per_s"]["median"] for each in reads)
        values["read_p99_ms_at_half_load"] = max(each["promptmill"]["half_load"]["p99_ms"]["median"] for each in reads)
    if reads and "ratio" in reads[0]:
        values["read_ratio"] = values["read_ratio_stretch"] = min(each["ratio"]["median"] for each in reads)
    if "create" in report and "ratio" in report["create"]:
        values["create_ratio"] = report["create"]["ratio"]["median"]
    if AS_CLIENT in report:
        values["create_ratio_as_clients_do"] = report[AS_CLIENT]["ratio"]["median"]
    if "ratio" in report.get(IN_BATCHES, {}):
        values["create_ratio_in_batches"] = report[IN_BATCHES]["ratio"]["median"]
    if searches:
        values["search_p95_ms"] = max(each["promptmill"]["p95_ms"]["median"] for each in searches)
    return [
        {
            "what": what,
            "target": f"{word} {bound:g}",
            "found": values[what],
            "met": values[what] >= bound if word == "at least" else values[what] < bound,
        }
        for what, (word, bound) in TARGETS.items()
        if what in values
    ]


# ---- where it runs --------------------------------------------------------------------------


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(temporary_directory())
        data = (options.data or work / "data").resolve()
        data.mkdir(parents=True, exist_ok=True)
        broker = RedisServer(work / "redis")
        stack.callback(broker.kill)
        broker.start()
        postgres = None
        if options.database == "postgresql":
            postgres = PostgresServer(data)
            stack.callback(postgres.stop)
        size = options.prompts, options.versions
        say(f"ours is filled with {options.prompts:,} prompts of {options.versions} versions, or was before")
        url, took = stack.enter_context(registries.our_database(data, work, postgres, *size))
        filled: dict[str, Any] = {"promptmill_seconds": took}
        limits = {"PROMPTMILL_RATE_LIMIT": UNREACHED}
        given = dict(each.split("=", 1) for each in options.set)
        environment = places.environment(work, url, broker.url, **{**limits, **given})
        compared = [stack.enter_context(registries.promptmill(environment, work, options.server))]
        if not options.without_mlflow:
            say("MLflow's is filled, or was before")
            file, took = registries.mlflow_database(data, work, *size)
            filled["mlflow_seconds"] = took
            compared.append(stack.enter_context(registries.mlflow(file, work, options.mlflow_workers)))
        _draw(work, options.prompts)
        draw = random.Random(1)
        for registry in compared:
            registry.check([draw.randint(1, options.prompts) for _ in range(20)], options.versions)
        facts = _facts(options, filled, redis.Redis.from_url(broker.url).info("server")["redis_version"])
        bench = Bench(options, compared, environment, work, facts, {}, {})
        bench.warm(compared[0])
        for registry in compared:
            bench.connections[registry.name] = _best(bench, registry, registry.read, options.connections)
            if "create" in options.part:
                bench.clients[registry.name] = _best(bench, registry, registry.create, options.clients)
        yield bench


def _draw(work: Path, prompts: int) -> None:
    """The files of names: drawn once, so that all are asked for the same prompts in the same order."""
    draw = random.Random(2)
    names = [seeds.large_name(number) for number in range(1, prompts + 1)]
    (work / "all.txt").write_text("\n".join(names))
    (work / "uniform.txt").write_text("\n".join(draw.choices(names, k=LINES)))
    draw.shuffle(names)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, prompts + 1)))
    (work / "zipf.txt").write_text("\n".join(draw.choices(names, cum_weights=weights, k=LINES)))


def _best(bench: Bench, registry: Registry, request: Request, tried: Sequence[int]) -> int:
    """Over how many connections it answers this request most often."""
    if len(tried) == 1:
        return tried[0]
    found = {each: bench.saturate(registry, [request], "uniform", each, turn=15)["per_s"] for each in tried}
    told = ", ".join(f"{rate:.0f}/s over {many} connections" for many, rate in found.items())
    say(f"{registry.name}, {request['method']}: {told}")
    return max(found, key=lambda each: found[each])


def _facts(options: argparse.Namespace, filled: Mapping[str, Any], redis_version: str) -> dict[str, Any]:
    libraries = ("flask", "gunicorn", "granian", "sqlalchemy", "psycopg")
    return {
        "machine": {**places.machine(*libraries), "redis": redis_version},
        "mlflow": None if options.without_mlflow else registries.mlflow_version(),
        "load": _wrk_version() if options.generator == "wrk" else "asyncio",
        "prompts": options.prompts,
        "versions": options.prompts * options.versions,
        "method": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "promptmill": f"{options.server}, {options.database}; API key, metrics and all other middleware on",
            "settings": options.set,
            "mlflow": f"mlflow server --workers {options.mlflow_workers}, its SQLite store; no authentication",
            "filled": "ours by app.seeds.plant_many; MLflow's by bulk inserts into the tables of its store, whose"
            " rows were compared with those that its client writes; of both 20 prompts were read back over HTTP",
            "fill_seconds": filled,
        },
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _wrk_version() -> str:
    told = subprocess.run(["wrk", "--version"], stdout=subprocess.PIPE, check=False).stdout.decode()
    return " ".join(told.split()[:2])


if __name__ == "__main__":
    main()
