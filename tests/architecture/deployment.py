"""The files of a deployment, read as the tests want them."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, SecretStr

from shared.config import Settings

ROOT = Path(__file__).parents[2]
OURS = {"migrate": "release", "api": "web", "worker": "worker", "beat": "beat", "flower": "flower"}  # by Procfile line
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_BASIC_AUTH", "PROMPTMILL_API_KEY"}
LONG_RUNNING = ("api", "worker", "beat", "flower", "postgres", "redis")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return loaded


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def interpolated() -> dict[str, set[str]]:
    """The variables that docker-compose.yml takes from the environment, each with its modifiers: "", "-", "?"."""
    text = re.sub(r"\$\$|^ *#.*$", "", read("docker-compose.yml"), flags=re.MULTILINE)
    found: dict[str, set[str]] = {}
    for name, modifier in re.findall(r"\$\{(\w+)(?::([-?]))?", text):
        found.setdefault(name, set()).add(modifier)
    return found


def procfile() -> dict[str, str]:
    pairs = (line.split(":", 1) for line in read("Procfile").splitlines() if line)
    return {name: command.strip() for name, command in pairs}


def dockerfile() -> list[list[tuple[str, str]]]:
    """The stages, each a list of (instruction, arguments); continued lines are joined."""
    text = re.sub(r"^#.*\n", "", read("deploy/Dockerfile").replace("\\\n", ""), flags=re.MULTILINE)
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, arguments.strip()))
    return stages


def arguments_of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [arguments for name, arguments in stage if name == instruction]


def setting_defaults() -> dict[str, str]:
    """Every setting of the service by the name that is documented, with its default as a text; "" when unset."""
    return {setting_name(field): as_text(Settings.model_fields[field].default) for field in Settings.model_fields}


def setting_name(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias or f"PROMPTMILL_{field.upper()}")


def as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def read(path: str) -> str:
    return (ROOT / path).read_text()
