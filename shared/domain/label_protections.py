"""Who may move a label: a role or those above it, or nobody without a second person. It may stand before the label."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events
from shared.domain.events import Change
from shared.domain.label_moves import lock_prompt
from shared.domain.names import check_label
from shared.domain.tenants import Caller
from shared.errors import Forbidden
from shared.models import LabelProtection, Prompt, Role


def find_protection(session: Session, prompt_id: uuid.UUID, name: str) -> LabelProtection | None:
    return session.get(LabelProtection, (prompt_id, name), populate_existing=True)


def check_role(caller: Caller, prompt: Prompt, protection: LabelProtection | None) -> None:
    """`Forbidden` when the label is protected by a higher role than the caller's."""
    if protection is not None and protection.role and not caller.has(Role(protection.role)):
        raise Forbidden(
            f"the label {protection.label!r} of {prompt.name} is protected: it takes the role {protection.role};"
            f" the key has {caller.role}"
        )


def protect_label(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    name: str,
    *,
    role: Role | None = None,
    approvals: int | None = None,
) -> LabelProtection | None:
    """Let a label be moved by this role or a higher one only, or with a second person's consent; neither: by all.

    What takes an administrator to move takes one to protect so, and to free again; all else takes an operator.
    """
    check_label(name)
    lock_prompt(session, prompt)
    before = find_protection(session, prompt.id, name)
    caller.require(Role.ADMIN if Role.ADMIN in (role, before and before.role) else Role.OPERATOR)
    if (role, approvals) == ((before.role, before.approvals) if before else (None, None)):
        return before
    kind = "prompt.label_protected"
    if role is None and approvals is None:
        session.delete(before)
        kind, before = "prompt.label_unprotected", None
    elif before is None:
        before = LabelProtection(prompt_id=prompt.id, label=name, workspace_id=prompt.workspace_id)
        session.add(before)
    if before is not None:
        before.role, before.approvals = role, approvals
        before.set_by, before.set_at = caller.user_name, session.scalars(sa.select(db_now())).one()
    session.flush()
    data = {"label": name, "role": role, "approvals": approvals}
    events.record(session, [Change(prompt.workspace_id, kind, prompt.id, data, caller.user_name)])
    return before
