"""What a bulk operation does to one item: a table of verbs, each a call of what the single request calls too.

What an item means is decided here; how a prompt changes never is. So an item may do what its caller may, and it
fails for the same reasons and with the same codes as the request for one prompt would.
"""

import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import labels, lifecycle, prompt_rows, prompts, providers
from shared.domain.content import Content, check_content
from shared.domain.lifecycle import Lifecycle
from shared.domain.names import LATEST, VersionChoice, check_label, check_name
from shared.domain.tenants import Caller, get_visible
from shared.errors import Conflict, NotFound, field_error
from shared.models import LabelRequest, Prompt, Role, table_of

MAX_TAGS = 50
# What makes the content of a version stands in the API's body under the names that the check takes.
CONTENT_FIELDS = tuple(inspect.signature(check_content).parameters)
TARGET_FIELDS = ("prompt_id", "name", "project")


@dataclass(frozen=True)
class Wanted:
    """An item whose fields make sense, with the content that it gives, hashed."""

    fields: Mapping[str, Any]
    content: Content | None = None


@dataclass(frozen=True)
class Applied:
    """What became of an item. `changed` is false when the prompt was already as the item wants it."""

    prompt: Prompt
    version_number: int | None = None
    changed: bool = True


@dataclass(frozen=True)
class Verb:
    apply: Callable[[Session, Caller, Wanted], Applied]
    check: Callable[[Mapping[str, Any]], None] = lambda fields: None
    makes_prompts: bool = False  # else its items name prompts that exist, or a filter finds them
    role: Role = Role.EDITOR


def prepare(operation: str, fields: Mapping[str, Any]) -> Wanted:
    """Check the fields of an item as far as no database is needed. Pure: call it before any transaction."""
    verb = VERBS[operation]
    if verb.makes_prompts:
        check_name(fields["name"])
    elif ("prompt_id" in fields) == ("name" in fields):
        raise field_error("/prompt_id", "give either prompt_id or name")
    elif "prompt_id" in fields and "project" in fields:
        raise field_error("/project", "goes with a name; a prompt_id needs none")
    verb.check(fields)
    given = {name: fields[name] for name in CONTENT_FIELDS if fields.get(name) is not None}
    takes_content = operation in ("create", "update")
    needs_content = verb.makes_prompts or bool(given)
    return Wanted(fields, check_content(**given) if takes_content and needs_content else None)


def apply(session: Session, caller: Caller, operation: str, wanted: Wanted) -> Applied:
    """Do it to one item, in the transaction (or savepoint) that is given."""
    verb = VERBS[operation]
    caller.require(verb.role)
    return verb.apply(session, caller, wanted)


def _create(session: Session, caller: Caller, wanted: Wanted) -> Applied:
    assert wanted.content is not None
    _check_model(session, wanted.content)
    made = prompts.upsert(
        session, caller, wanted.fields["name"], wanted.content, **_beside_content(wanted), must_be_new=True
    )
    return Applied(made.prompt, made.version.number)


def _update(session: Session, caller: Caller, prompt: Prompt, wanted: Wanted) -> int:
    if wanted.content is not None:
        _check_model(session, wanted.content)
    updated = prompts.upsert(
        session,
        caller,
        prompt.name,
        wanted.content or _newest_content(session, prompt),
        project=str(prompt.project_id),
        **_beside_content(wanted, without=TARGET_FIELDS),
    )
    return updated.version.number


def _tag(session: Session, caller: Caller, prompt: Prompt, wanted: Wanted) -> None:
    removed, added = set(wanted.fields.get("remove", ())), wanted.fields.get("add", ())
    tags = list(dict.fromkeys([*(tag for tag in prompt.tags if tag not in removed), *added]))
    if len(tags) > MAX_TAGS:
        raise field_error("/add", f"a prompt has at most {MAX_TAGS} tags; these would be {len(tags)}")
    prompt_rows.update_prompt(session, caller, prompt, {"tags": tags})


def _label(session: Session, caller: Caller, prompt: Prompt, wanted: Wanted) -> int:
    number = wanted.fields.get("version_number")
    choice = VersionChoice(label=LATEST) if number is None else VersionChoice(number=number)
    version = prompts.get_version(session, prompt, choice)
    moved = labels.move_label(session, caller, prompt, wanted.fields["label"], version)
    if isinstance(moved, LabelRequest):
        raise Conflict(f"the label {moved.label!r} moves with a second person's approval only, asked for one by one")
    return version.number


