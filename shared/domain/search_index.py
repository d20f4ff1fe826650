"""The index that prompts are found by, and keeping it true. How it is asked is in `shared.domain.search`.

A prompt is found by its name, tags and category, description and the content of its current version: the one at
`production`, else the latest. Whoever changes one of these calls `index_prompt` in the same transaction. SQLite (FTS5)
and PostgreSQL (tsvector) are given the same words, each behind the letter of its field, and the same marks: words that
nobody can type, which say where a prompt belongs, its exact values, and how its words may be misspelt.
"""

import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import among, is_postgres, reading, transaction
from shared.domain.names import PRODUCTION
from shared.domain.words import words_of
from shared.hashing import dump_json, hash_of, sha256
from shared.models import Label, Prompt, SearchDocument, Version, table_of

FORMAT = 1  # of the index; raised when the same prompt is to be indexed differently, so that `fill` makes it anew
FIELDS = ("name", "tags", "description", "content")  # best first; the category counts as a tag
LETTERS = dict(zip(FIELDS, "abcd", strict=True))  # before each word: an index knows which field it stands in
MOST_WORDS = 15_000  # of a prompt; PostgreSQL counts places up to 16,383
MOST_BYTES = 400_000  # of its words; a tsvector ends at a megabyte
MISSPELT = range(4, 25)  # lengths of the words for which a near one is looked for
_fingerprinted = attrgetter("name", "description", "category", "tags", "mode", "lifecycle", "owner_team")
_GAP = "¶"  # between two texts of a field: nothing stands side by side across it
_BATCH = 200

documents = table_of(SearchDocument)
fts = sa.table("search_fts", sa.column("rowid", sa.Integer), sa.column("words", sa.Text))


def index_prompt(session: Session, prompt: Prompt) -> bool:
    """`index_prompts` of one."""
    return index_prompts(session, [prompt]) > 0


def index_prompts(session: Session, prompts: Sequence[Prompt]) -> int:
    """Make these findable as they are now, and forget those that are deleted; how many were written.

    To be called, with the prompts' rows locked, after any change of their own fields, a new version, or a move of
    `production`. Nothing is written for one of which nothing that is indexed has changed. The number of statements
    does not grow with the prompts.
    """
    session.flush()
    if not prompts:
        return 0
    rows = session.connection().execute(_CURRENT, {"ids": [prompt.id for prompt in prompts]})
    found = {prompt_id: (version_id, indexed) for prompt_id, version_id, indexed in rows}
    stale, new = [], []
    for prompt in prompts:
        version_id, indexed = found[prompt.id]
        fingerprint = None if prompt.deleted_at is not None else _fingerprint(prompt, version_id)
        if indexed != fingerprint:
            stale += [prompt.id] if indexed is not None else []
            new += [(prompt, version_id, fingerprint)] if fingerprint is not None else []
    if stale:
        forget_prompts(session, stale)
    if not new:
        return 0
    wanted = {"ids": [version_id for _, version_id, _ in new]}
    contents: dict[uuid.UUID, Any] = dict(session.connection().execute(_CONTENTS, wanted).all())
    words = [_indexed_words(prompt, contents.get(version_id)) for prompt, version_id, _ in new]
    postgres = is_postgres(session)
    entries = [
        {
            "prompt_id": prompt.id,
            "workspace_id": prompt.workspace_id,
            "project_id": prompt.project_id,
            "version_id": version_id,
            "name": prompt.name,
            "tags": dump_json(prompt.tags),
            "category": prompt.category,
            "mode": prompt.mode,
            "lifecycle": prompt.lifecycle,
            "owner_team": prompt.owner_team,
            "fingerprint": fingerprint,
            "words": _tsvector(*said) if postgres else None,
        }
        for (prompt, version_id, fingerprint), said in zip(new, words, strict=True)
    ]
    ids: dict[uuid.UUID, int] = dict(session.connection().execute(_INSERT, entries).all())
    if not postgres:
        spoken = [
            {"rowid": ids[prompt.id], "words": " ".join([*said[0], *said[1]])}
            for (prompt, _, _), said in zip(new, words, strict=True)
        ]
        session.connection().execute(_INSERT_WORDS, spoken)
    return len(new)


def forget_prompts(session: Session, prompt_ids: Sequence[uuid.UUID]) -> None:
    """Let no search find these. A prompt whose row is deleted is forgotten with it."""
    session.connection().execute(_FORGET, {"ids": list(prompt_ids)})


