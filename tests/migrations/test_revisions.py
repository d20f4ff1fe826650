"""How a revision file looks: one number, one subject, and no dependence on what the models have become since."""

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "migrations/versions").glob("*.py"))
MAY_IMPORT = {"sqlalchemy", "alembic.op", "shared.db.UtcDateTime", "sqlalchemy.dialects.postgresql"}

each_revision = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_revisions_are_numbered_without_a_gap_and_each_follows_the_one_before() -> None:
    numbers = [f"{number:04}" for number in range(1, len(FILES) + 1)]

    assert [path.name[:5] for path in FILES] == [f"{number}_" for number in numbers]
    assert [constant(path, "revision") for path in FILES] == numbers
    assert [constant(path, "down_revision") for path in FILES] == [None, *numbers[:-1]]


@each_revision
def test_a_revision_says_in_one_line_what_it_is_about(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""

    assert docstring.endswith(".")
    assert len(docstring.splitlines()) == 1


@each_revision
def test_a_revision_means_the_same_for_ever(path: Path) -> None:
    """It names columns and types itself: a model changes, and the revision that made its table must not."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}

    assert imported <= MAY_IMPORT


@each_revision
def test_a_revision_drops_each_table_that_it_made(path: Path) -> None:
    made, dropped = calls(path, "upgrade", "create_table"), calls(path, "downgrade", "drop_table")

    assert sorted(made) == sorted(dropped)


def constant(path: Path, name: str) -> str | None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)  # type: ignore[no-any-return]
    raise AssertionError(f"{path.name} sets no {name}")


def calls(path: Path, function: str, operation: str) -> list[str]:
    """The first argument of each `op.<operation>` in a function of the file."""
    [body] = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    return [
        ast.literal_eval(node.args[0])
        for node in ast.walk(body)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"op.{operation}"
    ]
