"""Filling a workspace: with samples made by the verbs that the API calls, or with a great many prompts at once."""

import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.samples import MODEL, RELATIONSHIPS, SAMPLES, Content, Sample
from shared.bulk_rows import bulk_insert
from shared.db import db_now, transaction
from shared.domain import datasets, events, executions, labels, projects, prompts, relationships, test_cases
from shared.domain.case_files import all_or_nothing, read_rows
from shared.domain.content import Content as VersionContent
from shared.domain.content import check_content
from shared.domain.executions import RunRequest
from shared.domain.names import PRODUCTION, VersionChoice
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, NotFound
from shared.hashing import hash_of, sha256
from shared.models import Dataset, Execution, Label, LabelMove, Prompt, Version, new_id

TEAMS = ("north", "south", "east", "west", "central", "field", "night", "weekend")
CHUNK = 500  # prompts of a large load in one transaction
_SUBJECTS = "tickets invoices contracts articles reviews orders reports mails claims notes".split()
_DEEDS = "classify summarize translate extract rewrite compare explain shorten correct rank".split()
_CATEGORIES = "code writing analysis support extraction translation data".split()


def samples(count: int | None) -> list[Sample]:
    """The first `count` samples; past the shipped ones, the same for one team after the other."""
    if count is None:
        return list(SAMPLES)
    numbered = (
        _for_team(sample, f"{team}{'' if turn == 0 else turn + 1}")
        for turn in itertools.count()
        for team in TEAMS
        for sample in SAMPLES
    )
    return list(itertools.islice(itertools.chain(SAMPLES, numbered), count))


def plant(caller: Caller, sample: Sample, *, project: str) -> Counter[str]:
    """Make a sample with its versions, labels and dataset; what was made. What is there already is left as it is."""
    made: Counter[str] = Counter()
    contents = [_content(content) for _, content in sample.versions]
    with transaction() as session:
        _home(session, caller, project)
        if not _has_prompt(session, caller, sample.name, project):
            made += _plant_prompt(session, caller, sample, contents, project)
        if sample.cases and not _has_dataset(session, caller, f"{sample.name}-cases", project):
            made += _plant_dataset(session, caller, sample, project)
    return made


def relate(caller: Caller, *, project: str) -> Counter[str]:
    """Relate the samples that are there as `app.samples.RELATIONSHIPS` says; what was made."""
    made: Counter[str] = Counter()
    for source, kind, target in RELATIONSHIPS:
        with contextlib.suppress(AlreadyExists), transaction() as session:
            if _has_prompt(session, caller, source, project) and _has_prompt(session, caller, target, project):
                prompt = prompts.get_prompt(session, caller, source, project=project)
                relationships.create(session, caller, prompt, target=target, type=kind)
                made["relationships"] += 1
    return made


def run(caller: Caller, sample: Sample, *, project: str) -> Counter[str]:
    """Submit the sample's runs, each once for ever; a running fleet executes them."""
    made: Counter[str] = Counter()
    for number, variables in enumerate(sample.runs, start=1):
        mark = f"seed-{sample.name}-{number}"
        request = RunRequest(
            sample.name,
            project=project,
            label=PRODUCTION,
            environment="prod" if number % 2 else "dev",
            variables=variables,
            correlation_id=mark,
        )
        with transaction() as session:
            prompt = prompts.get_prompt(session, caller, sample.name, project=project)
            asked = sa.exists().where(Execution.prompt_id == prompt.id, Execution.correlation_id == mark)
            if not session.scalar(sa.select(asked)):
                executions.submit(session, executions.plan(session, caller, request), interactive=False)
                made["executions"] += 1
    return made


def plant_many(caller: Caller, *, project: str, count: int, versions: int) -> Iterator[int]:
    """Make `count` prompts of `versions` versions each by bulk inserts; yields how many prompts each commit made.

    Their rows are those that the verbs would have made (a test compares them), but for the events: one for each
    commit tells of all of it. Those that are there already are passed over, so that a load that broke off goes on.
    """
    for first in range(1, count + 1, CHUNK):
        numbers = range(first, min(first + CHUNK, count + 1))
        with transaction() as session:
            home = _home(session, caller, project)
            names = {number: large_name(number) for number in numbers}
            query = prompts.live().where(Prompt.project_id == home, Prompt.name.in_(names.values()))
            there = set(session.scalars(query.with_only_columns(Prompt.name)))
            wanted = [number for number, name in names.items() if name not in there]
            if wanted:
                _insert(session, caller, home, wanted, names, versions)
        yield len(wanted)


def _plant_prompt(
    session: Session, caller: Caller, sample: Sample, contents: Sequence[VersionContent], project: str
) -> Counter[str]:
    fields: dict[str, Any] = {
        "project": project,
        "description": sample.description,
        "category": sample.category,
        "tags": list(sample.tags),
        "owner_team": sample.owner_team,
    }
    for (message, _), content in zip(sample.versions, contents, strict=True):
        made = prompts.upsert(session, caller, sample.name, content, message=message, **fields)
    for label, number in sample.labels.items():
        version = prompts.get_version(session, made.prompt, VersionChoice(number=number))
        labels.move_label(session, caller, made.prompt, label, version)
    return Counter(prompts=1, versions=len(contents), labels=len(sample.labels))


