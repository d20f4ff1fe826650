"""Templates: what the subset takes and refuses, its limits, and that nothing else can come out of it."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.meta import find_undeclared_variables

from shared import templating
from shared.errors import InvalidTemplate, RenderFailed
from shared.templating import MAX_FILTERED, MAX_RENDERED_BYTES, check, render, variable_names


@pytest.mark.parametrize(
    ("source", "variables", "expected"),
    [
        ("Hello {{ name }}.", {"name": "Ada"}, "Hello Ada."),
        ("{{ user.name }} {{ user['name'] }}", {"user": {"name": "Ada"}}, "Ada Ada"),
        ("{{ rows[0] }}{{ rows[-1] }}", {"rows": ["a", "b"]}, "ab"),
        ("{% if n > 1 and not off %}many{% elif n == 1 %}one{% else %}none{% endif %}", {"n": 2, "off": False}, "many"),
        ("{{ 'yes' if ok else 'no' }}", {"ok": False}, "no"),
        ("{% for row in rows %}{{ loop.index }}:{{ row }};{% endfor %}", {"rows": ["a", "b"]}, "1:a;2:b;"),
        ("{% for row in rows if row > 1 %}{{ row }}{% else %}empty{% endfor %}", {"rows": [1]}, "empty"),
        (
            "{% for key, value in scores|items %}{{ key }}={{ value }};{% endfor %}",
            {"scores": {"a": 1, "b": 2}},
            "a=1;b=2;",
        ),
        ("{{ rows|join(', ') }}", {"rows": ["a", "b"]}, "a, b"),
        ("{{ given|default('none') }}{{ absent|d('none') }}", {"given": "x"}, "xnone"),
        ("{% if absent is defined %}there{% else %}not there{% endif %}", {}, "not there"),
        ("{{ data|tojson }}", {"data": {"b": "é<", "a": [1, None]}}, '{"b":"é<","a":[1,null]}'),
        ("{{ data|tojson(indent=1) }}", {"data": [1]}, "[\n 1\n]"),
        ("{{ text|replace('a', 'b')|upper|trim }}", {"text": " banana "}, "BBNBNB"),
        ("{{ number|replace('5', '6') }}{{ number|indent }}", {"number": 5}, "65"),
        ("{{ text|indent(2) }}", {"text": "a\nb"}, "a\n  b"),
        ("{{ rows|unique|sort|list }}", {"rows": [2, 1, 2]}, "[1, 2]"),
        ("{{ rows|unique }}", {"rows": [2, 1, 2]}, "[2, 1]"),
        ("{{ scores|items }}", {"scores": {"a": 1}}, "[('a', 1)]"),
        ("{{ 2.567|round(1) }}", {}, "2.6"),
        ("{% raw %}{{ name }}{% endraw %}{# a comment #}", {}, "{{ name }}"),
        ("{{ self_description }}", {"self_description": "a", "self": "b"}, "a"),
    ],
)
def test_the_subset_renders(source: str, variables: dict[str, Any], expected: str) -> None:
    assert render(source, variables) == expected


def test_a_trailing_newline_is_kept() -> None:
    assert render("Hello\n", {}) == "Hello\n"


def test_text_is_not_escaped_for_html() -> None:
    assert render("{{ code }}", {"code": '<b> & "c"'}) == '<b> & "c"'


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ range(10) }}", "range(…)"),
        ("{% for k, v in scores.items() %}{% endfor %}", "mapping|items"),
        ("{% include 'other' %}", "include"),
        ("{% import 'other' as o %}", "import"),
        ("{% extends 'other' %}", "extends"),
        ("{% set a = 1 %}", "assign"),
        ("{% macro a() %}{% endmacro %}", "macro"),
        ("{% filter upper %}a{% endfilter %}", "filterblock"),
        ("{% with a = 1 %}{% endwith %}", "with"),
        ("{{ 9**9**9 }}", "pow"),
        ("{{ 'a' * 9 }}", "mul"),
        ("{{ 1 + 1 }}", "add"),
        ("{{ 'a' ~ 'b' }}", "concat"),
        ("{{ rows[1:] }}", "slice"),
        ("{{ {'a': 1} }}", "dict"),
        ("{{ rows|map('upper') }}", "unknown filter 'map'"),
        ("{{ row|attr('a') }}", "unknown filter 'attr'"),
        ("{{ 4 is divisibleby 2 }}", "unknown test 'divisibleby'"),
        ("{{ _hidden }}", "_hidden"),
        ("{% for row in rows recursive %}{% endfor %}", "recursive"),
        ("{{ self }}", "self"),
        ("{% for loop in rows %}{% endfor %}", "loop"),
        ("{% break %}", "break"),
        ("{% if a %}", "endif"),
        ("{{ a", "end of"),
        ("{{ }}", "line 1"),
        (r"{{ '\x00' }}", "NUL"),
        (r"{{ '\ud800' }}", "surrogate"),
        ("{{ " + "9" * 5000 + " }}", "number"),
        ("{{ 1e999 }}", "number"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_subset_is_refused_by_name(source: str, named: str) -> None:
    with pytest.raises(InvalidTemplate) as refused:
        check(source)

    assert named in refused.value.detail


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(InvalidTemplate, match=r"^line 3: calls are not allowed: range"):
        check("one\ntwo\n{{ range(3) }}")


@pytest.mark.parametrize(
    "path",
    ["__class__", "__init__", "__class__.__mro__", "format", "upper", "encode", "mro"],
)
@pytest.mark.parametrize("value", ["text", 5, [1], {"key": 1}, None, True])
def test_attribute_access_never_reaches_a_python_attribute(value: Any, path: str) -> None:
    with pytest.raises(RenderFailed):
        render(f"{{{{ value.{path} }}}}", {"value": value})
    with pytest.raises(RenderFailed):
        render(f"{{{{ value['{path}'] }}}}", {"value": value})


def test_a_key_that_is_named_like_a_python_method_is_the_key() -> None:
    assert render("{{ row.items }} {{ row.keys }}", {"row": {"items": "a", "keys": "b"}}) == "a b"


def test_the_loop_variable_shows_its_counters_and_nothing_of_python() -> None:
    source = "{% for row in rows %}{{ loop.index }}/{{ loop.length }}{{ loop.__init__ }}{% endfor %}"

    with pytest.raises(RenderFailed, match="__init__"):
        render(source, {"rows": [1]})


def test_every_missing_variable_is_named() -> None:
    with pytest.raises(RenderFailed) as failed:
        render("{{ greeting }} {{ user.name }} {{ given }}", {"given": 1})

    assert failed.value.detail == "missing variables: greeting, user"
    assert [error.pointer for error in failed.value.errors] == ["/variables/greeting", "/variables/user"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ absent }}",
        "{{ absent.field }}",
        "{{ absent['field'].deeper }}",
        "{{ absent|upper }}",
        "{{ absent|tojson }}",
        "{{ [absent] }}",
        "{{ [absent]|join }}",
        "{% for row in absent %}{% endfor %}",
        "{% for key, value in absent|items %}{% endfor %}",
        "{% if absent %}{% endif %}",
        "{{ absent == 1 }}",
        "{{ absent|round }}",
    ],
)
def test_an_undefined_variable_is_an_error_wherever_it_stands(source: str) -> None:
    with pytest.raises(RenderFailed, match="missing variables: absent"):
        render(source, {})


def test_a_missing_field_of_a_given_variable_is_not_blamed_on_an_optional_variable() -> None:
    with pytest.raises(RenderFailed) as failed:
        render("{{ note|default('') }}{{ user.name }}", {"user": {}})

    assert "has no attribute 'name'" in failed.value.detail
    assert [error.pointer for error in failed.value.errors] == ["/variables"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ text|truncate(1) }}",
        "{{ rows|truncate(3) }}",
        "{{ text < 1 }}",
        "{{ -text }}",
        "{{ rows|sort }}",
        "{{ text in 5 }}",
        "{{ text|round }}",
        "{{ text|trim(5) }}",
        "{{ text|join(5) }}",
        "{{ text|indent('wide') }}",
        "{{ text|items }}",
        "{{ big|float }}",
        "{{ big|string }}",
        "{{ 1|round(1, 'sideways') }}",
    ],
)
def test_a_value_that_a_filter_cannot_take_is_the_callers_error(source: str) -> None:
    variables = {"text": "a longer text than that", "rows": [1, "a", 2, "b", 3, "c"] * 9, "big": 10**5000}

    with pytest.raises(RenderFailed):
        render(source, variables)


@given(source=st.text(alphabet="a \n\r\t}#%-é🐘", max_size=12))
def test_a_text_without_a_construct_is_rendered_as_jinja_renders_it(source: str) -> None:
    """Which is as itself, but for carriage returns."""
    assert render(source, {}) == jinja2.Template(source, keep_trailing_newline=True).render()


def test_the_variables_of_a_template_are_those_that_it_does_not_set_itself() -> None:
    source = "{{ b }}{% for row in rows %}{{ row }}{{ a.field }}{{ loop.index }}{% endfor %}{{ c|default('') }}"

    assert variable_names(source) == ["a", "b", "c", "rows"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }} and {{ a.b }} and {{ c[d] }}",
        "{{ a|default(b) }}{{ 'x'|replace('x', c) }}{{ d|join(sep) }}",
        "{% if a is defined and not b %}{{ c }}{% elif d in [e, (f, 1)] %}{{ -g }}{% else %}{{ 'h' }}{% endif %}",
        "{{ a if b > c else d }}{{ loop.index }}{{ true }}",
        "{% if a %}{% for b in c %}{{ b }}{{ d }}{% endfor %}{{ b }}{% endif %}",
        "nothing",
    ],
)
def test_the_variables_are_those_that_jinja_finds(source: str) -> None:
    found = find_undeclared_variables(jinja2.Environment().parse(source))

    assert variable_names(source) == sorted(found)


PIECES = [
    "text",
    " ",
    "\n",
    "é",
    "{",
    "}",
    "{{ a }}",
    "{{a}}",
    "{{b_1}}",
    "{{{ a }}",
    "{{ a }}}",
    "{{ true }}",
    "{{ None }}",
    "{{ not }}",
    "{{ self }}",
    "{{ _a }}",
    "{{ é }}",
    "{{ }}",
    "{{ a.b }}",
    "{{- a -}}",
    "{{ a|upper }}",
    "{% if a %}",
    "{% endif %}",
    "{# {{ a }} #}",
    "\x00",
    "\ud800",
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=6))
@example(pieces=["{# {{ a }} #}"])
@example(pieces=["{", "{{ a }}"])
@example(pieces=["\ud800", "{{ a }}"])
def test_a_template_of_text_and_names_has_the_variables_that_jinja_would_find(pieces: list[str]) -> None:
    source = "".join(pieces)

    assert said_of(source) == said_of(source + "\n{% if true %}Jinja has to read it{% endif %}")


def said_of(source: str) -> list[str] | None:
    try:
        return variable_names(source)
    except InvalidTemplate:
        return None


def test_a_template_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    check("é" * 100_000)

    with pytest.raises(InvalidTemplate, match="larger than 200000 bytes"):
        check("é" * 100_000 + "x")


def test_a_template_has_a_limited_number_of_parts() -> None:
    check("{{ a }}" * 4_998)  # and the template itself, and its one output

    with pytest.raises(InvalidTemplate, match="more than 5000 parts"):
        check("{{ a }}" * 4_999)


def test_loops_nest_three_deep() -> None:
    def nested(depth: int) -> str:
        return "{% for a in b %}" * depth + "{% endfor %}" * depth

    check(nested(3) + nested(3))

    with pytest.raises(InvalidTemplate, match="nested 3 deep"):
        check(nested(4))


@pytest.mark.parametrize(
    "nested",
    [
        lambda depth: "{{ a" + "|d" * depth + " }}",
        lambda depth: "{{ a" + ".b" * depth + " }}",
        lambda depth: "{{ " + "not " * depth + "a }}",
        lambda depth: "{{ " + "a if b else " * depth + "a }}",
        lambda depth: "{{ " + "(" * depth + "a" + ")" * depth + " }}",
        lambda depth: "{{ " + "[" * depth + "a" + "]" * depth + " }}",
        lambda depth: "{% if a %}" * depth + "{% endif %}" * depth,
    ],
)
@pytest.mark.parametrize("depth", [101, 300, 3_000])
def test_what_is_nested_too_deeply_for_python_is_refused_and_not_a_crash(
    nested: Callable[[int], str], depth: int
) -> None:
    with pytest.raises(InvalidTemplate, match="nested too deeply"):
        check(nested(depth))
    with pytest.raises(InvalidTemplate, match="nested too deeply"):
        render(nested(depth), {})


@pytest.mark.parametrize(
    "nested",
    [
        lambda depth: "{{ " + "a if b else " * depth + "a }}",
        lambda depth: "{{ " + "(1 if a else " * depth + "2" + ")" * depth + " }}",
        lambda depth: "{{ " + "[" * depth + "a" + "]" * depth + " }}",
        lambda depth: "{{ " + "(" * depth + "a" + ",)" * depth + " }}",
        lambda depth: "{{ " + "a|default(default_value=" * depth + "0" + ")" * depth + " }}",
        lambda depth: "{{ " + "(a is eq " * depth + "b" + ")" * depth + " }}",
        lambda depth: "{% if a %}" * depth + "{% endif %}" * depth,
    ],
)
def test_what_is_found_good_without_being_compiled_is_so_shallow_that_it_compiles(nested: Callable[[int], str]) -> None:
    """The check compiles only what is deeper than `SURELY_COMPILES`; rendering compiles everything."""
    for depth in range(1, templating.SURELY_COMPILES + 1):
        check(nested(depth))
        render(nested(depth), {"a": 1, "b": 2})


def test_output_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    assert len(render("{{ text }}", {"text": "é" * (MAX_RENDERED_BYTES // 2)}).encode()) == MAX_RENDERED_BYTES

    with pytest.raises(RenderFailed, match="larger than 200000 bytes"):
        render("{{ text }}{{ text }}x", {"text": "é" * (MAX_RENDERED_BYTES // 4)})


def test_loop_turns_are_counted_over_all_loops() -> None:
    source = "{% for a in rows %}{% for b in rows %}{% endfor %}{% endfor %}"
    render(source, {"rows": [0] * 315})

    with pytest.raises(RenderFailed, match="more than 100000 loop turns"):
        render(source, {"rows": [0] * 316})


@pytest.mark.parametrize(
    "source",
    [
        "{{ text }}",
        "{% for a in rows %}{% endfor %}",
        "{% if text|upper == 'A' %}{% endif %}",
    ],
)
def test_rendering_stops_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    variables = {"text": "a", "rows": [0] * 1_000}
    render(source, variables)

    monkeypatch.setattr(templating, "MAX_SECONDS", -1.0)

    with pytest.raises(RenderFailed, match="took longer"):
        render(source, variables)


@pytest.mark.parametrize(
    "source",
    [
        "{{ text" + "|tojson" * 40 + "|truncate }}",
        "{{ text" + "|list|string" * 40 + "|truncate }}",
        "{{ text" + "|list|upper" * 40 + "|truncate }}",
        "{{ text" + "|join(glue)" * 40 + "|truncate }}",
        "{{ [" + "long," * 4_000 + "] }}",
        "{{ [" + "long," * 4_000 + "]|length if [" + "long," * 900 + "]|string else '' }}",
        "{{ [" + "long," * 4_000 + "]|join|truncate }}",
        "{{ lines|indent(40)|truncate }}",
        "{{ letters|join(glue)|truncate }}",
        "{{ deep|tojson(indent=8)|truncate }}",
        "{{ 1|round(999999999, 'ceil') }}",
        "{{ 1|round(-999999999, 'floor') }}",
    ],
)
def test_no_chain_of_filters_fills_the_memory_or_takes_for_ever(source: str, peak_bytes: Callable[[], int]) -> None:
    deep: Any = [1] * 100_000
    for _ in range(45):
        deep = [deep]
    variables = {
        "text": '"' * 1_000,
        "glue": "g" * 100,
        "letters": "x" * 1_000_000,
        "long": "x" * 200_000,
        "lines": "\n" * 1_000_000,
        "deep": deep,
    }
    check(source)
    started = time.process_time()

    with pytest.raises(RenderFailed, match=r"larg|longer"):
        render(source, variables)

    assert peak_bytes() < 60_000_000
    assert time.process_time() - started < 10


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    """How much memory the test has held at most."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def test_a_filter_may_give_the_largest_size_and_nothing_larger() -> None:
    source = "{{ text|tojson|length }}"  # doubles each quote, and adds two

    assert render(source, {"text": '"' * (MAX_FILTERED // 2 - 1)}) == str(MAX_FILTERED)

    with pytest.raises(RenderFailed, match="larger than 1000000"):
        render(source, {"text": '"' * (MAX_FILTERED // 2)})


def test_a_filter_may_be_given_the_largest_size_and_nothing_larger() -> None:
    assert render("{{ text|upper|length }}", {"text": "x" * MAX_FILTERED}) == str(MAX_FILTERED)

    with pytest.raises(RenderFailed, match="larger than 1000000"):
        render("{{ text|lower|length }}", {"text": "x" * (MAX_FILTERED + 1)})


def test_a_separator_is_a_hundred_characters_long_at_most() -> None:
    assert len(render("{{ rows|join(glue) }}", {"rows": ["a", "b"], "glue": "g" * 100})) == 102

    with pytest.raises(RenderFailed, match="separator is longer than 100"):
        render("{{ rows|join(glue) }}", {"rows": ["a", "b"], "glue": "g" * 101})


def test_what_a_replacement_could_make_is_at_most_four_times_a_prompt() -> None:
    source = "{{ text|replace('a', new)|length }}"
    new = "x" * MAX_RENDERED_BYTES

    assert render(source, {"text": "aaa", "new": new}) == str(3 * MAX_RENDERED_BYTES)

    with pytest.raises(RenderFailed, match="could be too large"):
        render(source, {"text": "aaaa", "new": new})
    with pytest.raises(RenderFailed, match="could be too large"):
        render("{{ 'abc'|replace('', 'x') }}", {})


def test_text_is_indented_by_forty_and_json_by_eight_at_most() -> None:
    assert render("{{ text|indent(1000000000) }}", {"text": "a\nb"}) == f"a\n{' ' * 40}b"
    assert render("{{ [1]|tojson(indent=1000000000) }}", {}) == f"[\n{' ' * 8}1\n]"


def test_a_number_is_rounded_to_a_hundred_digits_at_most() -> None:
    assert render("{{ 1.5|round(100) }}", {}) == "1.5"

    for precision in (101, -101):
        with pytest.raises(RenderFailed, match="precision is larger than 100"):
            render(f"{{{{ 1.5|round({precision}) }}}}", {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1|round(4000000, 'ceil') }}",
        "{{ 'x'" + "|list|string" * 40 + " }}",
        ("{{ a" + ".b" * 95 + " }}") * 50,
        ("{{ " + "not " * 95 + "a }}") * 50,
    ],
)
def test_checking_a_template_computes_nothing(source: str) -> None:
    started = time.process_time()

    check(source)
    variable_names(source)

    assert time.process_time() - started < 1.0


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_VARIABLES = st.dictionaries(
    st.sampled_from(["a", "b", "rows", "self", "loop", "context"]) | st.text(max_size=6), _JSON
)
_FRAGMENTS = (
    "{{ }} {% %} {%- -%} {# #} a b rows self loop loop.index a.b a['b'] a[0] rows[-1] . | ( ) [ ] , : = == != < >= + - "
    "* ** ~ / // % 'text' \"text\" '\\x00' '\\ud800' 1 0 -1 2.5 1e999 none true in is is_not not and or if else elif "
    "endif for endfor for_k,v_in recursive set include import extends block macro call filter raw endraw defined "
    "undefined none number string sequence mapping range() a.items() a|items|list"
).split(" ")
_WORDS = [*(word.replace("_", " ") for word in _FRAGMENTS), *(f"|{name}" for name in templating.FILTERS)]
_ARGUMENTS = ["", "(0)", "(1)", "(-1)", "('a')", "('a', 'b')", "(a)", "(a, b)", "(attribute='a')", "(10**9)"]


def _expressions() -> st.SearchStrategy[str]:
    """Output that is likely to compile: names and literals through filters, tests and comparisons."""
    filters = st.tuples(st.sampled_from(templating.FILTERS), st.sampled_from(_ARGUMENTS)).map(
        lambda f: f"|{f[0]}{f[1]}"
    )
    starts = st.sampled_from(["a", "b", "rows", "a.b", "a[b]", "rows[0]", "'é'", "1.5", "[a, b]", "(a, 1)", "-a"])
    operand = st.tuples(starts, st.lists(filters, max_size=4).map("".join)).map("".join)
    operators = st.sampled_from([" < ", " == ", " in ", " and ", " or ", " is not "])
    return st.tuples(operand, st.just("") | st.tuples(operators, operand).map("".join)).map("".join)


_SOURCES = (
    st.text()
    | st.lists(st.sampled_from(_WORDS)).map(" ".join)
    | st.lists(_expressions().map(lambda e: "{{ " + e + " }}"), max_size=3).map("".join)
    | _expressions().map(lambda e: "{% for row in " + e + " %}{{ loop.index }}{{ row|tojson }}{% endfor %}")
    | _expressions().map(lambda e: "{% if " + e + " %}yes{% endif %}")
)


@settings(max_examples=400, deadline=None)
@given(source=_SOURCES, variables=_VARIABLES)
@example(source="{{ a|truncate(1) }}", variables={"a": "x" * 300})
@example(source="{{ a|replace('x', 'y') }}", variables={"a": ["x"]})
@example(source="{% for loop in a %}{% endfor %}", variables={})
def test_nothing_but_the_two_errors_comes_out_whatever_goes_in(source: str, variables: dict[str, Any]) -> None:
    try:
        rendered = render(source, variables)
    except (RenderFailed, InvalidTemplate):
        return

    assert len(rendered.encode("utf-8", "surrogatepass")) <= MAX_RENDERED_BYTES
    assert "object at 0x" not in rendered
    assert variable_names(source) == sorted(variable_names(source))
