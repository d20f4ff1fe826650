"""Rules about the code that no linter knows."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 650


def test_only_the_job_runner_catches_every_exception() -> None:
    assert files_with(catches_everything) == {"worker/runner.py"}


def test_only_the_answer_to_a_bug_handles_every_exception_of_a_request() -> None:
    assert files_with(registers_a_handler_for_everything) == {"app/problems.py"}


def test_nothing_sleeps_but_what_waits_for_something_that_does_not_tell() -> None:
    """The simulator's latency, the local stack, the Redis listener, SQLite's write lock, who accepts a client."""
    allowed = ("worker/simulator/", "local/", "app/waiting.py", "app/even_worker.py", "shared/db.py")

    sleepers = {path for path in files_with(sleeps) if not path.startswith(allowed)}

    assert not sleepers


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in source_files()}

    assert not {path: length for path, length in lengths.items() if length > LONGEST_FILE}


def test_a_domain_function_that_takes_a_session_takes_it_first() -> None:
    assert not {path for path in files_with(takes_a_session_late) if path.startswith("shared/domain/")}


def source_files() -> list[str]:
    folders = ("app", "shared", "worker", "local", "migrations")
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def files_with(rule: Callable[[ast.AST], bool]) -> set[str]:
    return {path for path in source_files() if any(rule(node) for node in nodes(path))}


def nodes(path: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((ROOT / path).read_text()))


def catches_everything(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return node.type is None or names_everything(node.type)
    return any(map(names_everything, arguments_of("suppress", node)))


def registers_a_handler_for_everything(node: ast.AST) -> bool:
    return any(
        names_everything(argument)
        for method in ("register_error_handler", "errorhandler")
        for argument in arguments_of(method, node)
    )


def sleeps(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(alias.name == "sleep" for alias in node.names)
    return bool(arguments_of("sleep", node))


def takes_a_session_late(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    positional = node.args.posonlyargs + node.args.args
    return any(
        parameter.annotation is not None and ast.unparse(parameter.annotation) == "Session"
        for parameter in positional[1:] + node.args.kwonlyargs
    )


def names_everything(node: ast.AST) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(names_everything, node.elts))
    return isinstance(node, ast.Name) and node.id in ("Exception", "BaseException")


def arguments_of(name: str, node: ast.AST) -> list[ast.expr]:
    """The arguments, when this calls a function or a method of that name; else none."""
    if not isinstance(node, ast.Call):
        return []
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return node.args if called == name else []