def _delete(session: Session, caller: Caller, prompt: Prompt, wanted: Wanted) -> None:
    prompt_rows.delete_prompt(session, caller, prompt)


def _lifecycle(session: Session, caller: Caller, prompt: Prompt, wanted: Wanted) -> None:
    state, reason = Lifecycle(wanted.fields["state"]), wanted.fields.get("reason", "")
    lifecycle.change_state(session, caller, prompt, state, reason=reason)


def _to_prompt(
    change: Callable[[Session, Caller, Prompt, Wanted], int | None],
) -> Callable[[Session, Caller, Wanted], Applied]:
    """A verb that changes the prompt which an item names; `change` may return the number of the version it is about."""

    def apply(session: Session, caller: Caller, wanted: Wanted) -> Applied:
        prompt = _locked(session, caller, wanted.fields)
        before = _snapshot(session, prompt)
        version_number = change(session, caller, prompt, wanted)
        return Applied(prompt, version_number, changed=_snapshot(session, prompt) != before)

    return apply


def _check_tags(fields: Mapping[str, Any]) -> None:
    if not fields.get("add") and not fields.get("remove"):
        raise field_error("/add", "give tags to add or to remove")
    if both := sorted(set(fields.get("add", ())) & set(fields.get("remove", ()))):
        raise field_error("/remove", f"{both[0]!r} is to be added and removed")


def _check_label(fields: Mapping[str, Any]) -> None:
    check_label(fields["label"])


def _check_update(fields: Mapping[str, Any]) -> None:
    if not set(fields) - set(TARGET_FIELDS):
        raise field_error("", "changes nothing: give content or another field of the prompt")


VERBS: Mapping[str, Verb] = {
    "create": Verb(_create, makes_prompts=True),
    "update": Verb(_to_prompt(_update), _check_update),
    "tag": Verb(_to_prompt(_tag), _check_tags),
    "label": Verb(_to_prompt(_label), _check_label),
    "delete": Verb(_to_prompt(_delete)),
    "lifecycle": Verb(_to_prompt(_lifecycle)),
}


def _locked(session: Session, caller: Caller, fields: Mapping[str, Any]) -> Prompt:
    """The prompt that an item names, locked: what is compared with it must not change before it is written."""
    wanted_id = uuid.UUID(fields["prompt_id"]) if "prompt_id" in fields else None
    name, project = fields.get("name", ""), fields.get("project")
    if wanted_id is not None:
        found = get_visible(session, caller, Prompt, wanted_id)
        name, project = found.name, str(found.project_id)
    # Through the verb that reads a prompt by its name, whatever else it may ask of one.
    prompt = prompts.get_prompt(session, caller, name, project=project, writing=True)
    if wanted_id not in (None, prompt.id):
        raise NotFound(f"no prompt {wanted_id}")
    session.refresh(prompt, with_for_update=True)
    return prompt


def _newest_content(session: Session, prompt: Prompt) -> Content:
    """What the newest version says. Put again it makes no version, so that other fields change alone."""
    version = prompts.get_version(session, prompt, VersionChoice(label=LATEST))
    return Content(version.content, version.template_hash, version.content_hash, tuple(version.variables))


def _beside_content(wanted: Wanted, *, without: Sequence[str] = ("name",)) -> dict[str, Any]:
    return {name: value for name, value in wanted.fields.items() if name not in (*CONTENT_FIELDS, *without)}


def _check_model(session: Session, content: Content) -> None:
    model = content.body.get("model")
    if model:
        quote = providers.quote(session, model["provider"], model["model_name"])
        providers.check_params(quote, model.get("params", {}), "/model/params")


def _snapshot(session: Session, prompt: Prompt) -> list[Any]:
    """All that a verb may change: the row, but for when it was changed, and what its labels point at."""
    session.flush()
    columns = [column for column in table_of(Prompt).columns if column.name != "updated_at"]
    row = session.execute(sa.select(*columns).where(Prompt.id == prompt.id)).one()
    return [*row, [(placed.label, placed.version_number) for placed in labels.list_labels(session, prompt)]]
