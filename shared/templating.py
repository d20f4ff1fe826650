"""Prompt templates: a strict subset of Jinja2 that cannot run code, loop for ever or fill the memory.

The subset is an allow-list over the parsed template (Jinja's own sandbox is not complete, and it
folds constants like `9**9**9` while compiling): output, names, attributes and items of plain JSON
values, `if`, `for`, comparisons, and the filters below. Undefined variables are errors.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import FieldError, InvalidTemplate, RenderFailed
from shared.hashing import dump_json

MAX_SOURCE_BYTES = 200_000
MAX_RENDERED_BYTES = 200_000
MAX_NODES = 5_000
MAX_LOOP_DEPTH = 3
MAX_ITERATIONS = 100_000
MAX_SECONDS = 1.0

FILTERS = (
    "capitalize count d default first float indent int items join last length list lower replace "
    "round sort string title tojson trim truncate unique upper"
).split()
TESTS = "defined undefined none number string sequence mapping boolean true false in eq ne lt le gt ge".split()

_ALLOWED_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.CondExpr,
    nodes.For,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.List,
    nodes.Tuple,
    nodes.Filter,
    nodes.Test,
    nodes.Keyword,
)
_LOOP_FIELDS = {
    "index",
    "index0",
    "revindex",
    "revindex0",
    "first",
    "last",
    "length",
    "depth",
    "previtem",
    "nextitem",
}


def check(source: str) -> None:
    """Raise `InvalidTemplate` unless the source is within the subset and its limits."""
    _compile(source)


def variable_names(source: str) -> list[str]:
    """The template's variables, sorted."""
    return sorted(find_undeclared_variables(_parse(source)))


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The template filled with plain JSON values.

    Raises `RenderFailed` (which names each missing variable) when a variable is undefined or the
    output passes 200,000 bytes, 100,000 loop turns or one second.
    """
    template = _compile(source)
    limits = _Limits()
    token = _limits.set(limits)
    try:
        return "".join(limits.capped(template.generate(**variables)))
    except UndefinedError as error:
        missing = [name for name in variable_names(source) if name not in variables]
        problems = [FieldError(f"/variables/{name}", "missing") for name in missing]
        detail = f"missing variables: {', '.join(missing)}" if missing else str(error)
        raise RenderFailed(detail, errors=problems or [FieldError("/variables", detail)]) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise RenderFailed(str(error), errors=[FieldError("/variables", str(error))]) from error
    finally:
        _limits.reset(token)


class _LimitPassed(TemplateError):
    pass


class _Limits:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self.deadline = time.monotonic() + MAX_SECONDS
        self.iterations = 0
        self.rendered_bytes = 0

    def capped(self, chunks: Iterable[str]) -> Iterator[str]:
        for chunk in chunks:
            self.rendered_bytes += len(chunk.encode("utf-8", "surrogatepass"))
            if self.rendered_bytes > MAX_RENDERED_BYTES:
                raise _LimitPassed(f"the rendered prompt is larger than {MAX_RENDERED_BYTES} bytes")
            self.check_clock()
            yield chunk

    def turn(self) -> None:
        self.iterations += 1
        if self.iterations > MAX_ITERATIONS:
            raise _LimitPassed(f"more than {MAX_ITERATIONS} loop turns")
        if self.iterations % 256 == 0:
            self.check_clock()

    def check_clock(self) -> None:
        if time.monotonic() > self.deadline:
            raise _LimitPassed(f"rendering took longer than {MAX_SECONDS:g} s")


_limits: ContextVar[_Limits] = ContextVar("limits")


class _Environment(ImmutableSandboxedEnvironment):
    """Reaches into dicts and lists by item only, never by Python attribute."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_FIELDS:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(obj=obj, name=argument)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    limits = _limits.get()
    for item in items:
        limits.turn()
        yield item


def _join(value: Iterable[Any], separator: str = "") -> str:
    if len(separator) > 100:
        raise _LimitPassed("join: the separator is longer than 100 characters")
    return separator.join(str(item) for item in value)


def _replace(value: str, old: str, new: str) -> str:
    if not old or (len(value) // len(old) + 1) * len(new) > 4 * MAX_RENDERED_BYTES:
        raise _LimitPassed("replace: the result could be too large")
    return value.replace(old, new)


def _indent(value: str, width: int = 4, first: bool = False) -> str:
    padding = " " * min(int(width), 40)
    return (padding if first else "") + value.replace("\n", "\n" + padding)


def _tojson(value: Any, indent: int | None = None) -> str:
    if indent is None:
        return dump_json(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=min(int(indent), 8))


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.globals = {}
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    environment.filters |= {
        "join": _join,
        "replace": _replace,
        "indent": _indent,
        "tojson": _tojson,
        "_counted": _counted,
    }
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


_jinja = _environment()


def _parse(source: str) -> nodes.Template:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        raise InvalidTemplate(f"the template is larger than {MAX_SOURCE_BYTES} bytes")
    try:
        return _jinja.parse(source)
    except TemplateSyntaxError as error:
        raise InvalidTemplate(f"line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise InvalidTemplate("the template is nested too deeply") from error


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    tree = _parse(source)
    try:
        _refuse_what_is_not_allowed(tree)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        tree.set_environment(_jinja)
        return Template.from_code(_jinja, _jinja.compile(tree), {})
    except RecursionError as error:
        raise InvalidTemplate("the template is nested too deeply") from error


def _refuse_what_is_not_allowed(tree: nodes.Template) -> None:
    seen = 0
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > MAX_NODES:
            raise InvalidTemplate(f"the template has more than {MAX_NODES} parts")
        if isinstance(node, nodes.For):
            depth += 1
        problem = _problem(node, depth)
        if problem:
            raise InvalidTemplate(f"line {node.lineno}: {problem}")
        waiting.extend((child, depth) for child in node.iter_child_nodes())


def _problem(node: nodes.Node, loop_depth: int) -> str | None:
    if isinstance(node, nodes.Call):
        called = getattr(node.node, "name", getattr(node.node, "attr", "?"))
        hint = "; write `for key, value in mapping|items`" if called == "items" else ""
        return f"calls are not allowed: {called}(…){hint}"
    if not isinstance(node, _ALLOWED_NODES):
        return f"{type(node).__name__.lower()} is not allowed in a prompt template"
    if isinstance(node, nodes.For) and (node.recursive or loop_depth > MAX_LOOP_DEPTH):
        return f"loops may be nested {MAX_LOOP_DEPTH} deep and not be recursive"
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"unknown filter {node.name!r}; there are: {', '.join(FILTERS)}"
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        return f"unknown test {node.name!r}; there are: {', '.join(TESTS)}"
    if isinstance(node, nodes.Name) and node.name.startswith("_"):
        return f"names must not begin with an underscore: {node.name}"
    return None
