"""The two modes of a prompt: `full` is managed through the API, `tracking` lives in its user's code.

Code is registered as a whole, when a program starts: what changed becomes a version and the current one. The current
version of either mode is the one that the label `production` points at.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import insert_all_absent
from shared.db import among, db_now
from shared.domain import events, executions, labels, pages, projects, prompts, providers, search_index
from shared.domain.content import Content
from shared.domain.events import Change
from shared.domain.executions import NewExecution, RunRequest
from shared.domain.labels import Target
from shared.domain.names import PRODUCTION
from shared.domain.new_versions import Added, NewVersion, add_versions
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, FieldError, field_error
from shared.models import Execution, Label, LabelRequest, Prompt, Version, new_id, table_of

FULL, TRACKING = "full", "tracking"
MODES = (FULL, TRACKING)
MAX_REGISTERED = 500
NOT_DESCRIBED: Mapping[str, Any] = {"description": "", "category": "", "tags": [], "owner_team": ""}


@dataclass(frozen=True)
class CodePrompt:
    """One prompt as the code has it. Its content is checked; `fields` are the row's that are given."""

    name: str
    content: Content
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)  # of those in NOT_DESCRIBED


@dataclass(frozen=True)
class Registered:
    """What became of one. `previous_version` was current until now; None when nothing was, or nothing changed."""

    name: str
    version: int
    version_id: uuid.UUID
    change_detected: bool  # another version is current than before, or the first one
    previous_version: int | None
    mode: str = TRACKING


def register_code(
    session: Session,
    caller: Caller,
    wanted: Sequence[CodePrompt],
    *,
    project: str | None = None,
    created_by: str | None = None,
) -> list[Registered]:
    """Make each content the current version of its prompt, new or not; all of them or none. In the order given.

    The names differ. Content of an earlier version is that version again. The number of statements does not depend on
    how many prompts there are, and nothing is written for one that is as it was.
    """
    home = projects.get_project(session, caller, project, writing=True)
    author = created_by or caller.user_name
    created = _create_missing(session, caller, home.id, wanted, author)
    found = _lock(session, home.id, [code.name for code in wanted])
    _refuse_others(wanted, found)
    changes = [
        Change(caller.workspace_id, "prompt.created", prompt.id, {"name": prompt.name, "mode": TRACKING}, author)
        for prompt in found.values()
        if prompt.id in created
    ]
    changes += _describe(session, wanted, found, author)
    described = {change.subject_id for change in changes}
    contents = [NewVersion(found[code.name], code.content, author, code.message) for code in wanted]
    versions, made = add_versions(session, contents)
    changes += made
    events.record(session, changes)
    targets = [
        Target(each.prompt, version.id, version.number) for each, version in zip(contents, versions, strict=True)
    ]
    moved = labels.move_labels(session, caller, PRODUCTION, targets)
    _refuse_protected(wanted, found, moved.asked)
    if described:  # what only moved is indexed by now
        # Anew: they were written by statements that these objects have not seen.
        query = sa.select(Prompt).where(Prompt.id.in_(described)).execution_options(populate_existing=True)
        search_index.index_prompts(session, session.scalars(query).all())
    return [
        _registered(each.prompt.name, version, moved.before.get(each.prompt.id))
        for each, version in zip(contents, versions, strict=True)
    ]


def change_mode(session: Session, caller: Caller, prompt: Prompt, mode: str, *, reason: str = "") -> None:
    """Move a prompt, whose row is locked, to the other mode. Versions, labels and executions stay as they are."""
    if prompt.mode == mode:
        return
    change = {"from": prompt.mode, "to": mode, "reason": reason}
    prompt.mode = mode
    prompt.updated_at = db_now()
    session.flush()
    events.record(session, [Change(prompt.workspace_id, "prompt.mode_changed", prompt.id, change, caller.user_name)])
    session.refresh(prompt)
    search_index.index_prompt(session, prompt)


def plan_execution(session: Session, caller: Caller, request: RunRequest) -> NewExecution:
    """As `executions.plan`, of a prompt that lives in code. A model without a provider is looked up. Reads only."""
    prompt, version = executions.resolve(session, caller, request)
    if prompt.mode != TRACKING:
        raise Conflict(
            f"{prompt.name} is in full mode, and only prompts that live in code are executed here;"
            f' run it with POST /v1/executions:run {{"prompt_name": "{prompt.name}"}}'
        )
    settings = version.content.get("model", {})
    if request.model_name is None and not settings:
        raise field_error("/model_name", f"required: version {version.number} carries no model settings")
    if request.model_name is not None and request.provider is None:
        request = replace(request, provider=_provider_of(session, request.model_name, settings.get("provider")))
    return executions.plan(session, caller, request)


def current_version(session: Session, prompt: Prompt) -> int | None:
    """The number of the version at `production`."""
    return session.scalar(
        sa.select(Version.number)
        .join(Label, Label.version_id == Version.id)
        .where(Label.prompt_id == prompt.id, Label.name == PRODUCTION)
    )


def list_history(session: Session, prompt: Prompt, *, limit: int, cursor: str | None) -> Page:
    """Pages of versions, newest first."""
    query = sa.select(Version).where(Version.prompt_id == prompt.id)
    return pages.descending(session, query, Version.number, limit=limit, cursor=cursor)


