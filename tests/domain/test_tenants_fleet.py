"""Who operates the fleet: a role in a workspace that does, and no role anywhere else (I10)."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from app.admin import main
from shared import db
from shared.domain import tenants
from shared.domain.tenants import Caller
from shared.errors import Forbidden, NotFound
from shared.models import Role, Workspace


def key_of(workspace: str, role: Role = Role.ADMIN, **fields: Any) -> Caller:
    with db.transaction() as session:
        return tenants.create_key(session, workspace=workspace, user="u", role=role, key=tenants.new_key(), **fields)


def operators() -> list[str]:
    with db.reading() as session:
        rows = session.query(Workspace.name).where(Workspace.operates_fleet).order_by(Workspace.name)
        return [row.name for row in rows]


@pytest.mark.parametrize(
    ("workspace", "role", "projects", "may"),
    [
        ("default", Role.ADMIN, None, True),
        ("default", Role.OPERATOR, None, True),
        ("default", Role.EDITOR, None, False),
        ("default", Role.ADMIN, ["default"], False),
        ("elsewhere", Role.ADMIN, None, False),
    ],
)
def test_the_fleet_is_steered_by_operators_of_a_workspace_that_operates_it(
    admin: Caller, workspace: str, role: Role, projects: list[str] | None, may: bool
) -> None:
    caller = key_of(workspace, role, projects=projects)

    with db.reading() as session:
        assert tenants.operates_fleet(session, caller) is may


def test_who_may_not_steer_the_fleet_is_told_what_it_takes(admin: Caller) -> None:
    caller = key_of("elsewhere")

    with db.reading() as session, pytest.raises(Forbidden, match="operator in a workspace that operates the fleet"):
        tenants.require_fleet(session, caller)


def test_bootstrap_gives_the_fleet_to_the_default_workspace_even_when_another_was_first(database: str) -> None:
    key_of("acme")

    for _ in range(2):
        result = CliRunner().invoke(main, ["bootstrap"])
        assert result.exit_code == 0, result.output

    assert operators() == ["default"]


def test_bootstrap_leaves_the_fleet_to_the_workspace_that_has_it(database: str) -> None:
    key_of("platform-team", operates_fleet=True)

    CliRunner().invoke(main, ["bootstrap"])

    assert operators() == ["platform-team"]


def test_without_a_workspace_that_operates_the_fleet_the_error_says_how_to_get_one(database: str) -> None:
    with db.reading() as session, pytest.raises(NotFound, match="bootstrap"):
        tenants.fleet_workspace(session)


def test_a_new_workspace_does_not_operate_the_fleet(admin: Caller, as_user: Callable[..., Any]) -> None:
    as_user(workspace="elsewhere", role=Role.ADMIN)

    assert operators() == ["default"]
