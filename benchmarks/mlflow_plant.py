"""Fill an MLflow prompt registry on SQLite. Runs in MLflow's own virtual environment and imports nothing of ours.

    .venv-mlflow/bin/python benchmarks/mlflow_plant.py FILE < prompts.jsonl

Its HTTP API would take hours for a million versions, so rows are inserted in bulk into the tables that its own store
made. That they are the rows that its client writes is checked each time: the first prompt is also registered with
that client in a database beside, and every row of both is compared but for the times. Prints one JSON object.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.prompt.constants import (
    IS_PROMPT_TAG_KEY,
    PROMPT_EXPERIMENT_IDS_TAG_KEY,
    PROMPT_TEXT_TAG_KEY,
    PROMPT_TYPE_TAG_KEY,
    PROMPT_TYPE_TEXT,
)
from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModel,
    SqlRegisteredModelAlias,
    SqlRegisteredModelTag,
)
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

TABLES: list[Any] = [
    table.__table__
    for table in (
        SqlRegisteredModel,
        SqlModelVersion,
        SqlRegisteredModelTag,
        SqlModelVersionTag,
        SqlRegisteredModelAlias,
    )
]
SOURCE = "dummy-source"  # what MLflow's client gives for prompts
TIMES = {"creation_time", "last_updated_time"}
CHUNK = 500  # prompts in one transaction


def main() -> None:
    file = Path(sys.argv[1])
    started = time.monotonic()
    engine = SqlAlchemyStore(f"sqlite:///{file.resolve()}").engine
    lines = map(json.loads, sys.stdin)
    first = next(lines)
    with tempfile.TemporaryDirectory() as beside:
        copy = Path(beside, "client.db")
        shutil.copyfile(file, copy)
        _insert(engine, [first])
        _register(f"sqlite:///{copy}", first)
        compared = _compare(_rows(engine), _rows(sa.create_engine(f"sqlite:///{copy}")))
    prompts = 1
    while chunk := list(islice(lines, CHUNK)):
        _insert(engine, chunk)
        prompts += len(chunk)
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"prompts": prompts, "seconds": seconds, "rows_compared": compared, "mlflow": mlflow.__version__}))


def _insert(engine: Any, prompts: Iterable[Any]) -> None:
    now = int(time.time() * 1000)
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
    for prompt in prompts:
        named = {"workspace": "default", "name": prompt["name"]}
        at = {"creation_time": now, "last_updated_time": now}
        described = {"description": prompt["versions"][0]["message"]}
        rows["registered_models"].append({**named, **at, **described})
        tags = {IS_PROMPT_TAG_KEY: "true", PROMPT_EXPERIMENT_IDS_TAG_KEY: ",0,", **prompt["tags"]}
        rows["registered_model_tags"] += [{**named, "key": key, "value": value} for key, value in tags.items()]
        for number, version in enumerate(prompt["versions"], start=1):
            numbered = {**named, "version": number}
            stored = {"source": SOURCE, "storage_location": SOURCE, "description": version["message"]}
            rows["model_versions"].append({**numbered, **at, **stored})
            tags = {
                IS_PROMPT_TAG_KEY: "true",
                PROMPT_TYPE_TAG_KEY: PROMPT_TYPE_TEXT,
                PROMPT_TEXT_TAG_KEY: version["template"],
            }
            rows["model_version_tags"] += [{**numbered, "key": key, "value": value} for key, value in tags.items()]
        rows["registered_model_aliases"] += [
            {**named, "alias": alias, "version": number} for alias, number in prompt["aliases"].items()
        ]
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(sa.insert(table), rows[table.name])


def _register(url: str, prompt: Any) -> None:
    """The same through MLflow's client."""
    mlflow.set_tracking_uri(url)
    client = MlflowClient(tracking_uri=url, registry_uri=url)
    for version in prompt["versions"]:
        client.register_prompt(prompt["name"], version["template"], commit_message=version["message"])
    for key, value in prompt["tags"].items():
        client.set_prompt_tag(prompt["name"], key, value)
    for alias, number in prompt["aliases"].items():
        client.set_prompt_alias(prompt["name"], alias, number)


def _rows(engine: Any) -> list[str]:
    with engine.connect() as connection:
        tables = [(table, connection.execute(sa.select(table)).mappings()) for table in TABLES]
        return sorted(
            chain.from_iterable(
                (repr((table.name, {name: row[name] for name in row if name not in TIMES})) for row in rows)
                for table, rows in tables
            )
        )


def _compare(ours: list[str], clients: list[str]) -> int:
    if ours != clients:
        unlike = sorted(set(ours) ^ set(clients))
        raise SystemExit("not what MLflow's client writes:\n" + "\n".join(unlike))
    return len(ours)


if __name__ == "__main__":
    main()
