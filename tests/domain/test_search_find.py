"""What is found, and in which order: one corpus, one answer, on both databases."""

import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared import db
from shared.domain import prompts, search, search_index
from shared.domain.content import check_content
from shared.domain.search import Filters, Found
from shared.domain.tenants import Caller
from shared.domain.words import parse, words_of

CORPUS: list[dict[str, Any]] = [
    {"name": "refund", "template_source": "Answer politely."},
    {"name": "refund-reply", "description": "Replies to customers", "template_source": "Dear {{ customer }}, thanks."},
    {"name": "Refunds.Summary", "template_source": "Summarise the case."},
    {"name": "angry-mail", "tags": ["refund", "tone of voice"], "template_source": "Calm them down."},
    {"name": "billing", "description": "When a refund is due", "template_source": "Explain the invoice."},
    {"name": "triage", "category": "support", "template_source": "Is it a refund, a bug or a question? {{ ticket }}"},
    {"name": "crème", "tags": ["dessert"], "template_source": "Décrire la CRÈME brûlée à Zürich, Straße 5."},
    {"name": "tokyo", "description": "日本語のプロンプト", "template_source": "東京について書いてください。"},
    {"name": "code_review", "tags": ["c++", "e-mail"], "template_source": "Find the bug: {% if code %}x{% endif %}"},
    {
        "name": "chat",
        "messages": [
            {"role": "system", "content": "You are a terse assistant."},
            {"role": "user", "content": "Refund order {{ order }} now"},
        ],
    },
]

# What is asked, and all that is found, in order. Among equals the one that changed last comes first.
ANSWERS: list[tuple[str, list[str]]] = [
    ("refund", ["refund", "refund-reply", "Refunds.Summary", "angry-mail", "billing", "chat", "triage"]),
    ("REFUND", ["refund", "refund-reply", "Refunds.Summary", "angry-mail", "billing", "chat", "triage"]),
    ('"refund"', ["refund", "refund-reply", "angry-mail", "billing", "chat", "triage"]),
    ("refu", ["Refunds.Summary", "refund-reply", "refund", "angry-mail", "billing", "chat", "triage"]),
    ("refund-reply", ["refund-reply"]),
    ("refund reply", ["refund-reply"]),
    ("reply refund", ["refund-reply"]),
    ("refunds summary", ["Refunds.Summary"]),
    ("refund customers", ["refund-reply"]),
    ("refund customer", ["refund-reply"]),
    ("custom refund", []),  # only the last word may go on
    ("refund -reply", ["refund", "angry-mail", "billing", "chat", "triage"]),
    ("refund -is -case -dear", ["refund", "angry-mail", "chat"]),
    ('refund -"is due"', ["refund", "refund-reply", "angry-mail", "chat", "triage"]),
    ('"a refund"', ["billing", "triage"]),
    ('"refund a"', ["triage"]),
    ('"tone of voice"', ["angry-mail"]),
    ('"of tone"', []),
    ('"refund tone"', []),  # two tags
    ('"assistant refund"', []),  # two messages
    ('"support is"', []),  # two fields
    ("tone", ["angry-mail"]),
    ("support", ["triage"]),
    ("CREME", ["crème"]),
    ("creme brulee", ["crème"]),
    ("STRASSE 5", ["crème"]),
    ("zu\u0308rich", ["crème"]),
    ("プロンプト", ["tokyo"]),
    ("東京", ["tokyo"]),
    ("京東", []),
    ("mail", ["angry-mail", "code_review"]),
    ("e-mail", ["code_review"]),
    ("c++", ["code_review"]),
    ("review bug", ["code_review"]),
    ("endif", ["code_review"]),
    ("nothing-holds-this", []),
    ("-refund -bug", ["tokyo", "crème", "Refunds.Summary"]),
    ("", [entry["name"] for entry in reversed(CORPUS)]),
    ('?! - " * ( : ^', [entry["name"] for entry in reversed(CORPUS)]),
]


@pytest.fixture
def corpus(admin: Caller) -> Caller:
    with db.transaction() as session:
        for entry in CORPUS:
            put(session, admin, **entry)
    return admin


