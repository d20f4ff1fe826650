"""Finding prompts: what is asked of the index of `shared.domain.search_index`. How SQLite (FTS5) and PostgreSQL
(tsvector) differ is in these two; both hold the same words, and order and counts are computed from what they share.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from rapidfuzz.distance import DamerauLevenshtein
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.orm import Session

from shared.db import is_postgres
from shared.domain import pages, projects
from shared.domain.search_index import FIELDS, LETTERS, MISSPELT, documents, fts, mark, spellings, texts_of
from shared.domain.tenants import Caller
from shared.domain.words import Part, Query, Term, highlight, holds, parse, words_of
from shared.models import Prompt, Version

FACETS = ("category", "tag", "mode", "lifecycle", "owner_team")
COUNTED = 2_000  # so many matches are counted, those that changed last; more only cost time
FACET_VALUES = 50
SUGGESTED = 10
SNIPPET = 160  # characters
HIGHLIGHTED = 20_000  # characters of a content that are looked through for a snippet
_SAMPLE, _COMMON = 100, 5  # what so many of the newest documents hold is met soon enough by reading them


@dataclass(frozen=True)
class Filters:
    """Exact values; None: any."""

    category: str | None = None
    tag: str | None = None
    mode: str | None = None
    lifecycle: str | None = None
    owner_team: str | None = None


@dataclass(frozen=True)
class Hit:
    prompt: Prompt
    version_number: int | None  # whose content was searched
    matched_in: str | None  # the deepest field that the match needs; None: nothing was asked but filters
    highlights: Mapping[str, Sequence[Part]]


@dataclass(frozen=True)
class Counts:
    """How many match, and the values among them with how many each; of the first `COUNTED` if there are more."""

    total: int
    is_exact: bool
    facets: Mapping[str, Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class Found:
    hits: Sequence[Hit]
    next_cursor: str | None
    counts: Counts | None  # of the first page only
    did_you_mean: str | None


@dataclass(frozen=True)
class Suggestion:
    kind: str  # name or tag
    text: str


@dataclass(frozen=True)
class _Match:
    """One condition of the index: all marks (of each group one), all terms in these fields, none of the excluded."""

    marks: tuple[tuple[str, ...], ...]
    terms: tuple[Term, ...] = ()
    fields: tuple[str, ...] = FIELDS
    excluded: tuple[Term, ...] = ()
    instead: "_Match | None" = None  # what matches this too has been listed before
    may_be_common: bool = True  # False: a wider one was found to be rare
    hidden_projects: tuple[uuid.UUID, ...] = ()  # deleted ones, whose documents stay for when they are restored

    def within(self, marks: tuple[tuple[str, ...], ...]) -> "_Match":
        return replace(self, marks=(*self.marks, *marks))


def search(
    session: Session,
    caller: Caller,
    q: str = "",
    *,
    filters: Filters = Filters(),
    project: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Found:
    """One page of the prompts that match, best first.

    Best is what the name alone satisfies: first where it is the name, then where its words are whole; next what needs
    the tags too, then the description, then the content. Among equals the one that changed last comes first. The
    order is therefore the same on both databases, and a page costs what it lists, not what matches.
    """
    query = parse(q)
    scope = _scope(session, caller, project)
    filtered = scope.within(_filter_marks(filters))
    tiers = _tiers(query, filtered)
    first_tier, before = _place(cursor)
    rows: list[tuple[int, Any]] = []
    columns = documents.c.id, documents.c.prompt_id, documents.c.version_id
    if is_postgres(session) and not _is_common(session, caller, replace(tiers[-1][1], instead=None)):
        tiers = [(field, replace(match, may_be_common=False)) for field, match in tiers]
    for number, (_, match) in enumerate(tiers):
        if number >= first_tier and (room := limit + 1 - len(rows)):
            bound = before if number == first_tier else None
            found = _newest(session, caller, match, *columns, limit=room, before=bound)
            rows += [(number, row) for row in session.execute(found)]
    page = rows[:limit]
    counts, meant = None, None
    if not cursor:
        counts = _count(session, caller, query, scope, filters)
        meant = _did_you_mean(session, caller, query, filtered) if not counts.total else None
    return Found(
        _hits(session, caller, [(tiers[number][0], row) for number, row in page], query),
        pages.cursor_of(page[-1][0], page[-1][1].id) if len(rows) > limit else None,
        counts,
        meant,
    )


def suggest(session: Session, caller: Caller, q: str, *, project: str | None = None) -> list[Suggestion]:
    """Up to ten names and ten tags that hold what was typed, the last word of which may go on.

    Names that begin with it come first, then the shorter ones; tags in the order of how many prompts have them. Looked
    for among the thousand prompts that changed last and hold it. Before a word is typed: the names that changed last.
    """
    query = parse(q)
    scope = _scope(session, caller, project)
    typed = " ".join(words_of(q))

    def candidates(field: str, column: sa.Column[Any]) -> list[str]:
        match = replace(scope, terms=query.terms, fields=(field,), excluded=query.excluded)
        return list(session.scalars(_newest(session, caller, match, column, limit=1_000)))

    names = {name: " ".join(words_of(name)) for name in candidates("name", documents.c.name)}
    best = list(names)
    if query.terms:
        best.sort(key=lambda name: (not names[name].startswith(typed), len(name), name))
    tags: Counter[str] = Counter()
    for having in candidates("tags", documents.c.tags):
        tags.update(tag for tag in json.loads(having) if holds(tag, query.terms))
    common = sorted(tags, key=lambda tag: (-tags[tag], tag))
    return [
        *(Suggestion("name", name) for name in best[:SUGGESTED]),
        *(Suggestion("tag", tag) for tag in common[:SUGGESTED]),
    ]


def _place(cursor: str | None) -> tuple[int, int | None]:
    """From which tier to go on, and below which document of it."""
    if not cursor:
        return 0, None
    tier, before = pages.numbers_of(cursor, 2)
    return tier, before


def _tiers(query: Query, scope: _Match) -> list[tuple[str | None, _Match]]:
    """What is listed first, second…, each with the deepest field that it needs. Each holds all of those before it."""
    widest = replace(scope, terms=query.terms, excluded=query.excluded)
    if not query.terms:
        return [(None, widest)]
    in_name = replace(widest, fields=FIELDS[:1])
    whole = replace(in_name, terms=tuple(replace(term, is_prefix=False) for term in query.terms))
    is_the_name = mark("n", " ".join(word for term in query.terms for word in term.words))
    nested = [
        whole.within(((is_the_name,),)),
        *([whole] if whole != in_name else []),
        *(replace(widest, fields=FIELDS[:count]) for count in range(1, len(FIELDS) + 1)),
    ]
    return [
        (match.fields[-1], replace(match, instead=before))
        for match, before in zip(nested, [None, *nested[:-1]], strict=True)
    ]


def _count(session: Session, caller: Caller, query: Query, scope: _Match, filters: Filters) -> Counts:
    """The matches, and for each facet what there would be without its own filter."""

    def grouped(wanted: Filters) -> Sequence[Any]:
        match = replace(scope.within(_filter_marks(wanted)), terms=query.terms, excluded=query.excluded)
        columns = [documents.c["tags" if facet == "tag" else facet] for facet in FACETS]
        newest = _newest(session, caller, match, *columns, limit=COUNTED + 1).subquery()
        return session.execute(sa.select(*newest.c, sa.func.count()).group_by(*newest.c)).all()

    matching = grouped(filters)
    facets = {}
    for place, facet in enumerate(FACETS):
        is_filtered = getattr(filters, facet) is not None
        values: Counter[str] = Counter()
        for row in grouped(replace(filters, **{facet: None})) if is_filtered else matching:
            for value in set(json.loads(row[place])) if facet == "tag" else (row[place],):
                values[value] += row[-1]
        del values[""]  # a prompt without a category is in none
        facets[facet] = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:FACET_VALUES]
    total = sum(row[-1] for row in matching)
    return Counts(min(total, COUNTED), total <= COUNTED, facets)


def _did_you_mean(session: Session, caller: Caller, query: Query, scope: _Match) -> str | None:
    """The query with each word that nothing holds replaced by the nearest of a name or a tag, if that finds any."""

    def finds(asked: Query) -> bool:
        match = replace(scope, terms=asked.terms, excluded=asked.excluded)
        return session.scalar(_newest(session, caller, match, documents.c.id, limit=1)) is not None

    def nearest(word: str) -> str:
        if len(word) not in MISSPELT or finds(Query((Term((word,), is_prefix=True),))):
            return word
        near = scope.within((tuple(spellings(word)),))
        columns = documents.c.name, documents.c.tags
        found = session.execute(_newest(session, caller, near, *columns, limit=100))
        known = {known for name, tags in found for text in (name, *json.loads(tags)) for known in words_of(text)}
        distances = {other: DamerauLevenshtein.distance(word, other) for other in known}
        return min((other for other in known if distances[other] <= 2), key=lambda o: (distances[o], o), default=word)

    terms = tuple(replace(term, words=tuple(map(nearest, term.words))) for term in query.terms[:8])
    meant = replace(query, terms=(*terms, *query.terms[8:]))
    return str(meant) if meant != query and finds(meant) else None


def _hits(session: Session, caller: Caller, page: Sequence[tuple[str | None, Any]], query: Query) -> list[Hit]:
    # By id alone: given the workspace too, SQLite goes through all of its prompts.
    prompts = sa.select(Prompt).where(Prompt.id.in_([row.prompt_id for _, row in page]))
    versions = sa.select(Version.id, Version.number, Version.content).where(
        Version.id.in_([row.version_id for _, row in page if row.version_id is not None])
    )
    found = {prompt.id: prompt for prompt in session.scalars(prompts) if prompt.workspace_id == caller.workspace_id}
    contents = {row.id: row for row in session.execute(versions)}
    hits = []
    for matched_in, row in page:
        if row.prompt_id in found:  # PostgreSQL: it may have been deleted between the two statements
            prompt, version = found[row.prompt_id], contents.get(row.version_id)
            texts = {
                "name": [prompt.name],
                "tags": [*prompt.tags, prompt.category],
                "description": [prompt.description],
                "content": [text[:HIGHLIGHTED] for text in texts_of(version.content)] if version else [],
            }
            hits.append(Hit(prompt, version.number if version else None, matched_in, _highlights(texts, query)))
    return hits


def _highlights(texts: Mapping[str, Sequence[str]], query: Query) -> dict[str, list[Part]]:
    """The first text of each field that holds something that was looked for, around it."""
    found = {}
    for field, candidates in texts.items():
        shown = next(filter(None, (highlight(text, query.terms, width=SNIPPET) for text in candidates)), None)
        if shown:
            found[field] = shown
    return found


def _newest(
    session: Session, caller: Caller, match: _Match, *columns: sa.Column[Any], limit: int, before: int | None = None
) -> sa.Select[Any]:
    """So many of the matching documents that were made last, of those made before one. No others are read."""
    is_shown = [documents.c.project_id.not_in(match.hidden_projects)] if match.hidden_projects else []
    if not is_postgres(session):
        # FTS5 goes through its matches from the highest rowid down. The sign keeps SQLite from beginning with the index
        # of workspaces and asking FTS5 about one row after the other. The workspace is a mark too: this keeps it even
        # if the index should ever be wrong (I10).
        workspace: sa.ColumnElement[uuid.UUID] = sa.literal_column("+search_documents.workspace_id", sa.Uuid)
        found = (
            sa.select(*columns)
            .select_from(fts.join(documents, documents.c.id == fts.c.rowid))
            .where(
                sa.text("search_fts MATCH :expression").bindparams(expression=_fts5(match)),
                workspace == caller.workspace_id,
                *is_shown,
            )
        )
        if before is not None:
            found = found.where(fts.c.rowid < before)
        return found.order_by(fts.c.rowid.desc()).limit(limit)
    # PostgreSQL guesses how common a word is, and a wrong guess costs a hundred times the right plan, so it is told: to
    # read the newest documents until enough match (the function is one that no index helps with), or to look the words
    # up and sort what they lead to.
    asked = _asked(match)
    own = sa.select(documents.c.id.label("document_id"), *columns).where(
        documents.c.workspace_id == caller.workspace_id, *is_shown
    )
    if before is not None:
        own = own.where(documents.c.id < before)
    if match.may_be_common and _is_common(session, caller, match):
        newest = own.where(sa.func.ts_match_vq(documents.c.words, asked)).order_by(documents.c.id.desc()).limit(limit)
        return newest.with_only_columns(*columns)
    looked_up = (
        own.where(documents.c.words.bool_op("@@")(asked))
        .cte("looked_up")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    found = sa.select(*(looked_up.c[column.key] for column in columns))
    return found.order_by(looked_up.c.document_id.desc()).limit(limit)


def _asked(match: _Match) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(_tsquery(match), sa.Text), TSQUERY)


def _is_common(session: Session, caller: Caller, match: _Match) -> bool:
    newest = (
        sa.select(documents.c.words)
        .where(documents.c.workspace_id == caller.workspace_id)
        .order_by(documents.c.id.desc())
        .limit(_SAMPLE)
        .subquery()
    )
    matching = sa.select(sa.func.count()).where(sa.func.ts_match_vq(newest.c.words, _asked(match)))
    return (session.scalar(matching) or 0) >= _COMMON


def _fts5(match: _Match) -> str:
    """The condition in the language of FTS5. Every word is quoted, and made of letters and digits alone."""

    def phrase(term: Term, letter: str) -> str:
        return '"' + " ".join(letter + word for word in term.words) + '"' + (" *" if term.is_prefix else "")

    condition, unwanted = _parts(match, phrase, lambda mark: f'"{mark}"', " AND ", " OR ")
    return f"{condition} NOT ({' OR '.join(unwanted)})" if unwanted else condition


def _tsquery(match: _Match) -> str:
    """The same in the language of PostgreSQL."""

    def phrase(term: Term, letter: str) -> str:
        words = [f"'{letter}{word}'" for word in term.words]
        return "(" + " <-> ".join(words) + (":*)" if term.is_prefix else ")")

    condition, unwanted = _parts(match, phrase, lambda mark: f"'{mark}'", " & ", " | ")
    return " & ".join([condition, *(f"!{part}" for part in unwanted)])


def _parts(
    match: _Match, phrase: Callable[[Term, str], str], marked: Callable[[str], str], every: str, one: str
) -> tuple[str, list[str]]:
    """What must match, and what must not."""

    def anywhere(term: Term, fields: Iterable[str]) -> str:
        return "(" + one.join(phrase(term, LETTERS[field]) for field in fields) + ")"

    def condition(match: _Match, marks: Iterable[tuple[str, ...]]) -> str:
        groups = ["(" + one.join(map(marked, group)) + ")" for group in marks]
        return "(" + every.join([*groups, *(anywhere(term, match.fields) for term in match.terms)]) + ")"

    unwanted = [anywhere(term, FIELDS) for term in match.excluded]
    if match.instead:
        more = [group for group in match.instead.marks if group not in match.marks]
        unwanted.append(condition(match.instead, more))
    return condition(match, match.marks), unwanted


def _scope(session: Session, caller: Caller, project: str | None) -> _Match:
    """All that the caller may see; of a project, if one is named."""
    if is_postgres(session):
        # How best to answer depends on how common the words are, which a plan made for any words cannot know.
        session.execute(sa.text("SET LOCAL plan_cache_mode = force_custom_plan"))
    workspace = (f"¦w{caller.workspace_id.hex}",)
    if project is not None:
        return _Match((workspace, (f"¦p{projects.get_project(session, caller, project).id.hex}",)))
    # As values, and not as a subquery: PostgreSQL would guess that half of all documents are hidden.
    hidden = tuple(session.scalars(projects.deleted(caller)))
    if caller.project_ids is None:
        return _Match((workspace,), hidden_projects=hidden)
    seen = tuple(sorted(f"¦p{project_id.hex}" for project_id in caller.project_ids)) or ("¦p",)
    return _Match((workspace, seen), hidden_projects=hidden)


def _filter_marks(filters: Filters) -> tuple[tuple[str, ...], ...]:
    values = {facet: getattr(filters, facet) for facet in FACETS}
    return tuple((mark(facet[0], value),) for facet, value in values.items() if value is not None)
