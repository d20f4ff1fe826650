"""Who may import whom: the contracts of .importlinter, and what the linter cannot say."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Of the standard library, what would make a search depend on more than its arguments.
IMPURE = set(
    "asyncio datetime http io logging multiprocessing os pathlib secrets signal socket sqlite3 subprocess"
    " tempfile threading time urllib uuid".split()
)
STRATEGIES_MAY_IMPORT = {
    *(sys.stdlib_module_names - IMPURE),
    *"gepa numpy optuna rapidfuzz worker.strategies".split(),
    *"shared.errors shared.hashing shared.knob_rules shared.knobs shared.spaces shared.splits shared.stats".split(),
}


def test_the_contracts_of_the_import_linter_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_of_the_service_is_under_the_contracts() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / ".importlinter")

    covered = set(configuration["importlinter"]["root_packages"].split())

    assert covered == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "worker/strategies").rglob("*.py")), ROOT / "shared/splits.py"],  # a part of every search
    ids=lambda path: path.stem,
)
def test_a_strategy_imports_only_what_a_pure_search_needs(path: Path) -> None:
    forbidden = {name for name in imported_modules(path) if not is_allowed(name)}

    assert not forbidden


def imported_modules(path: Path) -> set[str]:
    """Full names, `from shared import stats` as `shared.stats`; a name taken from a module counts as the module's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_allowed(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in STRATEGIES_MAY_IMPORT for length in range(1, len(parts) + 1))
