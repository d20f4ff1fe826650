"""Tests run on both databases; a job of CI may choose one, and a wrong choice is an error, not an empty run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOME_TESTS = "tests/domain/test_budgets.py"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("", {"sqlite", "postgresql"}),
        ("postgresql", {"postgresql"}),
    ],
)
def test_tests_are_collected_for_the_chosen_databases(chosen: str, expected: set[str]) -> None:
    done = collect(chosen)

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"[\[-](sqlite|postgresql)[\]-]", done.stdout)) == expected


def test_an_unknown_database_ends_the_run_with_its_name() -> None:
    done = collect("sqlite,mysql")

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PROMPTMILL_TEST_DATABASES: mysql is none of sqlite, postgresql" in done.stdout + done.stderr


def test_ci_runs_every_check_on_each_database_and_each_python() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]

    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert job["strategy"]["matrix"] == {"database": ["sqlite", "postgresql"], "python": ["3.11", "3.13"]}
    assert job["env"] == {"PROMPTMILL_TEST_DATABASES": "${{ matrix.database }}"}
    assert commands == ["make install PYTHON=python${{ matrix.python }}", "make lint", "make types", "make test"]


def test_the_script_that_ci_runs_stops_at_the_first_failure() -> None:
    script = ROOT / ".ci/run"

    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == [
        "make install",
        "make lint",
        "make types",
        "make test",
    ]


def collect(chosen: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", SOME_TESTS],
        cwd=ROOT,
        env={**os.environ, "PROMPTMILL_TEST_DATABASES": chosen},
        capture_output=True,
        text=True,
        check=False,
    )