def fill(*, everything: bool = False, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Index what is not indexed, or `everything` anew; how many prompts were read. In transactions of its own.

    Others may work meanwhile: a batch of prompts is locked, read as it is then, and let go.
    """
    document = SearchDocument
    with reading() as session:
        top = session.scalar(sa.select(sa.func.max(document.id))) or 0
    # In their old order, since the order in which documents are made is that of equally good hits.
    indexed = sa.select(Prompt).join(document, document.prompt_id == Prompt.id).where(document.id <= top)
    if not everything:
        indexed = indexed.where(~document.fingerprint.startswith(f"{FORMAT}.", autoescape=True))
    missing = sa.select(Prompt).outerjoin(document, document.prompt_id == Prompt.id).where(document.id.is_(None))
    with reading() as session:
        counts = [
            session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) for query in (indexed, missing)
        ]
    done, total = 0, sum(count or 0 for count in counts)
    for query, key in ((indexed, document.id), (missing, Prompt.id)):
        last: Any = None
        while True:
            batch = query.order_by(key).limit(_BATCH).with_for_update(of=Prompt)
            with transaction() as session:
                rows = session.scalars(batch if last is None else batch.where(Prompt.id > last)).all()
                forget_prompts(session, [prompt.id for prompt in rows])
                index_prompts(session, rows)
            if not rows:
                break
            # What was indexed has left the first query by itself; a deleted prompt would never leave the second.
            last = rows[-1].id if query is missing else None
            done += len(rows)
            progress(done, max(done, total))
    return done


def texts_of(content: Any) -> list[str]:
    """What a version says, as it was written: its template, or each of its messages."""
    if not isinstance(content, Mapping):
        return []
    if "template_source" in content:
        return [content["template_source"]]
    said = [message.get("content") for message in content.get("messages", [])]
    return [text for text in said if isinstance(text, str)]


def mark(kind: str, value: str) -> str:
    return f"¦{kind}{sha256(value)[:16]}"


@lru_cache(maxsize=1024)
def spellings(word: str) -> Sequence[str]:
    """The word and what is left of it without any one letter. Two words one slip apart have one of these in common."""
    if len(word) not in MISSPELT:
        return ()
    return tuple(sorted({f"¦s{word}", *(f"¦s{word[:place]}{word[place + 1 :]}" for place in range(len(word)))}))


def _indexed_words(prompt: Prompt, content: Any) -> tuple[list[str], list[str]]:
    texts = {
        "name": [prompt.name],
        "tags": [*prompt.tags, prompt.category],
        "description": [prompt.description],
        "content": texts_of(content),
    }
    return _words(texts), _marks_of(prompt)


def _marks_of(prompt: Prompt) -> list[str]:
    named = words_of(" ".join([prompt.name, *prompt.tags, prompt.category]))
    return sorted(
        {
            f"¦w{prompt.workspace_id.hex}",
            f"¦p{prompt.project_id.hex}",
            mark("n", " ".join(words_of(prompt.name))),
            mark("c", prompt.category),
            mark("m", prompt.mode),
            mark("l", prompt.lifecycle),
            mark("o", prompt.owner_team),
            *(mark("t", tag) for tag in prompt.tags),
            *(spelling for word in named[:30] for spelling in spellings(word)),
        }
    )


def _words(texts: Mapping[str, Iterable[str]]) -> list[str]:
    """The words of all fields in order, each behind the letter of its field; a gap where a text ends."""
    words: list[str] = []
    left = MOST_BYTES
    for field in FIELDS:
        letter = LETTERS[field]
        for text in texts[field]:
            found = words_of(text)
            fits = _fitting(found, max(0, MOST_WORDS - len(words)), left)
            words += [letter + word for word in fits]
            if len(fits) < len(found):
                return words
            left -= len("".join(found).encode())
            words.append(_GAP)
    return words


def _fitting(words: list[str], most: int, most_bytes: int) -> list[str]:
    """The first of these: so many, of so many bytes together."""
    if len(words) <= most and len("".join(words).encode()) <= most_bytes:
        return words
    ends = itertools.accumulate(len(word.encode()) for word in words[:most])
    return [word for word, end in zip(words, ends, strict=False) if end <= most_bytes]


def _tsvector(words: Sequence[str], marks: Sequence[str]) -> str:
    """Words with their places; marks without."""
    places: dict[str, list[str]] = {}
    for place, word in enumerate(words, start=1):
        if word != _GAP:
            places.setdefault(word, []).append(str(place))
    return " ".join([*(f"'{word}':{','.join(at[:255])}" for word, at in places.items()), *(f"'{m}'" for m in marks)])


def _fingerprint(prompt: Prompt, version_id: uuid.UUID | None) -> str:
    """Equal for what would be indexed equally. A version never changes, so its id stands for its content."""
    ids = [str(prompt.project_id), str(version_id)]
    return f"{FORMAT}.{hash_of([*ids, *_fingerprinted(prompt)])[:48]}"


def _current() -> sa.Select[uuid.UUID, uuid.UUID, str]:
    """The version whose content is searched, and the fingerprint of what is indexed."""
    latest = sa.and_(Version.prompt_id == Prompt.id, Version.number == Prompt.last_version_number)
    return (
        sa.select(Prompt.id, sa.func.coalesce(Label.version_id, Version.id, type_=sa.Uuid), SearchDocument.fingerprint)
        .select_from(Prompt)
        .outerjoin(Label, sa.and_(Label.prompt_id == Prompt.id, Label.name == PRODUCTION))
        .outerjoin(Version, latest)
        .outerjoin(SearchDocument, SearchDocument.prompt_id == Prompt.id)
        .where(among(Prompt.id))
    )


# Built once: to build them for each write costs more than to run them.
_CURRENT = _current()
_INSERT = sa.insert(documents).returning(documents.c.prompt_id, documents.c.id)
_INSERT_WORDS = sa.insert(fts)
_CONTENTS = sa.select(Version.id, Version.content).where(among(Version.id))
_FORGET = sa.delete(documents).where(among(documents.c.prompt_id))