def put(session: Any, caller: Caller, name: str, **fields: Any) -> None:
    parts = {field: fields.pop(field) for field in ("template_source", "messages") if field in fields}
    # Names of prompts are of fewer letters than the index can take, so the row is named afterwards.
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    made = prompts.upsert(session, caller, plain, check_content(**parts), **fields)
    made.prompt.name = name
    search_index.index_prompt(session, made.prompt)


def find(caller: Caller, q: str, **options: Any) -> Found:
    with db.reading() as session:
        return search.search(session, caller, q, **options)


def names(found: Found) -> list[str]:
    return [hit.prompt.name for hit in found.hits]


def test_each_query_finds_these_prompts_in_this_order(corpus: Caller) -> None:
    found = {q: names(find(corpus, q)) for q, _ in ANSWERS}

    assert {q: found[q] for q, expected in ANSWERS if found[q] != expected} == {}


def test_a_hit_names_the_deepest_field_that_it_needs(corpus: Caller) -> None:
    found = {hit.prompt.name: hit.matched_in for hit in find(corpus, "refund").hits}

    assert found == {
        "refund": "name",
        "refund-reply": "name",
        "Refunds.Summary": "name",
        "angry-mail": "tags",
        "billing": "description",
        "chat": "content",
        "triage": "content",
    }


def test_pages_of_any_size_list_the_same_prompts_in_the_same_order(corpus: Caller) -> None:
    for q, expected in ANSWERS:
        for limit in (1, 2, 3):
            listed: list[str] = []
            cursor = None
            while True:
                page = find(corpus, q, limit=limit, cursor=cursor)
                listed += names(page)
                cursor = page.next_cursor
                if cursor is None:
                    break

            assert listed == expected, (q, limit)


def test_highlights_show_what_was_found_and_only_that(corpus: Caller) -> None:
    (hit,) = find(corpus, "order refu").hits

    assert {field: [(part.text, part.match) for part in parts] for field, parts in hit.highlights.items()} == {
        "content": [
            ("Refund", True),
            (" ", False),
            ("order", True),
            (" {{ ", False),
            ("order", True),
            (" }} now", False),
        ]
    }


def test_the_highlight_of_a_folded_word_is_the_word_as_it_was_written(corpus: Caller) -> None:
    (hit,) = find(corpus, '"creme brulee"').hits

    marked = [part.text for parts in hit.highlights.values() for part in parts if part.match]

    assert marked == ["CRÈME brûlée"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("refnud", "refund"),
        ("refnd", "refund"),
        ("trage", "triage"),
        ("summery refund", "summary refund"),
        ("tokio refund", None),  # there is a tokyo, and it has no refund
        ("refunt -bug", "refund -bug"),
        ("code rewiew", "code review"),
        ('"tone uf voyce"', None),  # no slip of a word of two letters is looked for
        ('"tone of voyce"', '"tone of voice"'),
        ("xyzzy", None),
    ],
)
def test_a_slip_in_a_word_of_a_name_or_a_tag_is_understood(corpus: Caller, typed: str, meant: str | None) -> None:
    found = find(corpus, typed)

    assert (found.hits, found.did_you_mean) == ([], meant)


def test_what_is_meant_is_never_asked_when_something_was_found(corpus: Caller) -> None:
    assert find(corpus, "refund").did_you_mean is None


def test_counts_are_those_of_the_whole_answer_whatever_the_page(admin: Caller) -> None:
    with db.transaction() as session:
        for number in range(7):
            fields = {"category": "even" if number % 2 == 0 else "odd", "tags": ["all", f"t{number % 3}"]}
            put(session, admin, name=f"n{number}", template_source="word", owner_team="core", **fields)

    counts = find(admin, "word", limit=2).counts

    assert counts is not None
    assert (counts.total, counts.is_exact) == (7, True)
    assert counts.facets == {
        "category": [("even", 4), ("odd", 3)],
        "tag": [("all", 7), ("t0", 3), ("t1", 2), ("t2", 2)],
        "mode": [("full", 7)],
        "lifecycle": [("draft", 7)],
        "owner_team": [("core", 7)],
    }


