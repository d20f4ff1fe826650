"""A search reads what it lists and counts, and never the whole index: the plans of both databases say so."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.bulk_rows import bulk_insert
from shared.domain import projects, search, search_index
from shared.domain.search import Filters
from shared.domain.tenants import Caller
from shared.models import Prompt, SearchDocument, new_id
from tests.domain.test_plans import Sent, analyze, caught, is_postgres

PROMPTS = 12_000


@pytest.fixture
def crowded(admin: Caller) -> Iterator[Caller]:
    """Many prompts that share a word, and one that holds a word of its own."""
    with db.transaction() as session:
        home = projects.get_project(session, admin, None)
        ids = [new_id() for _ in range(PROMPTS)]
        owned = {"workspace_id": admin.workspace_id, "project_id": home.id}
        rows = [{"id": prompt_id, "name": f"prompt-{n}", **owned} for n, prompt_id in enumerate(ids)]
        bulk_insert(session, Prompt, rows)
        filled, words = [], []
        for number, row in enumerate(rows, start=1):
            prompt = Prompt(tags=[], category=f"c{number % 5}", mode="full", lifecycle="draft", owner_team="", **row)
            said = ["common", f"w{number % 97}", f"only{number}", *(f"x{number * 7 % 1009 + i}" for i in range(30))]
            texts = {"name": [prompt.name], "tags": [], "description": [], "content": [" ".join(said)]}
            indexed = search_index._words(texts), search_index._marks_of(prompt)
            words.append({"rowid": number, "words": " ".join(indexed[0] + indexed[1])})
            filled.append(
                {
                    **owned,
                    "id": number,
                    "prompt_id": prompt.id,
                    "name": prompt.name,
                    "tags": "[]",
                    "category": prompt.category,
                    "mode": "full",
                    "lifecycle": "draft",
                    "owner_team": "",
                    "fingerprint": "",
                    "words": search_index._tsvector(*indexed) if is_postgres() else None,
                }
            )
        bulk_insert(session, SearchDocument, filled)
        if not is_postgres():
            session.execute(sa.insert(search_index.fts), words)
    analyze()
    yield admin
    if is_postgres():
        with db.engine().begin() as connection:
            connection.execute(sa.text("TRUNCATE prompts CASCADE"))
            connection.execute(sa.text("ANALYZE prompts, search_documents"))


def plans(sent: list[Sent], table: str = "search_documents") -> list[str]:
    """How the database would answer each statement that reads the table; the index, if none is named."""
    found = []
    for one in sent:
        if f" {table}" not in one.statement:
            continue
        with db.engine().connect() as connection:
            prefix = "EXPLAIN (FORMAT JSON) " if is_postgres() else "EXPLAIN QUERY PLAN "
            rows = connection.exec_driver_sql(prefix + one.statement, one.parameters).fetchall()
        found.append(json.dumps(rows[0][0]) if is_postgres() else "\n".join(row[3] for row in rows))
    return found


def searched(caller: Caller, q: str, **options: Any) -> list[str]:
    with caught() as sent, db.reading() as session:
        search.search(session, caller, q, **options)
    return plans(sent)


SEARCHES = [
    ("x500", Filters()),
    ("common", Filters()),
    ("prompt 77", Filters()),
    ('"common w5"', Filters()),
    ("comm -w5", Filters()),
    ("", Filters()),
    ("", Filters(category="c3")),
    ("common", Filters(category="c3", mode="full")),
    ("xyzzzy", Filters()),
]


def test_no_search_reads_all_documents_or_sorts_them(crowded: Caller) -> None:
    """All of them in one crowd, which takes longer to make than to search."""
    wrong: dict[str, list[str]] = {}
    for q, filters in SEARCHES:
        found = searched(crowded, q, filters=filters)
        assert found, (q, filters)
        wrong[f"{q!r} in {filters}"] = [plan for plan in found if not reads_a_page(plan)]

    assert {search: plans for search, plans in wrong.items() if plans} == {}


def reads_a_page(plan: str) -> bool:
    if is_postgres():
        # Words are looked up in their index, or the newest documents are read until enough hold them.
        by_words = ("@@" in plan) == ("ix_search_documents_words" in plan)
        by_age = ("@@" in plan) != ("ts_match_vq" in plan and '"Limit"' in plan and '"Sort"' not in plan)
        return "Seq Scan" not in plan and by_words and by_age
    return (
        "SCAN search_fts VIRTUAL TABLE INDEX" in plan
        and "SEARCH search_documents USING INTEGER PRIMARY KEY (rowid=?)" in plan
        and "TEMP B-TREE FOR ORDER BY" not in plan
    )


def test_the_prompts_that_are_listed_are_read_by_their_ids(crowded: Caller) -> None:
    with caught() as sent, db.reading() as session:
        found = search.search(session, crowded, "common")
    by_id = "pk_prompts" if is_postgres() else "SEARCH prompts USING INDEX sqlite_autoindex_prompts_1 (id=?)"

    assert len(found.hits) == 50
    assert [by_id in plan for plan in plans(sent, "prompts")] == [True]


def test_a_rare_word_is_looked_up_and_a_common_one_is_met_among_the_newest(crowded: Caller) -> None:
    if not is_postgres():
        work = {q: instructions(crowded, q) for q in ("common", "x500")}
        assert work["common"] < PROMPTS * 30  # and not some for each of all that there is to sort
        return

    (rare, common) = (searched(crowded, q) for q in ("only500", "common"))

    assert any("ix_search_documents_words" in plan for plan in rare)
    assert "ts_match_vq" in common[-1]


def instructions(caller: Caller, q: str) -> int:
    """Of SQLite's virtual machine, for one page."""
    counted = 0

    def add_one() -> None:
        nonlocal counted
        counted += 1

    with db.reading() as session:
        driver: Any = session.connection().connection.driver_connection
        driver.set_progress_handler(add_one, 1)
        try:
            search.search(session, caller, q)
        finally:
            driver.set_progress_handler(None, 1)
    return counted
