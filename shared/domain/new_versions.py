"""New versions of many prompts, in a number of statements that does not grow with them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import bulk_insert
from shared.db import db_now, is_postgres
from shared.domain.changes import NEW_VERSION
from shared.domain.content import Content
from shared.domain.events import Change
from shared.models import Prompt, Version, new_id, table_of


@dataclass(frozen=True)
class NewVersion:
    """What is to be a version of a prompt whose row is locked, unless it is one already."""

    prompt: Prompt
    content: Content
    author: str
    message: str = ""
    forked_from: Version | None = None


@dataclass(frozen=True)
class Added:
    """The version that has the content. `is_new`: it was made now."""

    id: uuid.UUID
    number: int
    is_new: bool = False


def add_versions(session: Session, wanted: Sequence[NewVersion]) -> tuple[list[Added], list[Change]]:
    """The version of each content, in the order given, and the events of those that are new.

    The rows of the prompts are written past the objects in the session: who reads them again refreshes them.
    """
    found = _find(session, [(each.prompt.id, each.content.content_hash) for each in wanted])
    known = {(row.prompt_id, row.content_hash): Added(row.id, row.number) for row in found}
    last = {each.prompt.id: each.prompt.last_version_number for each in wanted}
    added, new = [], []
    for each in wanted:
        key = each.prompt.id, each.content.content_hash
        version = known.get(key)
        if version is None:  # the rows are locked, so the next number is still free
            last[each.prompt.id] += 1
            version = replace(known.setdefault(key, Added(new_id(), last[each.prompt.id])), is_new=True)
            new.append((each, version))
        added.append(version)
    if new:
        bulk_insert(session, Version, [_row(each, version) for each, version in new])
        numbered = {each.prompt.id: version.number for each, version in new}
        numbers = [{"of": prompt_id, "last": number} for prompt_id, number in numbered.items()]
        session.connection().execute(_NUMBER, numbers)
    return added, [_event(each, version) for each, version in new]


def _find(session: Session, pairs: Sequence[tuple[uuid.UUID, str]]) -> Sequence[Any]:
    """The versions that exist, by prompt and content hash. Given as pairs: of two lists a database looks up each id
    with each hash."""
    postgres = is_postgres(session)
    given = [(str(prompt_id) if postgres else prompt_id.hex, digest) for prompt_id, digest in pairs]
    return session.connection().execute(_FINDS[postgres], {"pairs": given}).all()


def _of_pairs(*, postgres: bool) -> sa.Select[uuid.UUID, str, uuid.UUID, int]:
    read = sa.func.json_array_elements if postgres else sa.func.json_each
    pairs = read(sa.bindparam("pairs", type_=sa.JSON)).table_valued(sa.column("value", sa.JSON), name="pairs")
    prompt_id, digest = (pairs.c.value[place].as_string() for place in (0, 1))
    same = sa.and_(Version.prompt_id == sa.cast(prompt_id, sa.Uuid), Version.content_hash == digest)
    return sa.select(Version.prompt_id, Version.content_hash, Version.id, Version.number).join_from(
        pairs, Version, same
    )


_FINDS = {postgres: _of_pairs(postgres=postgres) for postgres in (False, True)}
_NUMBER = (
    sa.update(table_of(Prompt))
    .where(table_of(Prompt).c.id == sa.bindparam("of"))
    .values(last_version_number=sa.bindparam("last"), updated_at=db_now())
)


def _row(each: NewVersion, version: Added) -> dict[str, object]:
    return {
        "id": version.id,
        "workspace_id": each.prompt.workspace_id,
        "prompt_id": each.prompt.id,
        "number": version.number,
        "content": dict(each.content.body),
        "template_hash": each.content.template_hash,
        "content_hash": each.content.content_hash,
        "variables": list(each.content.variables),
        "message": each.message,
        "forked_from_version_id": each.forked_from and each.forked_from.id,
        "created_by": each.author,
    }


def _event(each: NewVersion, version: Added) -> Change:
    said = {"version_number": version.number, "content_hash": each.content.content_hash}
    return Change(each.prompt.workspace_id, NEW_VERSION, each.prompt.id, said, each.author)
