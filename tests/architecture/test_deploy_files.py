"""docker-compose.yml and the image. No Docker is needed here; deploy/runbook.md says how to try them with one."""

import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from shared.config import Settings
from tests.architecture.deployment import (
    LONG_RUNNING,
    OURS,
    ROOT,
    SECRETS,
    arguments_of,
    compose,
    dockerfile,
    interpolated,
    procfile,
    read,
    services,
    setting_defaults,
)

# ---- docker-compose.yml -----------------------------------------------------------------------------


def test_compose_runs_the_whole_system() -> None:
    assert set(services()) == {*OURS, "postgres", "redis"}


def test_each_service_of_ours_runs_its_line_of_the_procfile() -> None:
    commands = {name: services()[name]["command"] for name in OURS}

    assert commands == OURS
    assert set(commands.values()) == set(procfile())


def test_everything_of_ours_waits_for_the_migration_and_the_migration_for_the_database() -> None:
    waits = {name: services()[name]["depends_on"] for name in OURS}

    before_migration = waits.pop("migrate")
    assert before_migration == {"postgres": {"condition": "service_healthy"}}
    assert {name: wait["migrate"]["condition"] for name, wait in waits.items()} == dict.fromkeys(
        waits, "service_completed_successfully"
    )


def test_the_migration_runs_once_and_the_others_come_back() -> None:
    policies = {name: service["restart"] for name, service in services().items()}

    assert policies == {"migrate": "no", **dict.fromkeys(LONG_RUNNING, "unless-stopped")}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_has_a_health_check_of_its_own(name: str) -> None:
    check = services()[name]["healthcheck"]

    program = {"postgres": "pg_isready", "redis": "redis-cli"}.get(name, "deploy/healthcheck.py")
    assert program in " ".join(check["test"])
    assert check.get("disable") is not True
    assert name not in OURS or check["test"][-1] == OURS[name]


def test_workers_scale() -> None:
    worker = services()["worker"]

    assert not {"container_name", "hostname", "ports", "deploy"} & set(worker)
    assert re.search(r'-n "\$\{NODE_NAME:-\w+\}@%h"', procfile()["worker"])
    assert worker["environment"]["NODE_NAME"] is None
    assert worker["environment"]["QUEUES"] is None


def test_docker_waits_longer_for_a_worker_than_the_worker_for_its_jobs() -> None:
    patience_seconds = float(services()["worker"]["stop_grace_period"].removesuffix("s"))

    assert patience_seconds > Settings.model_fields["drain_seconds"].default + 5


def test_a_secret_that_is_not_set_stops_compose_with_an_error() -> None:
    required = {name for name, modifiers in interpolated().items() if modifiers == {"?"}}

    assert required == SECRETS


def test_no_secret_stands_in_the_compose_file() -> None:
    environment = [pair for service in services().values() for pair in service["environment"].items()]
    secrets = {name: value for name, value in environment if re.search("PASSWORD|AUTH|KEY|_URL$", name)}

    assert secrets
    assert not {name for name, value in secrets.items() if value is not None and ":?" not in value}


def test_the_administrators_key_reaches_the_migration_only_and_the_providers_key_workers_only() -> None:
    holders = {
        secret: {name for name, service in services().items() if secret in service["environment"]}
        for secret in ("PROMPTMILL_API_KEY", "OPENAI_API_KEY")
    }

    assert holders == {"PROMPTMILL_API_KEY": {"migrate"}, "OPENAI_API_KEY": {"worker"}}


def test_flower_asks_for_a_password() -> None:
    assert services()["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")


def test_every_setting_can_be_given_to_compose() -> None:
    of_one_machine = {"PROMPTMILL_HOME", "PROMPTMILL_MODEL"}
    passed = {name for service in OURS for name in services()[service]["environment"]}

    assert set(setting_defaults()) - passed == of_one_machine


def test_postgres_is_15_or_newer_and_keeps_its_data_in_a_volume() -> None:
    postgres = services()["postgres"]

    assert int(re.fullmatch(r"postgres:(\d+).*", postgres["image"])[1]) >= 15
    assert postgres["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert "postgres" in compose()["volumes"]


def test_redis_is_7_or_newer_has_a_password_and_writes_nothing() -> None:
    redis = services()["redis"]

    script = redis["command"][-1]
    assert int(re.fullmatch(r"redis:(\d+).*", redis["image"])[1]) >= 7
    assert {'save ""', "appendonly no", "requirepass $$REDISCLI_AUTH"} <= set(script.splitlines())
    assert "volumes" not in redis


def test_only_the_api_and_flower_are_published_and_only_on_this_machine_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}

    assert published == {
        "api": ["${PUBLISH_ADDRESS:-127.0.0.1}:${PORT:-8000}:8000"],
        "flower": ["${PUBLISH_ADDRESS:-127.0.0.1}:${FLOWER_PORT:-5555}:5555"],
    }


