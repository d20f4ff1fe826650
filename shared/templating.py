"""Prompt templates: a strict subset of Jinja2 that cannot run code, loop for ever or fill the memory.

The subset is an allow-list over the parsed template (Jinja's own sandbox is not complete, and it
folds constants like `9**9**9` while compiling): output, names, attributes and items of plain JSON
values, `if`, `for`, comparisons, and the filters below. Undefined variables are errors.
"""

import io
import json
import keyword
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, nodes, pass_context
from jinja2.exceptions import TemplateSyntaxError, UndefinedError
from jinja2.filters import do_round
from jinja2.meta import TrackingCodeGenerator
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.errors import FieldError, InvalidTemplate, RenderFailed
from shared.hashing import dump_json

MAX_SOURCE_BYTES = 200_000
MAX_RENDERED_BYTES = 200_000
MAX_NODES = 5_000
MAX_DEPTH = 100  # far below what Python can compile, so that it fails in every process or in none
SURELY_COMPILES = 30  # so deep; Python first refuses what Jinja writes for 65 conditions in one another
MAX_LOOP_DEPTH = 3
MAX_ITERATIONS = 100_000
MAX_SECONDS = 1.0  # of CPU time
MAX_FILTERED = 1_000_000  # characters, or elements, that one filter may give
MAX_ROUND_DIGITS = 100

FILTERS = (
    "capitalize count d default first float indent int items join last length list lower replace "
    "round sort string title tojson trim truncate unique upper"
).split()
# They make text of whatever they are given, a list of a thousand references to one long text too.
_TEXT_FILTERS = set("capitalize indent join lower replace string title tojson trim upper".split())
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
    _inspected(source)


def variable_names(source: str) -> list[str]:
    """The template's variables, sorted; `InvalidTemplate` as for `check`."""
    return list(_inspected(source))


def render(source: str, variables: Mapping[str, Any], *, deadline: float | None = None) -> str:
    """The template filled with plain JSON values.

    Raises `RenderFailed` (which names each missing variable) when a variable is undefined or the
    output passes 200,000 bytes, 100,000 loop turns or one second of this thread's CPU time: on a busy
    machine an innocent template waits for longer than that. `deadline`, of `time.thread_time`, takes that
    second's place where several templates share one.
    """
    template = _compile(source)
    if _is_plain(source):
        return source  # a system message often is: to generate it takes as long as one with variables
    limits = _Limits(time.thread_time() + MAX_SECONDS if deadline is None else deadline)
    token = _limits.set(limits)
    try:
        return "".join(limits.capped(template.generate(dict(variables))))
    except UndefinedError as error:
        raise _undefined(source, variables, str(error)) from error
    except _WRONG_VALUES as error:
        raise RenderFailed(str(error), errors=[FieldError("/variables", str(error))]) from error
    finally:
        _limits.reset(token)


def _is_plain(source: str) -> bool:
    """Whether it surely renders to itself: no brace begins a construct, and no carriage return becomes a newline."""
    return "{" not in source and "\r" not in source


# What the filters and operators of Python and Jinja raise when a value is not what they expect.
_WRONG_VALUES = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    RecursionError,
)
_TOO_DEEP = "the template is nested too deeply"


def _undefined(source: str, variables: Mapping[str, Any], detail: str) -> RenderFailed:
    """Every variable that was not given, when one of them is the reason; else what was undefined."""
    missing = [name for name in variable_names(source) if name not in variables]
    if not any(detail == f"{name!r} is undefined" for name in missing):
        return RenderFailed(detail, errors=[FieldError("/variables", detail)])
    errors = [FieldError(f"/variables/{name}", "missing") for name in missing]
    return RenderFailed(f"missing variables: {', '.join(missing)}", errors=errors)


def literal(text: str) -> str:
    """A template that renders to exactly this text: what opens a construct is written as a constant."""
    pieces = {"{": '{{ "{" }}', "\r": '{{ "\\r" }}'}  # Jinja would make a newline of a carriage return
    return re.sub(r"\{(?=[{%#\r])|\r", lambda match: pieces[match[0]], text)


class _LimitPassed(TemplateError):
    pass


