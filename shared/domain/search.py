"""Finding prompts: the full-text index and what is asked of it. How SQLite (FTS5) and PostgreSQL (tsvector) differ
is here; both are given the same words, and order and counts are computed from what they share.

A prompt is found by its name, tags and category, description and the content of its current version: the one at
`production`, else the latest. Whoever changes one of these calls `index_prompt` in the same transaction.
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

from shared.db import IDS, is_postgres, reading, transaction
from shared.domain import pages, projects
from shared.domain.names import PRODUCTION
from shared.domain.tenants import Caller
from shared.domain.words import Part, Query, Term, highlight, holds, parse, words_of
from shared.hashing import dump_json, hash_of, sha256
from shared.models import Label, Prompt, SearchDocument, Version, table_of

FORMAT = 1  # of the index; raised when the same prompt is to be indexed differently, so that `fill` makes it anew
FIELDS = ("name", "tags", "description", "content")  # best first; the category counts as a tag
FACETS = ("category", "tag", "mode", "lifecycle", "owner_team")
COUNTED = 2_000  # so many matches are counted, those that changed last; more only cost time
FACET_VALUES = 50
SUGGESTED = 10
MOST_WORDS = 15_000  # of a prompt; PostgreSQL counts places up to 16,383
MOST_BYTES = 400_000  # of its words; a tsvector ends at a megabyte
SNIPPET = 160  # characters
HIGHLIGHTED = 20_000  # characters of a content that are looked through for a snippet
MISSPELT = range(4, 25)  # lengths of the words for which a near one is looked for
_LETTERS = dict(zip(FIELDS, "abcd", strict=True))  # before each word: an index knows which field it stands in
_GAP = "¶"  # between two texts of a field: nothing stands side by side across it
_BATCH = 200
_SAMPLE, _COMMON = 100, 5  # what so many of the newest documents hold is met soon enough by reading them

_documents = table_of(SearchDocument)
_fts = sa.table("search_fts", sa.column("rowid", sa.Integer), sa.column("words", sa.Text))


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
    columns = _documents.c.id, _documents.c.prompt_id, _documents.c.version_id
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

    names = {name: " ".join(words_of(name)) for name in candidates("name", _documents.c.name)}
    best = list(names)
    if query.terms:
        best.sort(key=lambda name: (not names[name].startswith(typed), len(name), name))
    tags: Counter[str] = Counter()
    for having in candidates("tags", _documents.c.tags):
        tags.update(tag for tag in json.loads(having) if holds(tag, query.terms))
    common = sorted(tags, key=lambda tag: (-tags[tag], tag))
    return [
        *(Suggestion("name", name) for name in best[:SUGGESTED]),
        *(Suggestion("tag", tag) for tag in common[:SUGGESTED]),
    ]


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
    found = {row.id: row for row in session.execute(_CURRENT, {"ids": [prompt.id for prompt in prompts]})}
    stale, new = [], []
    for prompt in prompts:
        _, version_id, indexed = found[prompt.id]
        fingerprint = None if prompt.deleted_at is not None else _fingerprint(prompt, version_id)
        if indexed != fingerprint:
            stale += [prompt.id] if indexed is not None else []
            new += [(prompt, version_id, fingerprint)] if fingerprint is not None else []
    if stale:
        forget_prompts(session, stale)
    if not new:
        return 0
    wanted = [version_id for _, version_id, _ in new]
    contents: dict[uuid.UUID, Any] = dict(
        session.execute(sa.select(Version.id, Version.content).where(Version.id.in_(wanted))).all()
    )
    words = [_indexed_words(prompt, contents.get(version_id)) for prompt, version_id, _ in new]
    postgres = is_postgres(session)
    documents = [
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
    ids: dict[uuid.UUID, int] = dict(session.connection().execute(_INSERT, documents).all())
    if not postgres:
        rows = [
            {"rowid": ids[prompt.id], "words": " ".join([*said[0], *said[1]])}
            for (prompt, _, _), said in zip(new, words, strict=True)
        ]
        session.connection().execute(_INSERT_WORDS, rows)
    return len(new)


def _indexed_words(prompt: Prompt, content: Any) -> tuple[list[str], list[str]]:
    texts = {
        "name": [prompt.name],
        "tags": [*prompt.tags, prompt.category],
        "description": [prompt.description],
        "content": texts_of(content),
    }
    return _words(texts), _marks_of(prompt)


def forget_prompts(session: Session, prompt_ids: Sequence[uuid.UUID]) -> None:
    """Let no search find these. A prompt whose row is deleted is forgotten with it."""
    session.execute(sa.delete(_documents).where(_documents.c.prompt_id.in_(prompt_ids)))


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
    is_the_name = _mark("n", " ".join(word for term in query.terms for word in term.words))
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
        columns = [_documents.c["tags" if facet == "tag" else facet] for facet in FACETS]
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
        return session.scalar(_newest(session, caller, match, _documents.c.id, limit=1)) is not None

    def nearest(word: str) -> str:
        if len(word) not in MISSPELT or finds(Query((Term((word,), is_prefix=True),))):
            return word
        near = scope.within((tuple(_spellings(word)),))
        columns = _documents.c.name, _documents.c.tags
        found = session.execute(_newest(session, caller, near, *columns, limit=100))
        known = {known for name, tags in found for text in (name, *json.loads(tags)) for known in words_of(text)}
        distances = {other: DamerauLevenshtein.distance(word, other) for other in known}
        return min((other for other in known if distances[other] <= 2), key=lambda o: (distances[o], o), default=word)

    terms = tuple(replace(term, words=tuple(map(nearest, term.words))) for term in query.terms[:8])
    meant = replace(query, terms=(*terms, *query.terms[8:]))
    return str(meant) if meant != query and finds(meant) else None


def _hits(session: Session, caller: Caller, page: Sequence[tuple[str | None, Any]], query: Query) -> list[Hit]:
    prompts = (
        sa.select(Prompt, SearchDocument.version_id)
        .join(SearchDocument, SearchDocument.prompt_id == Prompt.id)
        .where(Prompt.workspace_id == caller.workspace_id, Prompt.id.in_([row.prompt_id for _, row in page]))
    )
    versions = sa.select(Version.id, Version.number, Version.content).where(
        Version.id.in_([row.version_id for _, row in page if row.version_id is not None])
    )
    found = {prompt.id: prompt for prompt, _ in session.execute(prompts)} if page else {}
    contents = {row.id: row for row in session.execute(versions)} if page else {}
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
    is_shown = [_documents.c.project_id.not_in(match.hidden_projects)] if match.hidden_projects else []
    if not is_postgres(session):
        # FTS5 goes through its matches from the highest rowid down. The sign keeps SQLite from beginning with the index
        # of workspaces and asking FTS5 about one row after the other. The workspace is a mark too: this keeps it even
        # if the index should ever be wrong (I10).
        workspace: sa.ColumnElement[uuid.UUID] = sa.literal_column("+search_documents.workspace_id", sa.Uuid)
        found = (
            sa.select(*columns)
            .select_from(_fts.join(_documents, _documents.c.id == _fts.c.rowid))
            .where(
                sa.text("search_fts MATCH :expression").bindparams(expression=_fts5(match)),
                workspace == caller.workspace_id,
                *is_shown,
            )
        )
        if before is not None:
            found = found.where(_fts.c.rowid < before)
        return found.order_by(_fts.c.rowid.desc()).limit(limit)
    # PostgreSQL guesses how common a word is, and a wrong guess costs a hundred times the right plan, so it is told: to
    # read the newest documents until enough match (the function is one that no index helps with), or to look the words
    # up and sort what they lead to.
    asked = _asked(match)
    own = sa.select(_documents.c.id.label("document_id"), *columns).where(
        _documents.c.workspace_id == caller.workspace_id, *is_shown
    )
    if before is not None:
        own = own.where(_documents.c.id < before)
    if match.may_be_common and _is_common(session, caller, match):
        newest = own.where(sa.func.ts_match_vq(_documents.c.words, asked)).order_by(_documents.c.id.desc()).limit(limit)
        return newest.with_only_columns(*columns)
    looked_up = (
        own.where(_documents.c.words.bool_op("@@")(asked))
        .cte("looked_up")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    found = sa.select(*(looked_up.c[column.key] for column in columns))
    return found.order_by(looked_up.c.document_id.desc()).limit(limit)


def _asked(match: _Match) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(_tsquery(match), sa.Text), TSQUERY)


def _is_common(session: Session, caller: Caller, match: _Match) -> bool:
    newest = (
        sa.select(_documents.c.words)
        .where(_documents.c.workspace_id == caller.workspace_id)
        .order_by(_documents.c.id.desc())
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
        return "(" + one.join(phrase(term, _LETTERS[field]) for field in fields) + ")"

    def condition(match: _Match, marks: Iterable[tuple[str, ...]]) -> str:
        groups = ["(" + one.join(map(marked, group)) + ")" for group in marks]
        return "(" + every.join([*groups, *(anywhere(term, match.fields) for term in match.terms)]) + ")"

    unwanted = [anywhere(term, FIELDS) for term in match.excluded]
    if match.instead:
        more = [group for group in match.instead.marks if group not in match.marks]
        unwanted.append(condition(match.instead, more))
    return condition(match, match.marks), unwanted


# Marks are words that nobody can type: where a prompt belongs, its exact values, and how its words may be misspelt.


def _mark(kind: str, value: str) -> str:
    return f"¦{kind}{sha256(value)[:16]}"


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
    return tuple((_mark(facet[0], value),) for facet, value in values.items() if value is not None)


def _marks_of(prompt: Prompt) -> list[str]:
    named = words_of(" ".join([prompt.name, *prompt.tags, prompt.category]))
    return sorted(
        {
            f"¦w{prompt.workspace_id.hex}",
            f"¦p{prompt.project_id.hex}",
            _mark("n", " ".join(words_of(prompt.name))),
            _mark("c", prompt.category),
            _mark("m", prompt.mode),
            _mark("l", prompt.lifecycle),
            _mark("o", prompt.owner_team),
            *(_mark("t", tag) for tag in prompt.tags),
            *(spelling for word in named[:30] for spelling in _spellings(word)),
        }
    )


def _spellings(word: str) -> list[str]:
    """The word and what is left of it without any one letter. Two words one slip apart have one of these in common."""
    if len(word) not in MISSPELT:
        return []
    return sorted({f"¦s{word}", *(f"¦s{word[:place]}{word[place + 1 :]}" for place in range(len(word)))})


def _words(texts: Mapping[str, Iterable[str]]) -> list[str]:
    """The words of all fields in order, each behind the letter of its field; a gap where a text ends."""
    words: list[str] = []
    size = 0
    for field in FIELDS:
        for text in texts[field]:
            for word in words_of(text):
                size += len(word.encode())
                if len(words) >= MOST_WORDS or size > MOST_BYTES:
                    return words
                words.append(_LETTERS[field] + word)
            words.append(_GAP)
    return words


def _tsvector(words: Sequence[str], marks: Sequence[str]) -> str:
    """Words with their places; marks without."""
    places: dict[str, list[str]] = {}
    for place, word in enumerate(words, start=1):
        if word != _GAP:
            places.setdefault(word, []).append(str(place))
    return " ".join([*(f"'{word}':{','.join(at[:255])}" for word, at in places.items()), *(f"'{m}'" for m in marks)])


def _fingerprint(prompt: Prompt, version_id: uuid.UUID | None) -> str:
    """Equal for what would be indexed equally. A version never changes, so its id stands for its content."""
    fields = "name description category tags mode lifecycle owner_team".split()
    ids = [str(prompt.project_id), str(version_id)]
    return f"{FORMAT}.{hash_of([*ids, *(getattr(prompt, field) for field in fields)])[:48]}"


def _current() -> sa.Select[uuid.UUID, uuid.UUID, str]:
    """The version whose content is searched, and the fingerprint of what is indexed."""
    latest = sa.and_(Version.prompt_id == Prompt.id, Version.number == Prompt.last_version_number)
    return (
        sa.select(Prompt.id, sa.func.coalesce(Label.version_id, Version.id, type_=sa.Uuid), SearchDocument.fingerprint)
        .select_from(Prompt)
        .outerjoin(Label, sa.and_(Label.prompt_id == Prompt.id, Label.name == PRODUCTION))
        .outerjoin(Version, latest)
        .outerjoin(SearchDocument, SearchDocument.prompt_id == Prompt.id)
        .where(Prompt.id.in_(IDS))
    )


# Built once: to build them for each write costs more than to run them.
_CURRENT = _current()
_INSERT = sa.insert(_documents).returning(_documents.c.prompt_id, _documents.c.id)
_INSERT_WORDS = sa.insert(_fts)
