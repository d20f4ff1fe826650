"""How prompts are related, and who is touched when one of them changes."""

import heapq
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.db import db_now, insert_if_absent
from shared.domain import events, pages, projects, prompts, tenants
from shared.domain.events import Change
from shared.domain.labels import Placed, list_labels
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, NotFound, RelationshipCycle, field_error
from shared.models import (
    LIVE_STATES,
    OPEN_STATES,
    Batch,
    Evaluation,
    Execution,
    Optimization,
    Prompt,
    Relationship,
    Workspace,
    new_id,
)

# What each says of its source. All eight types of Prompt Store are here, under their names or as an alias.
TYPES: Mapping[str, str] = {
    "extends": "adds to the target and needs it",
    "references": "mentions or includes the target",
    "alternative_to": "can be used instead of the target",
    "similar_to": "does much the same as the target",
    "depends_on": "does not work without the target",
    "replaces": "took the target's place",
    "complements": "is used together with the target",
    "part_of": "is one part of the target",
    "derived_from": "was made from the target",
    "conflicts_with": "must not be used together with the target",
}
ALIASES: Mapping[str, str] = {
    "alternative": "alternative_to",
    "similar": "similar_to",
    "conflicts": "conflicts_with",
}
DIRECTIONS = ("out", "in", "both")
ACYCLIC = ("extends", "depends_on", "part_of", "replaces")
# Who breaks when a prompt changes: the sources of these, and the targets of what it is part of.
NEEDS = ("extends", "depends_on", "references")
MOST_NODES = 500
DEEPEST = 10
MOST_PER_PROMPT = 1_000
USAGE_DAYS = 30
COUNTED = 50_000  # executions, the newest ones
SHOWN = 20  # runs that are named


@dataclass(frozen=True)
class Edge:
    """A relationship with the names of its ends."""

    relationship: Relationship
    source: str
    target: str


@dataclass(frozen=True)
class Node:
    prompt: Prompt
    depth: int  # fewest steps from the prompt that was asked about


@dataclass(frozen=True)
class Graph:
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    is_complete: bool  # False: there are more within this depth than are shown


@dataclass(frozen=True)
class Dependent:
    """A prompt that a change reaches, on the path that carries most of it."""

    prompt: Prompt
    depth: int
    path: Sequence[tuple[str, str]]  # (type, name of the next prompt), from the prompt that changes
    strength: float  # the product of those on the path


@dataclass(frozen=True)
class InFlight:
    """Open work that uses the prompt: how much, and the newest of it."""

    total: int
    ids: Sequence[uuid.UUID]


@dataclass(frozen=True)
class Usage:
    """Executions since a time, by environment; the newest `COUNTED` of them if it is not complete."""

    since: datetime
    total: int
    open: int
    by_environment: Mapping[str, int]
    is_complete: bool


@dataclass(frozen=True)
class Impact:
    dependents: Sequence[Dependent]
    is_complete: bool
    labels: list[Placed]
    evaluations: InFlight
    optimizations: InFlight
    batches: InFlight
    usage: Usage


def type_of(name: str, pointer: str = "/type") -> str:
    """The type that a name or an alias stands for."""
    found = ALIASES.get(name, name)
    if found not in TYPES:
        raise field_error(pointer, f"must be one of {', '.join([*TYPES, *ALIASES])}")
    return found


def create(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    *,
    target: str,
    type: str,  # noqa: A002  # as the API spells it
    strength: float = 1.0,
    note: str = "",
    metadata: Mapping[str, Any] | None = None,
    target_project: str | None = None,
) -> Edge:
    """Relate a prompt to another one, of its project unless one is named. A pair has each type once."""
    kind = type_of(type)
    other = _target(session, caller, prompt, target, target_project)
    if other.id == prompt.id:
        raise field_error("/target", "a prompt has no relationship with itself")
    if kind in ACYCLIC:
        # One at a time in a workspace, else two that close a circle together would not see each other. Rows that only
        # refer to the workspace are not held up.
        session.execute(
            sa.select(Workspace.id).where(Workspace.id == prompt.workspace_id).with_for_update(key_share=True)
        )
        _refuse_cycle(session, caller, prompt, other, kind)
    held = sa.select(sa.func.count()).where(Relationship.source_id == prompt.id)
    if (session.scalar(held) or 0) >= MOST_PER_PROMPT:
        raise field_error("/target", f"{prompt.name} has {MOST_PER_PROMPT} relationships, and more are not kept")
    relationship_id = new_id()
    if not insert_if_absent(
        session,
        Relationship,
        id=relationship_id,
        workspace_id=prompt.workspace_id,
        source_id=prompt.id,
        target_id=other.id,
        type=kind,
        strength=strength,
        note=note,
        details=dict(metadata or {}),
        created_by=caller.user_name,
    ):
        raise AlreadyExists(f"{prompt.name} {kind} {other.name} already; change that relationship")
    edge = Edge(session.get_one(Relationship, relationship_id), prompt.name, other.name)
    _record(session, caller, "relationship.created", edge)
    return edge


