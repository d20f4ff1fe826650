"""JSON Schemas of others: what is well formed, what we apply, and that applying one ends."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import json_schemas
from shared.errors import Unprocessable
from shared.json_schemas import MAX_ERRORS, MAX_OBJECTS, check_applied_schema, check_schema, mismatches

USER = {
    "type": "object",
    "required": ["name", "age"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"$ref": "#/$defs/whole"}},
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["user"],
    "properties": {"user": USER, "a/b": {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}},
    "$defs": {"whole": {"type": "integer"}},
}


def named(value: Any, schema: Any = SCHEMA) -> list[str]:
    return [error.pointer for error in mismatches(schema, value, "/variables")]


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ({"user": {"name": "Ada", "age": 36}}, []),
        ({"user": {"name": "Ada", "age": 36.0}, "a/b": [1, 2], "more": None}, []),
        ({}, ["/variables/user"]),
        ({"user": {}}, ["/variables/user/name", "/variables/user/age"]),
        ({"user": {"name": "", "age": "36"}}, ["/variables/user/name", "/variables/user/age"]),
        ({"user": {"name": "Ada", "age": 36, "x": 1, "y": 2}}, ["/variables/user/x", "/variables/user/y"]),
        ({"user": 5}, ["/variables/user"]),
        ({"user": {"name": "Ada", "age": True}}, ["/variables/user/age"]),
        ({"user": {"name": "Ada", "age": 36}, "a/b": [1, 3]}, ["/variables/a~1b/1"]),
        ({"user": {"name": "Ada", "age": 36}, "a/b": [1, 1.0]}, ["/variables/a~1b"]),
        ([], ["/variables"]),
    ],
)
def test_what_does_not_fit_is_named_where_it_stands(value: Any, pointers: list[str]) -> None:
    assert named(value) == pointers


@pytest.mark.parametrize(
    ("left", "right", "is_twice"),
    [(1, 1.0, True), (1, True, False), (0, False, False), (1, "1", False), ({"a": [2.0]}, {"a": [2]}, True)],
)
def test_items_are_the_same_when_json_says_so(left: Any, right: Any, is_twice: bool) -> None:
    assert bool(named([left, right], {"uniqueItems": True})) == is_twice


def test_properties_that_a_schema_describes_are_checked_by_it() -> None:
    schema = {"properties": {"a": True}, "additionalProperties": {"type": "string"}}

    assert named({"a": 1, "b": "text", "c": 5}, schema) == ["/variables/c"]


def test_the_first_twenty_errors_are_told() -> None:
    assert len(named(["text"] * 100, {"items": {"type": "integer"}})) == MAX_ERRORS


def test_the_detail_of_an_error_is_short_whatever_the_value() -> None:
    (error,) = mismatches({"properties": {"a": {"type": "integer"}}}, {"a": "x" * 100_000}, "/variables")

    assert len(error.detail) <= json_schemas.MAX_DETAIL


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ([], "/at"),
        ("string", "/at"),
        (True, "/at"),
        ({"type": "strin"}, "/at/type"),
        ({"properties": {"a~b": {"minLength": -1}}}, "/at/properties/a~0b/minLength"),
        ({"properties": {"a": {"pattern": "("}}}, "/at/properties/a/pattern"),
        ({"pattern": "(" * 5_000}, "/at"),
        ({"pattern": "a{99999999999999999999}"}, "/at"),
        ({"$schema": "https://example.com/mine"}, "/at/$schema"),
        ({"$schema": 5}, "/at/$schema"),
        ({"description": "x" * 100_001}, "/at"),
    ],
)
def test_a_schema_that_is_not_well_formed_is_refused_where_it_is_not(schema: Any, pointer: str) -> None:
    for check in (check_schema, check_applied_schema):
        with pytest.raises(Unprocessable) as refused:
            check(schema, "/at")

        assert [error.pointer for error in refused.value.errors] == [pointer]


def test_a_schema_has_a_limited_number_of_objects() -> None:
    def of(count: int) -> dict[str, Any]:
        return {"properties": {f"p{number}": {} for number in range(count - 2)}}

    check_applied_schema(of(MAX_OBJECTS), "/at")

    with pytest.raises(Unprocessable, match="more than 1,000 objects"):
        check_schema(of(MAX_OBJECTS + 1), "/at")


def test_a_schema_is_nested_fifty_deep() -> None:
    def of(depth: int) -> dict[str, Any]:
        return {"not": of(depth - 1)} if depth > 1 else {}

    check_applied_schema(of(50), "/at")

    with pytest.raises(Unprocessable, match="deeper than 50"):
        check_schema(of(51), "/at")


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "/at/properties/a/pattern"),
        ({"items": {"patternProperties": {}}}, "/at/items/patternProperties"),
        ({"allOf": [{}, {"unevaluatedItems": False}]}, "/at/allOf/1/unevaluatedItems"),
        ({"unevaluatedProperties": False}, "/at/unevaluatedProperties"),
        ({"$id": "https://example.com"}, "/at/$id"),
        ({"$defs": {"a": {"$dynamicRef": "#x"}}}, "/at/$defs/a/$dynamicRef"),
        ({"not": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}, "/at/not/$schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/at/$schema"),
        ({"$ref": "https://example.com/schema.json"}, "/at/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/at/$ref"),
        ({"if": {"$ref": "#/properties/a"}, "properties": {"a": {}}}, "/at/if/$ref"),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, "/at/$ref"),
    ],
)
def test_what_could_take_for_ever_or_leads_elsewhere_is_not_applied(schema: Any, pointer: str) -> None:
    check_schema(schema, "/at")  # a provider may be given it

    with pytest.raises(Unprocessable) as refused:
        check_applied_schema(schema, "/at")

    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_a_property_that_is_named_like_a_keyword_is_a_property() -> None:
    schema = {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "integer"}}, "default": {"$id": 1}}
    check_applied_schema(schema, "/at")

    assert named({"pattern": 1, "$ref": "a"}, schema) == ["/variables/pattern", "/variables/$ref"]


def test_checking_a_value_stops_when_its_time_is_over() -> None:
    doubling: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(40)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": {**doubling, "d40": {"type": "object"}}}
    check_applied_schema(schema, "/at")
    started = time.process_time()

    (error,) = mismatches(schema, {}, "/variables")

    assert "longer than 1 s" in error.detail
    assert time.process_time() - started < 10


def test_a_schema_that_leads_back_to_itself_is_an_error_and_not_a_crash() -> None:
    check_applied_schema({"$ref": "#"}, "/at")

    assert named({}, {"$ref": "#"}) == ["/variables"]


def test_a_schema_that_says_its_draft_is_applied_like_one_that_does_not() -> None:
    tree = {"required": ["name"], "properties": {"child": {"$ref": "#"}}}

    for schema in (tree, {**tree, "$schema": SCHEMA["$schema"]}):
        assert named({"name": "a", "child": {"name": "b", "child": {}}}, schema) == ["/variables/child/child/name"]


def test_a_long_list_of_different_items_is_found_to_be_so_in_time() -> None:
    items = [{"number": number} for number in range(50_000)]
    started = time.process_time()

    assert named(items, {"uniqueItems": True}) == []

    assert time.process_time() - started < 10


def test_a_number_that_is_too_large_to_divide_is_the_callers_error() -> None:
    assert named({"a": 10**400}, {"properties": {"a": {"multipleOf": 0.5}}}) == ["/variables"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
_KEYWORDS = (
    "type enum const multipleOf maximum minLength maxItems uniqueItems contains required properties items prefixItems"
    " additionalProperties propertyNames allOf anyOf oneOf not if then $ref $defs $schema pattern dependentRequired"
).split()
_SCHEMAS = st.recursive(
    st.booleans() | st.dictionaries(st.sampled_from(_KEYWORDS), _JSON | st.sampled_from(["#", "object"]), max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(_KEYWORDS), inner | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=8,
)


@given(schema=_SCHEMAS, value=_JSON)
def test_a_schema_is_refused_or_it_can_be_applied(schema: Any, value: Any) -> None:
    try:
        check_applied_schema(schema, "/at")
    except Unprocessable:
        return

    assert all(error.pointer.startswith("/variables") for error in mismatches(schema, value, "/variables"))