def test_each_facet_is_counted_without_its_own_filter_and_with_all_others(admin: Caller) -> None:
    with db.transaction() as session:
        for name, category, tag in (
            ("a", "x", "p"),
            ("b", "x", "q"),
            ("c", "y", "p"),
            ("d", "y", "q"),
            ("e", "y", "q"),
        ):
            put(session, admin, name=name, template_source="word", category=category, tags=[tag])

    found = find(admin, "word", filters=Filters(category="x", tag="q"))

    assert names(found) == ["b"]
    assert found.counts is not None
    assert found.counts.total == 1
    assert found.counts.facets["category"] == [("y", 2), ("x", 1)]
    assert found.counts.facets["tag"] == [("p", 1), ("q", 1)]
    assert found.counts.facets["mode"] == [("full", 1)]


def test_of_too_many_matches_some_are_counted_and_it_is_said(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.transaction() as session:
        for number in range(5):
            put(session, admin, name=f"n{number}", template_source="word")
    monkeypatch.setattr(search, "COUNTED", 4)

    counts = find(admin, "word").counts

    assert counts is not None
    assert (counts.total, counts.is_exact) == (4, False)


@pytest.mark.parametrize("filters", [Filters(tag="c++"), Filters(tag="e-mail"), Filters(category="")])
def test_a_filter_is_an_exact_value_and_no_word(corpus: Caller, filters: Filters) -> None:
    inexact = {field: value and value.upper() for field, value in vars(filters).items()}

    assert names(find(corpus, "review", filters=filters)) == ["code_review"]
    if filters.tag:
        assert names(find(corpus, "review", filters=Filters(**inexact))) == []


def test_suggestions_complete_names_and_tags(corpus: Caller) -> None:
    with db.reading() as session:
        found = [(found.kind, found.text) for found in search.suggest(session, corpus, "re")]

    assert found == [
        ("name", "refund"),
        ("name", "refund-reply"),
        ("name", "Refunds.Summary"),
        ("name", "code_review"),
        ("tag", "refund"),
    ]


def test_before_a_word_is_typed_the_names_that_changed_last_are_suggested(corpus: Caller) -> None:
    with db.reading() as session:
        found = [found.text for found in search.suggest(session, corpus, "") if found.kind == "name"]

    assert found == [entry["name"] for entry in reversed(CORPUS)]


# Characters that mean something to FTS5, to PostgreSQL or to us, beside all others.
TYPED = st.text(st.one_of(st.sampled_from("\"'*:^()-+{}&|!<>\\¦¶ ab"), st.characters()), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(typed=TYPED)
@example(typed='AND OR NOT NEAR("a b", 2) {name} : c')
@example(typed="'; DROP TABLE prompts; --")
@example(typed="\\' \\\\ '' :* :A !! <-> & |")
@example(typed="\x00 \ud800 ½ ﷺ ℀")
@example(typed="word " * 2_000)
@example(typed='"' + "a" * 9_999)
def test_nothing_that_is_typed_is_a_syntax_error(corpus: Caller, typed: str) -> None:
    query = parse(typed)

    found = find(corpus, typed)

    assert found.counts is not None
    assert found.counts.total == len(found.hits)
    with db.reading() as session:
        search.suggest(session, corpus, typed)
    # What is understood can be typed again, and means the same.
    again = parse(str(query) + " ")
    assert [term.words for term in again.terms] == list(dict.fromkeys(term.words for term in query.terms))
    assert again.excluded == query.excluded


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(said=st.text(max_size=60))
@example(said="ﬁne ½ ß İ Ǆ ℀ हिन्दी 한국어 ไทย ﷺ")
def test_a_text_is_found_by_each_of_its_words_and_by_all_of_them(admin: Caller, said: str) -> None:
    storable = "".join(sign for sign in said if sign != "\x00")
    with db.transaction() as session:
        put(session, admin, name="said", template_source="x", description=storable)

    for word in words_of(storable):
        assert names(find(admin, f'"{word}"')) == ["said"], word
    assert names(find(admin, storable.replace("-", " ").replace('"', " "))) == ["said"]