def list_relationships(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    *,
    direction: str = "both",
    types: Collection[str] | None = None,
    min_strength: float = 0.0,
    limit: int,
    cursor: str | None,
) -> Page:
    """Those of a prompt whose other end the caller may see, newest first, as `Edge`s."""
    query = _visible_edges(caller).where(_touching(direction, [prompt.id]), Relationship.strength >= min_strength)
    if types is not None:
        query = query.where(Relationship.type.in_(types))
    page = pages.newest_first(session, query, Relationship, limit=limit, cursor=cursor)
    return Page(_named(session, page.data), page.next_cursor)


def get_relationship(
    session: Session, caller: Caller, prompt: Prompt, relationship_id: uuid.UUID, *, lock: bool = False
) -> Edge:
    query = _visible_edges(caller).where(_touching("both", [prompt.id]), Relationship.id == relationship_id)
    if lock:
        query = query.with_for_update(of=Relationship).execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFound(f"no relationship {relationship_id} of prompt {prompt.name!r}")
    return _named(session, [found])[0]


def source_of(session: Session, caller: Caller, relationship_id: uuid.UUID) -> Prompt:
    """The prompt that a relationship begins at: for the older addresses, which name a relationship alone."""
    query = _visible_edges(caller).where(Relationship.id == relationship_id)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFound(f"no relationship {relationship_id}")
    return session.get_one(Prompt, found.source_id)


def update(
    session: Session, caller: Caller, prompt: Prompt, relationship_id: uuid.UUID, changes: Mapping[str, Any]
) -> Edge:
    """Change strength, note or metadata. What it connects, and how, is another relationship."""
    edge = get_relationship(session, caller, prompt, relationship_id, lock=True)
    row = edge.relationship
    given = {"details" if field == "metadata" else field: value for field, value in changes.items()}
    changed = {field: value for field, value in given.items() if getattr(row, field) != value}
    if changed:
        for field, value in changed.items():
            setattr(row, field, value)
        row.updated_at = db_now()
        session.flush()
        session.refresh(row)
        named = sorted("metadata" if field == "details" else field for field in changed)
        _record(session, caller, "relationship.updated", edge, changed=named)
    return edge


def delete(session: Session, caller: Caller, prompt: Prompt, relationship_id: uuid.UUID) -> None:
    edge = get_relationship(session, caller, prompt, relationship_id, lock=True)
    session.execute(sa.delete(Relationship).where(Relationship.id == relationship_id))
    _record(session, caller, "relationship.deleted", edge)


def graph(
    session: Session, caller: Caller, prompt: Prompt, *, depth: int, types: Collection[str] | None = None
) -> Graph:
    """The prompts within so many steps in any direction, nearest first and then by name, and what connects them.

    Step by step and not by one recursive query: that one cannot stop when it has found enough, and this reads at most
    `MOST_NODES` prompts and what they touch.
    """
    found, edges, is_complete = _walk(session, caller, prompt, depth, types, lambda edge, _: _other_ends(edge))
    rows = {row.id: row for row in session.scalars(sa.select(Prompt).where(Prompt.id.in_(found)))}
    nodes = sorted(
        (Node(rows[node], at) for node, at in found.items()), key=lambda node: _order(node.depth, node.prompt)
    )
    between = [edge for edge in edges if edge.source_id in found and edge.target_id in found]
    named = _named(session, between)
    named.sort(key=lambda edge: (edge.source, edge.target, edge.relationship.type, edge.relationship.id))
    return Graph(nodes, named, is_complete)


def count_by_type(session: Session, caller: Caller) -> dict[str, int]:
    """How many relationships of each type the caller may see."""
    seen = _visible_edges(caller).subquery()
    rows = session.execute(sa.select(seen.c.type, sa.func.count()).group_by(seen.c.type))
    return dict.fromkeys(TYPES, 0) | {row[0]: row[1] for row in rows}


def impact(session: Session, caller: Caller, prompt: Prompt) -> Impact:
    """Who breaks if this prompt changes: prompts that need it, work in flight, labels and recent use."""
    dependents, is_complete = _dependents(session, caller, prompt)
    usage, batches = _usage(session, caller, prompt)
    return Impact(
        dependents,
        is_complete,
        list_labels(session, prompt),
        _in_flight(session, caller, Evaluation, prompt, OPEN_STATES),
        _in_flight(session, caller, Optimization, prompt, LIVE_STATES),
        batches,
        usage,
    )