class _Limits:
    """What one rendering may still use."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.iterations = 0
        self.rendered_bytes = 0

    def capped(self, chunks: Iterable[str]) -> Iterator[str]:
        for number, chunk in enumerate(chunks):
            self.rendered_bytes += len(chunk.encode("utf-8", "surrogatepass"))
            if self.rendered_bytes > MAX_RENDERED_BYTES:
                raise _LimitPassed(f"the rendered prompt is larger than {MAX_RENDERED_BYTES} bytes")
            if number % 16 == 0:  # to read this clock takes as long as to make a short piece
                self.check_clock()
            yield chunk

    def turn(self) -> None:
        self.iterations += 1
        if self.iterations > MAX_ITERATIONS:
            raise _LimitPassed(f"more than {MAX_ITERATIONS} loop turns")
        if self.iterations % 256 == 0:
            self.check_clock()

    def check_clock(self) -> None:
        if time.thread_time() > self.deadline:
            raise _LimitPassed(f"rendering took longer than {MAX_SECONDS:g} s of CPU time")


_limits: ContextVar[_Limits] = ContextVar("limits")


class _Environment(ImmutableSandboxedEnvironment):
    """Reaches into dicts and lists by item only, never by Python attribute."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_FIELDS:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        # What is missing in something missing is the same missing thing: the error names the variable.
        return obj if isinstance(obj, Undefined) else self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return obj if isinstance(obj, Undefined) else self.undefined(obj=obj, name=argument)


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    limits = _limits.get()
    for item in items:
        limits.turn()
        yield item


def _finalize(value: Any) -> Any:
    """What an output prints."""
    if not isinstance(value, str):
        _refuse_large(value)
    return value


def _guarded(name: str) -> Callable[..., Any]:
    """The filter of that name under the limits.

    Jinja runs a filter of constants while compiling, before any limit holds; not one that asks for the context.
    """

    @pass_context
    def guarded(context: Context, value: Any, *args: Any, **options: Any) -> Any:
        _limits.get().check_clock()
        if name in _TEXT_FILTERS or (isinstance(value, Undefined) and name not in ("default", "d")):
            _refuse_large(value)
        result = _plain.call_filter(name, value, args, options, context)
        if isinstance(result, Iterator):
            result = list(result)
        if isinstance(result, str | list) and len(result) > MAX_FILTERED:
            raise _LimitPassed(f"{name}: the result is larger than {MAX_FILTERED}")
        return result

    return guarded


def _refuse_large(value: Any) -> None:
    """Refuse a value whose text would be too large, before that text is made, or that holds an undefined one."""
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Undefined):
            str(item)  # raises, and says which
        if isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        size += len(item) if isinstance(item, str) else 1
        if size > MAX_FILTERED:
            raise _LimitPassed(f"a value is larger than {MAX_FILTERED} characters")


def _join(value: Iterable[Any], separator: str = "") -> str:
    if len(separator) > 100:
        raise _LimitPassed("join: the separator is longer than 100 characters")
    texts = [str(item) for item in value]
    if sum(map(len, texts)) + len(texts) * len(separator) > MAX_FILTERED:
        raise _LimitPassed(f"join: the result is larger than {MAX_FILTERED}")
    return separator.join(texts)


def _replace(value: Any, old: str, new: str) -> str:
    text = str(value)
    if not old or (len(text) // len(old) + 1) * len(new) > 4 * MAX_RENDERED_BYTES:
        raise _LimitPassed("replace: the result could be too large")
    return text.replace(old, new)


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    text, padding = str(value), " " * min(int(width), 40)
    if len(text) + text.count("\n") * len(padding) > MAX_FILTERED:
        raise _LimitPassed(f"indent: the result is larger than {MAX_FILTERED}")
    return (padding if first else "") + text.replace("\n", "\n" + padding)


def _tojson(value: Any, indent: int | None = None) -> str:
    if indent is None:
        return dump_json(value)
    text = io.StringIO()
    for chunk in json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=min(int(indent), 8)).iterencode(value):
        if text.tell() > MAX_FILTERED:
            raise _LimitPassed(f"tojson: the result is larger than {MAX_FILTERED}")
        text.write(chunk)
    return text.getvalue()


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > MAX_ROUND_DIGITS:  # ten to the power of it is computed
        raise _LimitPassed(f"round: the precision is larger than {MAX_ROUND_DIGITS}")
    return do_round(value, precision, method)  # type: ignore[arg-type]


def _environments() -> tuple["_Environment", "_Environment"]:
    """(the environment of the templates, the one that holds the filters as they are)"""
    plain = _Environment(undefined=StrictUndefined)
    plain.filters |= {
        "indent": _indent,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "tojson": _tojson,
    }
    environment = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=_finalize,
        optimized=False,  # folding constants takes time with the square of the depth, and no limit holds there
    )
    environment.globals = {}
    environment.filters = {name: _guarded(name) for name in FILTERS}
    environment.filters["_counted"] = _counted
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment, plain


_jinja, _plain = _environments()