def test_what_is_published_listens_on_every_address_of_its_container() -> None:
    api, flower = services()["api"]["environment"], services()["flower"]["environment"]

    assert (api["HOST"], api["PORT"]) == ("0.0.0.0", "8000")
    assert (flower["FLOWER_ADDRESS"], flower["FLOWER_PORT"]) == ("0.0.0.0", "5555")


# ---- the image --------------------------------------------------------------------------------------


def test_the_last_stage_builds_nothing_and_takes_the_libraries_from_the_first() -> None:
    build, service = dockerfile()

    built = " ".join(arguments_of(service, "RUN"))
    assert "--from=build /opt/venv /opt/venv" in arguments_of(service, "COPY")
    assert not re.search(r"\b(pip|apt|apt-get|apk|gcc|make|curl|wget)\b", built)
    assert build[0][1].split()[0] == service[0][1].split()[0]  # the virtual environment points at this Python


def test_the_image_holds_exactly_the_locked_runtime_libraries() -> None:
    build, _ = dockerfile()

    installed = " ".join(arguments_of(build, "RUN"))
    assert arguments_of(build, "COPY") == ["requirements.lock ."]
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "-r requirements.lock"):
        assert option in installed


def test_the_image_runs_as_a_user_without_rights() -> None:
    _, service = dockerfile()

    instructions = [name for name, _ in service]
    assert arguments_of(service, "USER") == ["promptmill"]
    assert not {"RUN", "COPY", "ADD"} & set(instructions[instructions.index("USER") :])


def test_the_image_starts_the_api_by_default_and_watches_it() -> None:
    _, service = dockerfile()

    assert arguments_of(service, "ENTRYPOINT") == ['["deploy/run"]']
    assert arguments_of(service, "CMD") == ['["web"]']
    assert arguments_of(service, "HEALTHCHECK")[0].endswith('CMD ["python", "deploy/healthcheck.py", "web"]')


def test_the_service_runs_from_its_checkout() -> None:
    _, service = dockerfile()

    [folder] = arguments_of(service, "WORKDIR")
    assert f"PYTHONPATH={folder}" in " ".join(arguments_of(service, "ENV"))


def test_the_image_holds_what_the_service_imports_and_the_build_may_see_it() -> None:
    sources = {
        source
        for stage in dockerfile()
        for arguments in arguments_of(stage, "COPY")
        if "--from" not in arguments
        for source in arguments.split()[:-1]
    }

    assert {"app", "shared", "worker", "migrations", "Procfile", "deploy/gunicorn.conf.py"} <= sources
    assert not {source for source in sources if not (ROOT / source).exists()}
    assert sources == {rule.removeprefix("!") for rule in ignore_rules() if rule.startswith("!")}


@pytest.mark.parametrize("path", [".env", ".git", ".promptmill", ".venv", "local", "tests", "requirements-dev.lock"])
def test_the_build_never_sees_secrets_state_history_or_tests(path: str) -> None:
    *_, last = [rule for rule in ignore_rules() if fnmatch(path, rule.removeprefix("!"))]

    assert not last.startswith("!")


def ignore_rules() -> list[str]:
    return [line for line in read(".dockerignore").splitlines() if line and not line.startswith("#")]


# ---- deploy/run, the entry point --------------------------------------------------------------------


def run(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    path = {"PATH": os.environ["PATH"]}
    return subprocess.Popen(
        [ROOT / "deploy/run", *arguments], cwd=folder, env=path | environment, stdout=subprocess.PIPE, text=True
    )


def test_the_entry_point_becomes_the_process_that_the_procfile_names(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text('web: false\nworker: printenv "${NODE_NAME:-NOBODY}" HERE\nworkers: false\n')

    process = run(tmp_path, "worker", NODE_NAME="WHERE", WHERE="anywhere", HERE="here")

    assert process.communicate()[0] == "anywhere\nhere\n"
    assert process.returncode == 0


def test_signals_reach_the_process_that_the_entry_point_becomes(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text('web: python3 -c "import os; print(os.getpid())"\n')

    process = run(tmp_path, "web")

    assert process.communicate()[0] == f"{process.pid}\n"


def test_the_entry_point_runs_any_other_command_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: false\n")

    process = run(tmp_path, "echo", "two words", "$HOME")

    assert process.communicate()[0] == "two words $HOME\n"


# ---- what else has to be true of a checkout ---------------------------------------------------------


def test_the_licence_is_the_whole_of_apache_2() -> None:
    text = read("LICENSE")

    assert "Version 2.0, January 2004" in text
    assert "9. Accepting Warranty or Additional Liability." in text
    assert text.rstrip().endswith("limitations under the License.")
