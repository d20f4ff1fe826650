"""What differs between two contents: as text, and as a list of what was added, removed and changed."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import diffs
from shared.domain.content import check_content
from shared.domain.diffs import Diff, diff, readable
from shared.hashing import canonical_json

SYSTEM = {"role": "system", "content": "Be {{ tone }}.\nBe brief."}
USER = {"role": "user", "content": "Hello {{ name }}."}
HISTORY = {"type": "placeholder", "name": "history"}
MODEL = {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.5, "seed": 1}}
SCHEMA = {"type": "object"}


def tool(name: str, **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def between(before: Mapping[str, Any], after: Mapping[str, Any]) -> Diff:
    return diff(check_content(**before).body, check_content(**after).body, names=("v1", "v2"))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(change.field, change.key, change.change) for change in between(before, after).changes]


@pytest.mark.parametrize(
    "fields",
    [
        {"template_source": "Hello"},
        {"messages": [SYSTEM, HISTORY, USER], "tools": [tool("a")], "model": MODEL, "response_schema": SCHEMA},
    ],
)
def test_between_equal_contents_nothing_differs(fields: Mapping[str, Any]) -> None:
    assert between(fields, fields) == Diff("", [], [], [])


def test_the_text_is_a_unified_diff_of_what_a_person_reads() -> None:
    changed = {**SYSTEM, "content": "Be {{ tone }}.\nBe kind."}

    text = between({"messages": [SYSTEM, USER]}, {"messages": [changed, USER], "tools": [tool("a")]}).unified

    assert text.splitlines() == [
        "--- v1",
        "+++ v2",
        "@@ -1,5 +1,12 @@",
        " system:",
        "   Be {{ tone }}.",
        "-  Be brief.",
        "+  Be kind.",
        " user:",
        "   Hello {{ name }}.",
        "+tool a:",
        "+  {",
        '+    "function": {',
        '+      "name": "a"',
        "+    },",
        '+    "type": "function"',
        "+  }",
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"template_source": "a"}, {"template_source": "a "}, [("template_source", None, "changed")]),
        (
            {"template_source": "a"},
            {"messages": [USER]},
            [("template_source", None, "removed"), ("messages", None, "added")],
        ),
        ({"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, HISTORY, USER]}, [("messages", 1, "added")]),
        ({"messages": [SYSTEM, HISTORY, USER]}, {"messages": [SYSTEM, USER]}, [("messages", 1, "removed")]),
        ({"messages": [SYSTEM, USER]}, {"messages": [HISTORY, USER]}, [("messages", 0, "changed")]),
        ({"messages": [USER]}, {"messages": [{**USER, "role": "system"}]}, [("messages", 0, "changed")]),
        (
            {"messages": [USER, USER, SYSTEM]},
            {"messages": [HISTORY, SYSTEM]},
            [("messages", 0, "changed"), ("messages", 1, "removed")],
        ),
        (
            {"template_source": "a", "tools": [tool("a"), tool("b"), tool("c")]},
            {"template_source": "a", "tools": [tool("a"), tool("c", description="x"), tool("d")]},
            [("tools", "b", "removed"), ("tools", "c", "changed"), ("tools", "d", "added")],
        ),
        (
            {"template_source": "a", "tools": [tool("a"), tool("b")]},
            {"template_source": "a", "tools": [tool("b"), tool("a")]},
            [("tools", None, "changed")],
        ),
        (
            {"template_source": "a", "model": MODEL},
            {
                "template_source": "a",
                "model": {**MODEL, "model_name": "other", "params": {"temperature": 1, "stop": "."}},
            },
            [
                ("model", "model_name", "changed"),
                ("model", "params/temperature", "changed"),
                ("model", "params/seed", "removed"),
                ("model", "params/stop", "added"),
            ],
        ),
        (
            {"template_source": "a", "response_schema": SCHEMA},
            {"template_source": "a", "variables_schema": SCHEMA},
            [("response_schema", None, "removed"), ("variables_schema", None, "added")],
        ),
    ],
)
def test_each_part_that_differs_is_one_change(before: Any, after: Any, expected: list[tuple[Any, ...]]) -> None:
    assert changes(before, after) == expected


def test_a_change_shows_the_part_before_and_after() -> None:
    (change,) = between({"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, HISTORY]}).changes

    assert (change.before, change.after) == (USER, HISTORY)


def test_the_variables_that_came_and_went_are_named() -> None:
    found = between({"messages": [SYSTEM, USER]}, {"messages": [HISTORY, USER]})

    assert (found.variables_added, found.variables_removed) == (["history"], ["tone"])


def test_all_of_the_first_content_is_new() -> None:
    found = diff(None, check_content(template_source="Hello {{ name }}").body, names=("/dev/null", "v1"))

    assert [(change.field, change.change) for change in found.changes] == [("template_source", "added")]
    assert found.unified == "--- /dev/null\n+++ v1\n@@ -0,0 +1,2 @@\n+template:\n+  Hello {{ name }}\n"
    assert (found.variables_added, found.variables_removed) == (["name"], [])


def test_a_text_that_looks_like_another_part_does_not_read_like_it() -> None:
    imitation = {"messages": [{"role": "user", "content": "a\nsystem:\n  b"}]}
    real = {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}

    assert readable(imitation) != readable(real)


def test_a_content_of_more_lines_than_are_aligned_is_shown_as_taken_out_and_put_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diffs, "MAX_ALIGNED_LINES", 3)
    before, after = {"template_source": "a\nb\nc"}, {"template_source": "a\nb\nd"}

    text = between(before, after).unified

    assert text.splitlines()[2:] == [
        "@@ -1,4 +1,4 @@",
        "-template:",
        "-  a",
        "-  b",
        "-  c",
        "+template:",
        "+  a",
        "+  b",
        "+  d",
    ]
    assert between(before, before).unified == ""


_TEXTS = st.sampled_from(["a", "a ", "a\n", "a\r\n", "a\n\n", "\na", "A", "a\u2028", "user:\n  a", "{{ b }}"])
_MESSAGES = st.builds(
    lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "system"]), _TEXTS
)
_PLACEHOLDERS = st.builds(lambda name, optional: {"type": "placeholder", "name": name, "optional": optional},
                          st.sampled_from(["a", "b"]), st.booleans())  # fmt: skip
_TOOLS = st.permutations([tool("a"), tool("b", description="x"), tool("c", parameters={})]).flatmap(
    lambda tools: st.integers(0, 3).map(lambda count: tools[:count])
)
_CONTENTS = st.tuples(
    _TEXTS.map(lambda text: {"template_source": text})
    | st.lists(_MESSAGES | _PLACEHOLDERS, min_size=1, max_size=4).map(lambda messages: {"messages": messages}),
    st.fixed_dictionaries(
        {},
        optional={
            "tools": _TOOLS,
            "model": st.sampled_from([MODEL, {**MODEL, "params": {}}, {**MODEL, "params": {"seed": 1.0}}]),
            "response_schema": st.sampled_from([SCHEMA, {"title": "x"}]),
            "variables_schema": st.just(SCHEMA),
        },
    ),
).map(lambda parts: check_content(**parts[0], **parts[1]))


@given(before=_CONTENTS, after=_CONTENTS)
def test_a_diff_is_empty_only_between_equal_contents(before: Any, after: Any) -> None:
    found = diff(before.body, after.body, names=("v1", "v2"))

    is_same = before.content_hash == after.content_hash
    assert (found.unified == "", list(found.changes) == []) == (is_same, is_same)
    assert all(canonical_json(change.before) != canonical_json(change.after) for change in found.changes)