def _target(session: Session, caller: Caller, prompt: Prompt, name: str, project: str | None) -> Prompt:
    try:
        return prompts.get_prompt(session, caller, name, project=project or str(prompt.project_id))
    except NotFound as error:
        # The path names a prompt too; it is the body that names this one.
        raise NotFound(error.detail, fields=["target_project" if "project" in error.fields else "target"]) from error


def _refuse_cycle(session: Session, caller: Caller, source: Prompt, target: Prompt, kind: str) -> None:
    """Whatever the target leads to by this type must not lead back to the source."""
    start = sa.select(sa.literal(target.id, sa.Uuid).label("id")).cte("reached", recursive=True)
    step = sa.select(Relationship.target_id).join(start, start.c.id == Relationship.source_id)
    reached = start.union(step.where(Relationship.type == kind))
    if session.scalar(sa.select(sa.exists().where(reached.c.id == source.id))):
        # What is between them may be of a project that this key does not see.
        raise RelationshipCycle(
            f"{target.name} already {kind} {source.name}, itself or through others: {kind} must not go in a circle"
        )


def _visible_edges(caller: Caller) -> sa.Select[Any]:
    """Relationships of which the caller may see both ends, and neither of them is deleted, nor its project."""
    source, target = aliased(Prompt), aliased(Prompt)
    query = (
        sa.select(Relationship)
        .join(source, source.id == Relationship.source_id)
        .join(target, target.id == Relationship.target_id)
        .where(Relationship.workspace_id == caller.workspace_id)
        .where(*(end.deleted_at.is_(None) for end in (source, target)))
        .where(*(projects.is_living(caller, end.project_id) for end in (source, target)))
    )
    if caller.project_ids is None:
        return query
    return query.where(source.project_id.in_(caller.project_ids), target.project_id.in_(caller.project_ids))


def _touching(direction: str, prompt_ids: Collection[uuid.UUID]) -> sa.ColumnElement[bool]:
    out, into = Relationship.source_id.in_(prompt_ids), Relationship.target_id.in_(prompt_ids)
    return {"out": out, "in": into, "both": sa.or_(out, into)}[direction]


def _named(session: Session, rows: Iterable[Relationship]) -> list[Edge]:
    rows = list(rows)
    ends = {end for row in rows for end in (row.source_id, row.target_id)}
    names = dict(session.execute(sa.select(Prompt.id, Prompt.name).where(Prompt.id.in_(ends))).all()) if ends else {}
    return [Edge(row, names[row.source_id], names[row.target_id]) for row in rows]


def _record(session: Session, caller: Caller, kind: str, edge: Edge, **more: Any) -> None:
    row = edge.relationship
    data = {"source": edge.source, "target": edge.target, "type": row.type, "strength": row.strength, **more}
    ids = {"source_id": str(row.source_id), "target_id": str(row.target_id)}
    events.record(session, [Change(row.workspace_id, kind, row.id, data | ids, caller.user_name)])


def _walk(
    session: Session, caller: Caller, prompt: Prompt, depth: int, types: Collection[str] | None, follow: Any
) -> tuple[dict[uuid.UUID, int], list[Relationship], bool]:
    """(prompt → fewest steps, the relationships met, whether that is all), in the same order every time."""
    found = {prompt.id: 0}
    met: dict[uuid.UUID, Relationship] = {}
    frontier = [prompt.id]
    for step in range(1, depth + 1):
        query = _visible_edges(caller).where(_touching("both", frontier))
        if types is not None:
            query = query.where(Relationship.type.in_(types))
        most = 10 * MOST_NODES
        rows = session.scalars(query.order_by(Relationship.id).limit(most + 1)).all()
        new: dict[uuid.UUID, int] = {}
        for row in rows[:most]:
            met[row.id] = row
            for end in follow(row, frontier):
                if end not in found:
                    new[end] = step
        room = MOST_NODES - len(found)
        found |= dict(list(new.items())[:room])
        if len(new) > room or len(rows) > most:
            return found, list(met.values()), False
        frontier = list(new)
        if not frontier:
            break
    return found, list(met.values()), True


def _other_ends(edge: Relationship) -> tuple[uuid.UUID, uuid.UUID]:
    return edge.source_id, edge.target_id


def _order(depth: int, prompt: Prompt) -> tuple[int, str, uuid.UUID]:
    return depth, prompt.name, prompt.id


def _hit_by(edge: Relationship) -> tuple[uuid.UUID, uuid.UUID]:
    """(whose change, whom it reaches): what needs a prompt, and the whole that it is a part of."""
    return (edge.source_id, edge.target_id) if edge.type == "part_of" else (edge.target_id, edge.source_id)