def _parse(source: str) -> nodes.Template:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        raise InvalidTemplate(f"the template is larger than {MAX_SOURCE_BYTES} bytes")
    try:
        return _jinja.parse(source)
    except TemplateSyntaxError as error:
        raise InvalidTemplate(f"line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise InvalidTemplate(_TOO_DEEP) from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise InvalidTemplate("a number in the template is too long") from error


@dataclass
class _Inspected:
    """What a walk over a parsed template has found."""

    depth: int = 0
    names: set[str] = field(default_factory=set)
    has_loop: bool = False  # only a loop gives names a value in the template itself


@lru_cache(maxsize=512)
def _inspected(source: str) -> tuple[str, ...]:
    """The variables of a template that compiles. Compiled is only what might not: it takes as long as all the rest."""
    placeholders = _placeholders(source)
    if placeholders is not None:
        return tuple(sorted(placeholders))
    tree = _parse(source)
    found = _inspect(tree)
    names = _undeclared(tree) if found.has_loop else found.names
    if found.depth > SURELY_COMPILES:
        _compile(source)
    return tuple(sorted(names))


# A construct that is more than a name, or what no database holds. The last brace of a text may belong to what follows.
_MORE_THAN_TEXT = re.compile(r"\{(?:[{%#]|\Z)|[\x00\ud800-\udfff]")
_PLACEHOLDER = re.compile(r"\{\{ *([A-Za-z][A-Za-z0-9_]*) *\}\}")
_NO_NAMES = {"self", "true", "false", "none", *keyword.kwlist}  # to Jinja, or perhaps
_MANY_PARTS = 1_000  # far below MAX_NODES


def _placeholders(source: str) -> set[str] | None:
    """The names in a template that is only text and `{{ name }}`, as most are; None: Jinja has to read it, which takes
    sixteen times as long (docs/performance.md)."""
    parts = _PLACEHOLDER.split(source)  # text, name, text, name, …, text
    texts, names = parts[::2], set(parts[1::2])
    if len(parts) > _MANY_PARTS or names & _NO_NAMES or any(map(_MORE_THAN_TEXT.search, texts)):
        return None
    return None if len(source.encode()) > MAX_SOURCE_BYTES else names


def _undeclared(tree: nodes.Template) -> set[str]:
    """The names that the template does not give a value itself."""
    try:
        tracker = TrackingCodeGenerator(_jinja)
        tracker.optimizer = None  # as in _environments()
        tracker.visit(tree)
    except TemplateSyntaxError as error:
        raise InvalidTemplate(f"line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise InvalidTemplate(_TOO_DEEP) from error
    return tracker.undeclared_identifiers


@lru_cache(maxsize=512)
def _compile(source: str) -> Template:
    tree = _parse(source)
    _inspect(tree)
    try:
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        tree.set_environment(_jinja)
        return Template.from_code(_jinja, _jinja.compile(tree), {})
    except TemplateSyntaxError as error:
        raise InvalidTemplate(f"line {error.lineno}: {error.message}") from error
    except (RecursionError, SyntaxError) as error:  # Python compiles neither 100 blocks nor 200 parentheses deep
        raise InvalidTemplate(_TOO_DEEP) from error


def _inspect(tree: nodes.Template) -> _Inspected:
    """`InvalidTemplate` unless all of it is allowed."""
    found = _Inspected()
    seen = 0
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        seen += 1
        if seen > MAX_NODES:
            raise InvalidTemplate(f"the template has more than {MAX_NODES} parts")
        if depth > MAX_DEPTH:
            raise InvalidTemplate(_TOO_DEEP)
        found.depth = max(found.depth, depth)
        if isinstance(node, nodes.For):
            loops += 1
            found.has_loop = True
        elif isinstance(node, nodes.Name):
            found.names.add(node.name)
        problem = _problem(node, loops)
        if problem:
            raise InvalidTemplate(f"line {node.lineno}: {problem}")
        waiting.extend((child, depth + 1, loops) for child in node.iter_child_nodes())
    return found


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
    if isinstance(node, nodes.Name) and node.name == "self":
        return "the name self is taken: it stands for the template"
    if isinstance(node, nodes.Const | nodes.TemplateData):
        return _literal_problem(node.value if isinstance(node, nodes.Const) else node.data)
    return None


def _literal_problem(value: Any) -> str | None:
    """Why no database can hold this value, which an escape or an exponent in the template can spell."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is too large"
    if isinstance(value, str) and "\x00" in value:
        return "a text holds a NUL character"
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return "a text holds half of a surrogate pair"
    return None
