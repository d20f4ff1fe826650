"""The benchmark of the registry still runs. What it finds is for docs/performance.md, not for a test."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import seeds
from benchmarks import places, registries, registry
from shared.domain.tenants import Caller
from tests.support import Api

ROOT = Path(__file__).parents[2]
SHARED_SQLITE = ["--smoke", "--database", "sqlite", "--server", "gunicorn"]


@dataclass(frozen=True)
class Measured:
    report: Any
    kept: Path  # what was filled
    before: bytes  # of it, after the run


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A small run of every part, which takes long to start."""
    directory = tmp_path_factory.mktemp("registry")
    report = run(*SHARED_SQLITE, "--data", str(directory))
    (kept,) = directory.iterdir()
    return Measured(report, kept, kept.read_bytes())


def test_a_small_run_measures_ours_and_says_which_targets_are_met(measured: Measured) -> None:
    report = measured.report
    parts = {"read uniform", "read zipf", "create", "search rare", "search middle", "search common", "ceiling"}
    assert parts <= set(report)
    assert report["read zipf"]["promptmill"]["half_load"]["p99_ms"]["median"] > 0
    assert report["create"]["promptmill"]["cpu_ms_each"]["median"] > 0
    assert report["ceiling"]["per_s"] > 0
    judged = {each["what"]: each for each in report["targets"]}
    assert set(judged) == {"read_per_s", "read_p99_ms_at_half_load", "search_p95_ms"}  # the others are ratios
    assert judged["read_per_s"]["met"] == (judged["read_per_s"]["found"] >= 2_500)


def test_what_was_filled_is_kept_and_what_was_measured_is_not(measured: Measured) -> None:
    second = run(*SHARED_SQLITE, "--part", "search", "--data", str(measured.kept.parent))

    assert measured.report["method"]["fill_seconds"]["promptmill_seconds"] > 0
    assert second["method"]["fill_seconds"]["promptmill_seconds"] is None
    assert [path.name for path in measured.kept.parent.iterdir()] == [measured.kept.name]
    assert measured.kept.read_bytes() == measured.before


def test_it_runs_on_postgresql_and_under_the_other_server() -> None:
    report = run("--smoke", "--database", "postgresql", "--server", "granian", "--part", "create", "--part", "read")

    assert "granian, postgresql" in report["method"]["promptmill"]
    assert report["create"]["promptmill"]["per_s"]["median"] > 0


def test_what_is_planted_is_read_and_found_as_the_benchmark_asks_for_it(api: Api) -> None:
    assert registries.plant(prompts=12, versions=3) == 12

    for number in (1, 12):
        name, last = seeds.large_name(number), seeds.large_contents(number, 3)[-1]
        read = api.expect(200, "GET", f"/v1/prompts/{name}/versions/production")
        assert (read["version_number"], read["template_source"]) == (3, last.body["template_source"])
        for words in registries.words_of(number):
            found = api.expect(200, "GET", f"/v1/prompts/search?q={words}&limit=50")
            assert name in [hit["name"] for hit in found["data"]]
            assert found["facets"]["category"]


def test_mlflow_is_given_the_same_texts_labels_and_tags(admin: Caller) -> None:
    registries.plant(prompts=2, versions=3)

    given = registries.mlflow_prompt(2, 3)

    contents = seeds.large_contents(2, 3)
    assert [version["template"] for version in given["versions"]] == [each.body["template_source"] for each in contents]
    assert given["aliases"] == {"production": 3, "staging": 1}
    assert given["tags"]["tags"].split(",") == seeds.large_fields(2)["tags"]


def test_a_new_text_is_as_long_as_a_planted_one_but_for_its_mark() -> None:
    planted = seeds.large_contents(1, 1)[0].body["template_source"]

    assert registries.template("@") == planted.replace("1.1", "@")


def test_figures_are_medians_over_the_rounds_and_ratios_are_taken_within_a_round() -> None:
    rounds = [
        {"create": {"promptmill": found(100 * ours), "mlflow": found(10 * theirs)}}
        for ours, theirs in ((1, 1), (4, 2), (9, 3))
    ]

    figures = registry.figures(rounds)

    assert figures["create"]["promptmill"]["per_s"] == {"median": 400.0, "min": 100.0, "max": 900.0}
    assert figures["create"]["ratio"] == {"median": 20.0, "min": 10.0, "max": 30.0}
    (judged,) = registry.judged(figures)
    assert judged == {"what": "create_ratio", "target": "at least 20", "found": 20.0, "met": True}


def test_what_mlflows_client_sends_for_a_version_is_set_against_one_request_of_ours() -> None:
    rounds = [
        {"create": {"promptmill": found(100), "mlflow": found(50)}, registry.AS_CLIENT: {"mlflow": found(theirs)}}
        for theirs in (5, 20, 4)
    ]

    figures = registry.figures(rounds)

    assert figures[registry.AS_CLIENT]["ratio"] == {"median": 20.0, "min": 5.0, "max": 25.0}
    found_of = {each["what"]: each["found"] for each in registry.judged(figures)}
    assert found_of == {"create_ratio": 2.0, "create_ratio_as_clients_do": 20.0}


def test_every_part_and_target_stands_in_the_documentation() -> None:
    page = (ROOT / "docs/performance.md").read_text().split("## Registry")[1]

    assert [part for part in registry.PARTS if f"| `{part}` |" not in page] == []
    assert [name for name in registry.TARGETS if f"`{name}`" not in page] == []


def found(per_s: float) -> dict[str, Any]:
    cost = {"cpu_seconds": 1.0, "load_cpu_seconds": 0.5}
    full = {"count": per_s, "seconds": 1.0, "per_s": per_s, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, **cost}
    return {"full": full, "busy_before_percent": 0.0}


def run(*options: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.registry", *options]
    done = subprocess.run(command, cwd=places.ROOT, stdout=subprocess.PIPE, check=True, timeout=200)
    return json.loads(done.stdout)