def _plant_dataset(session: Session, caller: Caller, sample: Sample, project: str) -> Counter[str]:
    rows = [{"inputs": inputs, "expected": expected} for inputs, expected in sample.cases]
    dataset = datasets.create_dataset(
        session, caller, name=f"{sample.name}-cases", description=f"Cases of {sample.name}.", project=project
    )
    imported = test_cases.import_cases(session, caller.user_name, dataset, all_or_nothing(read_rows(rows)))
    return Counter({"datasets": 1, "test cases": imported.added})


def _insert(
    session: Session, caller: Caller, home: uuid.UUID, numbers: Sequence[int], names: dict[int, str], versions: int
) -> None:
    now = session.scalars(sa.select(db_now())).one()
    shared = {"workspace_id": caller.workspace_id, "created_at": now, "created_by": caller.user_name}
    new_prompts, new_versions, new_labels, new_moves = [], [], [], []
    for number in numbers:
        prompt_id = new_id()
        new_prompts.append(
            {
                **shared,
                "id": prompt_id,
                "project_id": home,
                "name": names[number],
                **large_fields(number),
                "updated_at": now,
                "last_version_number": versions,
            }
        )
        contents = large_contents(number, versions)
        ids = [new_id() for _ in contents]
        new_versions += [
            {
                **shared,
                "id": version_id,
                "prompt_id": prompt_id,
                "number": place,
                "content": content.body,
                "template_hash": content.template_hash,
                "content_hash": content.content_hash,
                "variables": list(content.variables),
                "message": f"Version {place}",
            }
            for place, (version_id, content) in enumerate(zip(ids, contents, strict=True), start=1)
        ]
        pointed = {PRODUCTION: ids[-1], "staging": ids[0]}
        for label, version_id in pointed.items():
            moved = {"workspace_id": caller.workspace_id, "moved_by": caller.user_name, "moved_at": now}
            new_labels.append({**moved, "prompt_id": prompt_id, "name": label, "version_id": version_id})
            place = ids.index(version_id) + 1
            new_moves.append({**moved, "prompt_id": prompt_id, "label": label, "to_version": place})
    bulk_insert(session, Prompt, new_prompts)
    bulk_insert(session, Version, new_versions)
    bulk_insert(session, Label, new_labels)
    bulk_insert(session, LabelMove, new_moves)
    told = {"prompts": len(new_prompts), "versions": len(new_versions)}
    events.record(session, [events.Change(caller.workspace_id, "prompts.loaded", home, told, caller.user_name)])


def large_name(number: int) -> str:
    """Of a prompt of a large load, which are numbered from 1."""
    return f"bulk-{number:07}"


def large_fields(number: int) -> dict[str, Any]:
    """What such a prompt says besides its versions."""
    deed, subject = _of(_DEEDS, number), _of(_SUBJECTS, number // 10)
    return {
        "description": f"To {deed} {subject}.",
        "category": _of(_CATEGORIES, number),
        "tags": [deed, subject],
        "owner_team": _of(TEAMS, number),
    }


def large_contents(number: int, versions: int) -> list[VersionContent]:
    """The contents of a prompt of a large load, 1 first.

    One is checked; the others differ from it in a number only, so that they need only be hashed.
    """
    deed, subject = _of(_DEEDS, number), _of(_SUBJECTS, number // 10)

    def source(version: int) -> str:
        return (
            f"You {deed} {subject} for the {_of(TEAMS, number)} team.\n"
            f"Keep to rule {number}.{version}: say what you know, and how you know it.\n\n{{{{ text }}}}"
        )

    first = check_content(template_source=source(1))
    rest = []
    for version in range(2, versions + 1):
        body = {**first.body, "template_source": source(version)}
        rest.append(
            replace(first, body=body, template_hash=sha256(body["template_source"]), content_hash=hash_of(body))
        )
    return [first, *rest]


def _home(session: Session, caller: Caller, project: str) -> uuid.UUID:
    try:
        return projects.get_project(session, caller, project).id
    except NotFound:
        return projects.create_project(session, caller, name=project).id


def _has_prompt(session: Session, caller: Caller, name: str, project: str) -> bool:
    home = _home(session, caller, project)
    return session.scalars(prompts.live().where(Prompt.project_id == home, Prompt.name == name)).first() is not None


def _has_dataset(session: Session, caller: Caller, name: str, project: str) -> bool:
    home = _home(session, caller, project)
    return bool(session.scalar(sa.select(sa.exists().where(Dataset.project_id == home, Dataset.name == name))))


def _content(content: Content) -> VersionContent:
    if isinstance(content, str):
        return check_content(template_source=content, model=MODEL)
    return check_content(messages=content, model=MODEL)


def _for_team(sample: Sample, team: str) -> Sample:
    """The same for one team: another prompt, whose text says whom it works for."""
    line = f"You work for the {team} team.\n\n"
    versions: list[tuple[str, Content]] = []
    for message, content in sample.versions:
        if isinstance(content, str):
            versions.append((message, line + content))
        else:
            first, *others = content
            versions.append((message, [{**first, "content": line + first["content"]}, *others]))
    return replace(sample, name=f"{sample.name}-{team}", versions=versions, tags=[*sample.tags, team])


def _of(words: Sequence[str], number: int) -> Any:
    return words[number % len(words)]