def count_runs(session: Session, version_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """How often each version was run. The calls of evaluations and optimizations are counted with those."""
    rows = session.execute(
        sa.select(Execution.version_id, sa.func.count())
        .where(Execution.version_id.in_(version_ids), Execution.purpose == "run")
        .group_by(Execution.version_id)
    )
    return {row[0]: row[1] for row in rows if row[0] is not None}


def _create_missing(
    session: Session, caller: Caller, project_id: uuid.UUID, wanted: Sequence[CodePrompt], author: str
) -> set[uuid.UUID]:
    """The ids of the prompts that were made.

    In the order of their names, and before any row is locked: so two that register the same names at once wait for
    each other in one direction only, whatever order they were given in.
    """
    by_name = {code.name: code for code in wanted}
    present = session.scalars(_PRESENT, {"project_id": project_id, "ids": list(by_name)})
    missing = sorted(set(by_name) - set(present))
    rows = [
        {
            "id": new_id(),
            "workspace_id": caller.workspace_id,
            "project_id": project_id,
            "name": name,
            "mode": TRACKING,
            "created_by": author,
            **NOT_DESCRIBED,
            **by_name[name].fields,
        }
        for name in missing
    ]
    return insert_all_absent(session, Prompt, rows)


def _lock(session: Session, project_id: uuid.UUID, names: Sequence[str]) -> dict[str, Prompt]:
    """The prompts by name, locked in the order of their names."""
    rows = session.scalars(_LOCK, {"project_id": project_id, "ids": list(names)})
    return {prompt.name: prompt for prompt in rows}


# Built once: to build them for each batch costs more than to run them.
_NAMED = prompts.live().where(Prompt.project_id == sa.bindparam("project_id"), among(Prompt.name))
_PRESENT = _NAMED.with_only_columns(Prompt.name)
_LOCK = _NAMED.order_by(Prompt.name).with_for_update(key_share=True).execution_options(populate_existing=True)


def _refuse_others(wanted: Sequence[CodePrompt], found: Mapping[str, Prompt]) -> None:
    """`Conflict` when a prompt is managed through the API, or was deleted between the last two statements."""
    if gone := sorted(code.name for code in wanted if code.name not in found):
        raise Conflict(f"{', '.join(gone[:5])} was deleted at this moment; register the code again")
    errors = [
        FieldError(
            f"/prompts/{index}/name",
            f"{code.name} is in full mode: it is changed with PUT /v1/prompts/{code.name}. To keep it in code"
            f' instead, move it with POST /v1/prompts/{code.name}/mode {{"mode": "tracking"}}',
        )
        for index, code in enumerate(wanted)
        if found[code.name].mode != TRACKING
    ]
    if errors:
        raise Conflict("; ".join(error.detail for error in errors[:5]), errors=errors)


def _describe(session: Session, wanted: Sequence[CodePrompt], found: Mapping[str, Prompt], author: str) -> list[Change]:
    """Write the given fields that differ."""
    rows, changes = [], []
    for code in wanted:
        prompt = found[code.name]
        given = {name: value for name, value in code.fields.items() if getattr(prompt, name) != value}
        if given:
            now = {name: getattr(prompt, name) for name in NOT_DESCRIBED} | given
            rows.append({"of": prompt.id, **{f"new_{name}": value for name, value in now.items()}})
            changes.append(Change(prompt.workspace_id, "prompt.updated", prompt.id, given, author))
    if rows:
        session.connection().execute(
            sa.update(table_of(Prompt))
            .where(Prompt.id == sa.bindparam("of"))
            .values(updated_at=db_now(), **{name: sa.bindparam(f"new_{name}") for name in NOT_DESCRIBED}),
            rows,
        )
    return changes


def _refuse_protected(
    wanted: Sequence[CodePrompt], found: Mapping[str, Prompt], asked: Mapping[uuid.UUID, LabelRequest]
) -> None:
    """What code is registered is what that code runs with: it cannot wait for a second person."""
    errors = [
        FieldError(
            f"/prompts/{index}/name",
            f"the label {PRODUCTION} of {code.name} moves only with a second person's approval, which code that starts"
            " cannot wait for; take the protection away, or move the prompt to full mode",
        )
        for index, code in enumerate(wanted)
        if found[code.name].id in asked
    ]
    if errors:
        raise Conflict("; ".join(error.detail for error in errors[:5]), errors=errors)


def _registered(name: str, version: Added, before: int | None) -> Registered:
    """`before`: the number of the version that was current."""
    changed = before != version.number
    return Registered(name, version.number, version.id, changed, before if changed else None)


def _provider_of(session: Session, model_name: str, own: str | None) -> str:
    """The provider of a model that was named without one: the version's own if it has the model, else the only one."""
    known = providers.providers_of(session, model_name)
    if own is not None and (own in known or not known):
        return own
    if len(known) == 1:
        return known[0]
    detail = f"several have {model_name}: {', '.join(known)}" if known else f"no model {model_name} is known"
    raise field_error("/provider", f"required: {detail}")
