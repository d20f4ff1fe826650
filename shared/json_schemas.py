"""JSON Schemas that others wrote: whether one is well formed, and where a value does not fit one.

Applying a schema must end, whatever the schema and the value. So a schema that we apply ourselves may not hold what
calls a regular expression (it can take for ever), what leads elsewhere, or what takes the square of a value's size.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend

from shared.errors import FieldError, field_error
from shared.hashing import canonical_json, dump_json

MAX_BYTES = 100_000
MAX_OBJECTS = 1_000
MAX_DEPTH = 50
MAX_SECONDS = 1.0  # of CPU time, as for templates
MAX_ERRORS = 20
MAX_DETAIL = 200  # characters; the library quotes the whole value

REFUSED = frozenset(
    "pattern patternProperties unevaluatedItems unevaluatedProperties"
    " $anchor $dynamicAnchor $dynamicRef $id $recursiveRef $vocabulary".split()
)
_DRAFTS = {
    str(draft.META_SCHEMA["$schema"]).rstrip("#"): draft
    for draft in (Draft202012Validator, Draft201909Validator, Draft7Validator)
}
_LATEST = "https://json-schema.org/draft/2020-12/schema"
_HERE = re.compile(r"#(/(\$defs|definitions)/[^/~%]+)?")
# Where in a schema other schemas stand; what stands elsewhere (an example, a default) is a value.
_ONE = "additionalProperties contains contentSchema else if items not propertyNames then".split()
_LISTS = "allOf anyOf oneOf prefixItems".split()
_MAPS = "$defs definitions dependentSchemas properties".split()


def check_schema(schema: Any, pointer: str) -> None:
    """Raise the 422 for a schema that is not well formed. It is not applied here, but given to a provider."""
    _check_size(schema, pointer)
    draft = _DRAFTS.get(str(schema.get("$schema", _LATEST)).rstrip("#"))
    if draft is None:
        raise field_error(f"{pointer}/$schema", f"must be one of {', '.join(_DRAFTS)}")
    try:
        draft.check_schema(schema)
    except SchemaError as error:
        raise field_error(_pointer(pointer, error.absolute_path), error.message[:MAX_DETAIL]) from error
    except (RecursionError, OverflowError) as error:  # of compiling a regular expression
        raise field_error(pointer, "holds a regular expression that cannot be compiled") from error


def check_applied_schema(schema: Any, pointer: str) -> None:
    """The same for a schema that `mismatches` applies."""
    check_schema(schema, pointer)
    if schema.get("$schema", _LATEST).rstrip("#") != _LATEST:
        raise field_error(f"{pointer}/$schema", f"must be {_LATEST} or left out")
    for inner, at in _schemas(schema, pointer):
        for keyword in inner:
            if keyword in REFUSED or (keyword == "$schema" and inner is not schema):
                raise field_error(f"{at}/{keyword}", "is not taken here")
        reference = inner.get("$ref")
        if reference is not None and not (_HERE.fullmatch(reference) and _leads_somewhere(schema, reference)):
            raise field_error(f"{at}/$ref", "must lead to a schema under #/$defs of this one")


def mismatches(schema: Mapping[str, Any], value: Any, pointer: str) -> list[FieldError]:
    """Where the value does not fit the schema: the first twenty places; none if it fits."""
    token = _deadline.set(time.thread_time() + MAX_SECONDS)
    try:
        errors = itertools.islice(_applied(dump_json(schema)).iter_errors(value), MAX_ERRORS)
        return [FieldError(_pointer(pointer, error.absolute_path), error.message[:MAX_DETAIL]) for error in errors]
    except _TooSlow:
        return [FieldError(pointer, f"takes longer than {MAX_SECONDS:g} s of CPU time to check against its schema")]
    except RecursionError:
        return [FieldError(pointer, "is nested too deeply for its schema, or the schema leads back to itself")]
    except ArithmeticError:
        return [FieldError(pointer, "holds a number that is too large for its schema")]
    finally:
        _deadline.reset(token)


class _TooSlow(Exception):
    pass


_deadline: ContextVar[float] = ContextVar("deadline")


def _check_size(schema: Any, pointer: str) -> None:
    if not isinstance(schema, dict):
        raise field_error(pointer, "must be a JSON Schema, which is an object")
    objects, waiting = 0, [(schema, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise field_error(pointer, f"is nested deeper than {MAX_DEPTH}")
        objects += isinstance(item, dict)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting.extend((each, depth + 1) for each in inner)
    if objects > MAX_OBJECTS:
        raise field_error(pointer, f"holds more than {MAX_OBJECTS:,} objects")
    if len(dump_json(schema).encode()) > MAX_BYTES:
        raise field_error(pointer, f"is larger than {MAX_BYTES:,} bytes")


def _schemas(schema: Any, pointer: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The schema and all that stand in it, each with where it stands; but for true and false, which say nothing."""
    if not isinstance(schema, dict):
        return
    yield schema, pointer
    for keyword in _ONE:
        yield from _schemas(schema.get(keyword), f"{pointer}/{keyword}")
    for keyword in _LISTS:
        for index, inner in enumerate(schema.get(keyword, ())):
            yield from _schemas(inner, f"{pointer}/{keyword}/{index}")
    for keyword in _MAPS:
        for name, inner in schema.get(keyword, {}).items():
            yield from _schemas(inner, _pointer(f"{pointer}/{keyword}", [name]))


def _leads_somewhere(schema: Mapping[str, Any], reference: str) -> bool:
    _, _, path = reference.partition("#/")
    keyword, _, name = path.partition("/")
    return not path or name in schema.get(keyword, {})


def _pointer(start: str, path: Iterable[Any]) -> str:
    return start + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


@lru_cache(maxsize=256)
def _applied(text: str) -> Any:
    """The validator of a schema. Without `$schema`, or the library would put its own class in the place of ours."""
    return _Validator({key: value for key, value in json.loads(text).items() if key != "$schema"})


def _timed(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def timed(validator: Any, wanted: Any, value: Any, schema: Any) -> Any:
        if time.thread_time() > _deadline.get():
            raise _TooSlow
        return keyword(validator, wanted, value, schema)

    return timed


def _required(validator: Any, names: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Says it of the field that is missing, where the library says it of the object."""
    if validator.is_type(value, "object"):
        yield from (ValidationError("missing", path=[name]) for name in names if name not in value)


def _additional(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Likewise of the field that is too much."""
    if wanted is not False:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, wanted, value, schema)
    elif validator.is_type(value, "object"):
        known = schema.get("properties", {})
        yield from (ValidationError("is not known here", path=[name]) for name in value if name not in known)


def _unique(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """By the text of each item: the library compares every two."""
    if wanted and validator.is_type(value, "array"):
        texts = [canonical_json(_comparable(item)) for item in value]
        if len(set(texts)) < len(texts):
            yield ValidationError("holds an item twice")


def _comparable(value: Any) -> Any:
    """Equal numbers alike: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_OURS = {"required": _required, "additionalProperties": _additional, "uniqueItems": _unique}
_Validator = extend(
    Draft202012Validator,
    {name: _timed(keyword) for name, keyword in {**Draft202012Validator.VALIDATORS, **_OURS}.items()},
)