def _dependents(session: Session, caller: Caller, prompt: Prompt) -> tuple[list[Dependent], bool]:
    def reached(edge: Relationship, frontier: Collection[uuid.UUID]) -> list[uuid.UUID]:
        changed, hit = _hit_by(edge)
        return [hit] if changed in frontier else []

    kinds = (*NEEDS, "part_of")
    found, edges, is_complete = _walk(session, caller, prompt, DEEPEST, kinds, reached)
    if is_complete and DEEPEST in found.values():
        deepest = [node for node, at in found.items() if at == DEEPEST]
        beyond = session.scalars(
            _visible_edges(caller).where(_touching("both", deepest), Relationship.type.in_(kinds)).limit(MOST_NODES)
        )
        is_complete = not any(_hit_by(edge)[0] in deepest and _hit_by(edge)[1] not in found for edge in beyond)
    rows = {row.id: row for row in session.scalars(sa.select(Prompt).where(Prompt.id.in_(found)))}
    onward: dict[uuid.UUID, list[tuple[uuid.UUID, Relationship]]] = {}
    for edge in edges:
        changed, hit = _hit_by(edge)
        if changed in found and hit in found:
            onward.setdefault(changed, []).append((hit, edge))
    best = _strongest_paths(prompt, rows, onward)
    listed = [Dependent(rows[node], found[node], path, strength) for node, (strength, path) in best.items()]
    listed.sort(key=lambda one: (-one.strength, *_order(one.depth, one.prompt)))
    return listed, is_complete


def _strongest_paths(
    prompt: Prompt,
    rows: Mapping[uuid.UUID, Prompt],
    onward: Mapping[uuid.UUID, Sequence[tuple[uuid.UUID, Relationship]]],
) -> dict[uuid.UUID, tuple[float, tuple[tuple[str, str], ...]]]:
    """By prompt, the largest product of strengths and its path; of equal ones the shortest, then the first by name.

    Dijkstra's algorithm: no strength is above 1, so a product never grows on the way.
    """
    settled: dict[uuid.UUID, tuple[float, tuple[tuple[str, str], ...]]] = {}
    waiting: list[tuple[float, int, tuple[tuple[str, str], ...], uuid.UUID]] = [(-1.0, 0, (), prompt.id)]
    while waiting:
        negative, length, path, node = heapq.heappop(waiting)
        if node in settled:
            continue
        settled[node] = (-negative, path)
        for hit, edge in onward.get(node, ()):
            if hit not in settled:
                further = (*path, (edge.type, rows[hit].name))
                heapq.heappush(waiting, (negative * edge.strength, length + 1, further, hit))
    del settled[prompt.id]
    return settled


def _in_flight(session: Session, caller: Caller, entity: Any, prompt: Prompt, states: Sequence[str]) -> InFlight:
    query = tenants.visible(caller, entity).where(entity.prompt_id == prompt.id, entity.state.in_(states))
    total = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    newest = query.with_only_columns(entity.id).order_by(entity.created_at.desc(), entity.id.desc()).limit(SHOWN)
    return InFlight(total, session.scalars(newest).all())


def _usage(session: Session, caller: Caller, prompt: Prompt) -> tuple[Usage, InFlight]:
    """The prompt's executions of the last days, counted in one pass, and the batches that some are still open of."""
    since = session.scalars(sa.select(db_now(-86_400.0 * USAGE_DAYS))).one()
    newest = (
        sa.select(Execution.environment, Execution.state, Execution.batch_id)
        .where(Execution.prompt_id == prompt.id, Execution.created_at >= since)
        .order_by(Execution.created_at.desc())
        .limit(COUNTED + 1)
        .subquery()
    )
    is_open = newest.c.state.in_(OPEN_STATES)
    open_batch = sa.case((is_open, newest.c.batch_id))
    keys = (newest.c.environment, is_open.label("is_open"), open_batch.label("open_batch"))
    counted = sa.select(*keys, sa.func.count()).group_by(*keys).subquery()
    environments: Counter[str] = Counter()
    opened, batch_ids = 0, set()
    for environment, still_open, batch_id, count in session.execute(sa.select(counted)):
        environments[environment] += count
        opened += count if still_open else 0
        batch_ids |= {batch_id} if batch_id else set()
    total = environments.total()
    batches = tenants.visible(caller, Batch).where(Batch.id.in_(batch_ids))
    newest_first = batches.with_only_columns(Batch.id).order_by(Batch.created_at.desc(), Batch.id.desc())
    ids = session.scalars(newest_first).all()
    by_environment = dict(sorted(environments.items(), key=lambda item: (-item[1], item[0])))
    usage = Usage(since, min(total, COUNTED), opened, by_environment, total <= COUNTED)
    return usage, InFlight(len(ids), ids[:SHOWN])
