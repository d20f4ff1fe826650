"""`python -m app.admin seed`: samples that work, made once; and a great many prompts that no verb could tell apart."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from app import seeds
from app.admin import main
from app.samples import RELATIONSHIPS, SAMPLES
from shared import db
from shared.domain import labels, prompts, tenants
from shared.domain.content import check_content
from shared.domain.tenants import Caller
from shared.models import Event, Execution, Label, LabelMove, Prompt, SearchDocument, State, Version
from tests.rows import count, everything
from tests.servers import RedisServer
from tests.support import Api, Drain

ROOT = Path(__file__).parents[2]


def seed(*options: str) -> Result:
    return CliRunner().invoke(main, ["seed", *options])


def test_the_samples_are_of_many_kinds_and_their_labels_point_at_versions_that_they_have() -> None:
    assert len(SAMPLES) >= 12
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)
    assert {sample.category for sample in SAMPLES} >= {"code", "writing", "analysis", "support", "extraction"}
    assert {type(content) for sample in SAMPLES for _, content in sample.versions} == {str, list}
    for sample in SAMPLES:
        assert all(1 <= number <= len(sample.versions) for number in sample.labels.values()), sample.name
    names = {sample.name for sample in SAMPLES}
    assert all({source, target} <= names for source, _, target in RELATIONSHIPS)


def test_a_seed_makes_every_sample_and_a_fleet_executes_its_runs(api: Api, drain: Drain) -> None:
    result = seed("--yes")

    assert result.exit_code == 0, result.output
    assert f"made {len(SAMPLES)} prompts" in result.output
    for sample in SAMPLES:
        made = api.expect(200, "GET", f"/v1/prompts/{sample.name}")
        assert (made["category"], made["latest_version_number"]) == (sample.category, len(sample.versions))
        assert {row["label"]: row["version_number"] for row in made["labels"]} == dict(sample.labels)
    drain()
    with db.reading() as session:
        states = session.scalars(sa.select(Execution.state)).all()
    assert list(states) == [State.SUCCEEDED] * sum(len(sample.runs) for sample in SAMPLES)
    assert len(api.expect(200, "GET", "/v1/datasets/support-triage-cases/cases")["data"]) == 8


def test_a_second_seed_changes_nothing_and_says_so(api: Api, drain: Drain) -> None:
    seed("--yes", "--prompts", "20")
    drain()
    before = everything()

    again = seed("--yes", "--prompts", "20")

    assert (again.exit_code, "nothing to do" in again.output) == (0, True)
    assert everything() == before


def test_a_seed_leaves_alone_what_somebody_has_changed_since(api: Api) -> None:
    seed("--yes", "--no-executions")
    api.expect(200, "PUT", "/v1/prompts/code-review/labels/production", {"version_number": 1})
    api.expect(200, "PUT", "/v1/prompts/code-review", {"template_source": "Ours", "category": "ours"})

    seed("--yes", "--no-executions")

    ours = api.expect(200, "GET", "/v1/prompts/code-review")
    assert (ours["category"], ours["latest_version_number"]) == ("ours", 3)
    assert ours["active_version"]["version_number"] == 1


def test_more_prompts_than_samples_are_those_of_several_teams(api: Api) -> None:
    seed("--yes", "--no-executions", "--prompts", "18", "--project", "samples")

    with db.reading() as session:
        names = set(session.scalars(sa.select(Prompt.name)))
    assert len(names) == 18
    assert names - {sample.name for sample in SAMPLES} == {f"{sample.name}-north" for sample in SAMPLES[:3]}
    text = api.expect(200, "GET", "/v1/prompts/support-triage-north/versions/1?project=samples")["template_source"]
    assert text.startswith("You work for the north team.")


def test_names_do_not_run_out() -> None:
    names = [sample.name for sample in seeds.samples(1_000)]

    assert len(set(names)) == 1_000


def test_a_workspace_that_does_not_exist_is_named_and_nothing_is_made(admin: Caller) -> None:
    before = everything()

    result = seed("--yes", "--workspace", "nowhere")

    assert result.exit_code == 1
    assert "no workspace named nowhere" in result.output
    assert everything() == before


def test_without_yes_it_asks_and_no_is_taken_for_an_answer(admin: Caller) -> None:
    before = everything()

    result = CliRunner().invoke(main, ["seed"], input="n\n")

    assert result.exit_code == 1
    assert f"{len(SAMPLES)} sample prompts" in result.output
    assert everything() == before


def test_a_large_load_makes_the_rows_that_the_verbs_would_have_made(admin: Caller, broker: RedisServer) -> None:
    result = seed("--yes", "--large", "3", "--versions", "4")
    with db.transaction() as session:
        tenants.create_key(session, workspace="twin", user="seed", role=admin.role, key=tenants.new_key())
        twin = tenants.at_command_line(session, "twin", "seed")
        for number in (1, 2, 3):
            (like,) = session.scalars(sa.select(Prompt).where(Prompt.name == f"bulk-{number:07}"))
            fields = {name: getattr(like, name) for name in ("description", "category", "tags", "owner_team")}
            for place, content in enumerate(seeds.large_contents(number, 4), start=1):
                checked = check_content(template_source=content.body["template_source"])
                made = prompts.upsert(session, twin, like.name, checked, message=f"Version {place}", **fields)
                if place in (1, 4):
                    label = "staging" if place == 1 else "production"
                    labels.move_label(session, twin, made.prompt, label, made.version)

    assert result.exit_code == 0, result.output
    assert "made 3 prompts, 12 versions" in result.output
    assert rows_in(admin) == rows_in(twin)
    assert len(rows_in(admin)["versions"]) == 12


def rows_in(caller: Caller) -> dict[str, list[Any]]:
    """Prompts, versions, labels, their moves and what is searched in a workspace, without ids and times."""
    unlike = {
        "id",
        "workspace_id",
        "project_id",
        "prompt_id",
        "version_id",
        "created_at",
        "updated_at",
        "moved_at",
        # These two hold ids as well; tests/benchmarks asks for what is found.
        "fingerprint",
        "words",
    }
    found: dict[str, list[Any]] = {}
    with db.reading() as session:
        for model in (Prompt, Version, Label, LabelMove, SearchDocument):
            rows = session.scalars(sa.select(model).where(model.workspace_id == caller.workspace_id)).all()
            columns = [column.key for column in sa.inspect(model).columns if column.key not in unlike]
            found[model.__tablename__] = sorted(repr([getattr(row, name) for name in columns]) for row in rows)
    return found


def test_a_large_load_that_broke_off_goes_on_and_one_that_is_done_does_nothing(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr(seeds, "CHUNK", 2)
        next(seeds.plant_many(admin, project="default", count=5, versions=2))
    assert count(Prompt) == 2

    first, second = seed("--yes", "--large", "5", "--versions", "2"), seed("--yes", "--large", "5", "--versions", "2")

    assert ("made 3 prompts, 6 versions" in first.output, "nothing to do" in second.output) == (True, True)
    assert (count(Prompt), count(Version), count(Label)) == (5, 10, 10)
    with db.reading() as session:
        loaded = session.scalars(sa.select(Event.data).where(Event.type == "prompts.loaded")).all()
    assert sum(data["prompts"] for data in loaded) == 5


def test_it_runs_as_the_documented_command(admin: Caller, database: str) -> None:
    command = [sys.executable, "-m", "app.admin", "seed", "--yes", "--no-executions", "--prompts", "2"]

    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)

    assert "made 2 prompts" in done.stdout
    assert count(Prompt) == 2
