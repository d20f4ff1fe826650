"""The search index follows every change in the same transaction, and can be made anew."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from app.admin import main
from shared import db
from shared.domain import labels, prompts, search, search_index
from shared.domain.content import check_content
from shared.domain.names import VersionChoice
from shared.domain.prompts import Upserted
from shared.domain.tenants import Caller
from shared.models import Prompt, SearchDocument
from tests.rows import count


def put(caller: Caller, source: str = "first", *, name: str = "greeter", **fields: Any) -> Upserted:
    with db.transaction() as session:
        return prompts.upsert(session, caller, name, check_content(template_source=source), **fields)


def label(caller: Caller, number: int, *, name: str = "production") -> None:
    with db.transaction() as session:
        prompt = prompts.get_prompt(session, caller, "greeter")
        version = prompts.get_version(session, prompt, VersionChoice(number=number))
        labels.move_label(session, caller, prompt, name, version)


def found(caller: Caller, q: str) -> list[str]:
    with db.reading() as session:
        return [hit.prompt.name for hit in search.search(session, caller, q).hits]


def holding(caller: Caller, *words: str) -> list[str]:
    """Those of the words that the prompt is found by."""
    return [word for word in words if found(caller, f'"{word}"')]


def indexed() -> dict[str, Any]:
    """What the index holds, without the ids, which say only what came later."""
    with db.reading() as session:
        rows = session.execute(
            sa.select(SearchDocument.id, SearchDocument.name, SearchDocument.fingerprint, SearchDocument.words)
        ).all()
        if db.is_postgres(session):
            return {row.name: (row.fingerprint, row.words) for row in rows}
        words = {row[0]: row[1] for row in session.execute(sa.text("SELECT rowid, words FROM search_fts"))}
        assert len(words) == len(rows)
        return {row.name: (row.fingerprint, words[row.id]) for row in rows}


def test_the_latest_version_is_searched_while_production_points_nowhere(admin: Caller) -> None:
    put(admin, "first")
    before = holding(admin, "first", "second")

    put(admin, "second")

    assert (before, holding(admin, "first", "second")) == (["first"], ["second"])


def test_the_version_at_production_is_searched_whatever_comes_after_it(admin: Caller) -> None:
    put(admin, "first", set_active=True)

    put(admin, "second")

    assert holding(admin, "first", "second") == ["first"]


def test_moving_production_moves_what_is_searched_there_and_back(admin: Caller) -> None:
    put(admin, "first", set_active=True)
    put(admin, "second")

    label(admin, 2)
    moved = holding(admin, "first", "second")
    label(admin, 1)

    assert (moved, holding(admin, "first", "second")) == (["second"], ["first"])


def test_any_other_label_changes_nothing_that_is_searched(admin: Caller) -> None:
    put(admin, "first", set_active=True)
    put(admin, "second")
    before = indexed()

    label(admin, 2, name="staging")

    assert indexed() == before


def test_the_result_of_an_optimization_is_searched_like_any_other_version(admin: Caller) -> None:
    made = put(admin, "first")

    with db.transaction() as session:
        content = check_content(template_source="better")
        prompts.add_version(session, made.prompt.id, content, author="a", message="")

    assert holding(admin, "first", "better") == ["better"]


@pytest.mark.parametrize("field", ["description", "category", "tags", "owner_team"])
def test_a_field_that_changes_is_searched_as_it_is_now(admin: Caller, field: str) -> None:
    def value(word: str) -> Any:
        return [word] if field == "tags" else word

    put(admin, **{field: value("before")})
    put(admin, **{field: value("after")})

    with db.reading() as session:
        facets = search.search(session, admin, "first").counts
    assert facets is not None
    facet = "tag" if field == "tags" else field
    if facet in facets.facets:
        assert facets.facets[facet] == [("after", 1)]
    if field != "owner_team":  # a filter, and no text
        assert holding(admin, "before", "after") == ["after"]


def test_putting_the_same_again_writes_nothing(admin: Caller) -> None:
    put(admin, "first", tags=["a"], set_active=True)
    with db.reading() as session:
        before = session.scalars(sa.select(SearchDocument.id)).all()

    put(admin, "first", tags=["a"], set_active=True)

    with db.reading() as session:
        assert session.scalars(sa.select(SearchDocument.id)).all() == before


def test_a_change_that_is_rolled_back_is_not_found(admin: Caller) -> None:
    put(admin, "first")
    before = indexed()

    def change_and_fail() -> None:
        with db.transaction() as session:
            prompts.upsert(session, admin, "greeter", check_content(template_source="second"), set_active=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()

    assert indexed() == before


def test_a_prompt_whose_row_is_deleted_leaves_nothing_in_the_index(admin: Caller) -> None:
    put(admin, "first", name="kept")
    before = indexed()
    made = put(admin, "first", set_active=True)

    with db.transaction() as session:
        session.execute(sa.delete(Prompt).where(Prompt.id == made.prompt.id))

    assert indexed() == before
    assert found(admin, "first") == ["kept"]


def test_a_forgotten_prompt_is_not_found_and_can_be_indexed_again(admin: Caller) -> None:
    made = put(admin, "first")
    before = indexed()

    with db.transaction() as session:
        search_index.forget_prompts(session, [made.prompt.id])
    forgotten = found(admin, "first")
    with db.transaction() as session:
        search_index.index_prompt(session, session.get_one(Prompt, made.prompt.id))

    assert (forgotten, found(admin, "first"), indexed()) == ([], ["greeter"], before)


def test_a_long_content_is_searched_up_to_a_limit_and_side_by_side_to_the_end(admin: Caller) -> None:
    last = search_index.MOST_WORDS - 5  # before the content: the name and the ends of three fields

    put(admin, " ".join(f"w{number}" for number in range(search_index.MOST_WORDS)))

    assert holding(admin, "w0", f"w{last}", f"w{last + 4}") == ["w0", f"w{last}"]
    assert found(admin, f'"w{last - 1} w{last}"') == ["greeter"]
    assert found(admin, f'"w{last - 2} w{last}"') == []


@pytest.mark.parametrize(
    ("most_words", "most_bytes", "expected"),
    [
        (20, 100, "aone atwo ¶ bé ¶ ¶ dx dy ¶"),
        (4, 100, "aone atwo ¶ bé ¶ ¶"),  # a text may end at the limit, and what follows is nothing
        (3, 100, "aone atwo ¶"),
        (1, 100, "aone"),
        (20, 8, "aone atwo ¶ bé ¶ ¶"),  # é takes two
        (20, 7, "aone atwo ¶"),
        (20, 5, "aone"),
        (20, 9, "aone atwo ¶ bé ¶ ¶ dx"),
    ],
)
def test_words_end_at_whichever_limit_comes_first(
    most_words: int, most_bytes: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "MOST_WORDS", most_words)
    monkeypatch.setattr(search_index, "MOST_BYTES", most_bytes)
    monkeypatch.setattr(search_index, "words_of", str.split)  # letters as they are
    texts = {"name": ["one two"], "tags": ["é"], "description": [""], "content": ["x y"]}

    assert search_index._words(texts) == expected.split()


def test_a_content_of_the_longest_words_can_be_stored(admin: Caller) -> None:
    messages = [
        {"role": "user", "content": " ".join(chr(0x10428 + number) * 60 + f"{i:04}" for i in range(700))}
        for number in range(10)
    ]
    with db.transaction() as session:
        prompts.upsert(session, admin, "greeter", check_content(messages=messages))

    assert found(admin, f'"{chr(0x10428) * 60}0000"') == ["greeter"]


def test_what_two_do_at_once_to_a_prompt_is_searched_as_it_ends(admin: Caller) -> None:
    """One adds a version while nothing is at production, the other points production at the first."""
    put(admin, "first")
    failures: list[BaseException] = []

    def run(work: Callable[[], Any], at: threading.Barrier) -> None:
        at.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # shown by the test
            failures.append(error)

    for number in range(10):
        start = threading.Barrier(2)
        with db.transaction() as session:
            session.execute(sa.text("DELETE FROM labels"))
        both = [lambda n=number: put(admin, f"later{n}", set_active=n % 2 == 0), lambda: label(admin, 1)]
        threads = [threading.Thread(target=run, args=(work, start)) for work in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with db.reading() as session:
            prompt = prompts.get_prompt(session, admin, "greeter")
            active = prompts.get_version(session, prompt, VersionChoice(label="production"))
            assert session.scalar(sa.select(SearchDocument.version_id)) == active.id
    assert failures == []


def make_stale(caller: Caller) -> dict[str, Any]:
    """An index in which one prompt is missing, one is outdated and one is of an earlier format; as it should be."""
    for name in ("right", "missing", "outdated", "older"):
        put(caller, f"text of {name}", name=name, tags=[name])
    right = indexed()
    with db.transaction() as session:
        ids = {prompt.name: prompt.id for prompt in session.scalars(sa.select(Prompt))}
        search_index.forget_prompts(session, [ids["missing"]])
        session.execute(sa.update(Prompt).where(Prompt.name == "outdated").values(tags=["changed"]))
        session.execute(
            sa.update(SearchDocument)
            .where(SearchDocument.name == "older")
            .values(fingerprint="0." + right["older"][0][2:])
        )
        session.execute(sa.update(Prompt).where(Prompt.name == "outdated").values(tags=["outdated"]))
        session.execute(sa.update(SearchDocument).where(SearchDocument.name == "outdated").values(tags='["wrong"]'))
    return right


def test_reindex_makes_the_index_what_the_prompts_say_and_keeps_the_order(admin: Caller) -> None:
    right = make_stale(admin)

    done = CliRunner().invoke(main, ["reindex"], catch_exceptions=False)

    assert indexed() == right
    assert "4 of 4" in done.output
    assert found(admin, "text") == ["missing", "older", "outdated", "right"]  # the missing one came last
    with db.reading() as session:
        assert session.scalars(sa.select(SearchDocument.tags).where(SearchDocument.name == "outdated")).one() == (
            '["outdated"]'
        )


def test_reindex_of_what_is_missing_leaves_the_rest_alone(admin: Caller) -> None:
    right = make_stale(admin)
    with db.reading() as session:
        kept = session.scalars(sa.select(SearchDocument.id).where(SearchDocument.name.in_(["right", "outdated"]))).all()

    done = CliRunner().invoke(main, ["reindex", "--missing"], catch_exceptions=False)

    assert indexed() == right
    assert "2 of 2" in done.output
    with db.reading() as session:
        assert set(kept) < set(session.scalars(sa.select(SearchDocument.id)))


def test_reindex_goes_through_more_prompts_than_one_batch_holds(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "_BATCH", 2)
    right = make_stale(admin)
    told: list[tuple[int, int]] = []

    done = search_index.fill(everything=True, progress=lambda *progress: told.append(progress))

    assert (done, indexed(), count(SearchDocument)) == (4, right, 4)
    assert told == [(2, 4), (3, 4), (4, 4)]


def test_a_migrated_database_of_an_older_version_is_searched(admin: Caller) -> None:
    put(admin, "first")
    with db.transaction() as session:
        session.execute(sa.delete(SearchDocument))
    before = found(admin, "first")

    done = CliRunner().invoke(main, ["migrate"], catch_exceptions=False)

    assert (before, found(admin, "first")) == ([], ["greeter"])
    assert "search index: 1 of 1 prompts" in done.output
