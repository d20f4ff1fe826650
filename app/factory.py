"""The HTTP process: parse, authorise, call `shared.domain`, render. It makes no provider call."""

from types import ModuleType
from typing import Any

import flask
import structlog
from flask_swagger_ui import get_swaggerui_blueprint

from app import addresses, bodies, metrics, problems, rates
from app.api import (
    analytics,
    batches,
    bulk,
    cache,
    case_files,
    content,
    controls,
    datasets,
    drift,
    evaluations,
    events,
    executions,
    feedback,
    generations,
    health,
    jobs,
    labels,
    lifecycle,
    lineages,
    mode_usage,
    modes,
    optimizations,
    plots,
    projects,
    promotions,
    prompt_rows,
    prompts,
    queues,
    relationships,
    replays,
    search,
    status,
    strategy_comparisons,
    suggestions,
    test_cases,
    verdicts,
    versions,
)
from app.compat import prompt_studio
from app.compat.prompt_ledger import executions as ledger_executions
from app.compat.prompt_store.nouns import NOUNS as PROMPT_STORE
from app.compat.prompt_studio import case_files as studio_case_files
from app.compat.prompt_studio import case_runs as studio_case_runs
from app.compat.prompt_studio import drafts as studio_drafts
from app.compat.prompt_studio import evaluations as studio_evaluations
from app.compat.prompt_studio import executions as studio_executions
from app.compat.prompt_studio import optimizations as studio_optimizations
from app.compat.prompt_studio import projects as studio_projects
from app.compat.prompt_studio import prompts as studio_prompts
from app.compat.prompt_studio import searches as studio_searches
from app.compat.prompt_studio import status as studio_status
from app.compat.prompt_studio import test_cases as studio_test_cases
from app.problems import ProblemApi
from app.requests import ALWAYS, name_request
from shared import logs
from shared.config import settings

NOUNS: tuple[ModuleType, ...] = (
    projects,
    prompts,
    prompt_rows,
    modes,
    content,
    versions,
    labels,
    lifecycle,
    cache,
    relationships,
    search,
    bulk,
    datasets,
    test_cases,
    case_files,
    generations,
    executions,
    feedback,
    batches,
    evaluations,
    verdicts,
    optimizations,
    strategy_comparisons,
    plots,
    lineages,
    controls,
    replays,
    promotions,
    analytics,
    mode_usage,
    drift,
    suggestions,
    events,
    jobs,
    queues,
    status,
    studio_projects,
    studio_prompts,
    studio_drafts,
    studio_test_cases,
    studio_case_files,
    studio_case_runs,
    studio_executions,
    studio_evaluations,
    studio_optimizations,
    studio_searches,
    studio_status,
)


def create_app() -> flask.Flask:
    logs.configure("api")
    app = flask.Flask("app", static_folder=None)
    addresses.install(app)
    app.config.update(
        MAX_CONTENT_LENGTH=settings().max_body_bytes,
        API_TITLE="Promptmill",
        API_VERSION="v1",
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/",
        PROPAGATE_EXCEPTIONS=False,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.before_request(_name_the_request)
    app.after_request(_finish)
    app.after_request(rates.tell)
    app.after_request(bodies.drain)
    app.after_request(prompt_studio.in_its_envelope)
    api = ProblemApi(app, spec_kwargs={"components": _SECURITY, "security": [{"ApiKey": []}, {"Bearer": []}]})
    problems.register(app)
    for noun in (*NOUNS, ledger_executions, *PROMPT_STORE):
        api.register_blueprint(noun.blp)
    api.register_blueprint(health.blp)
    app.register_blueprint(get_swaggerui_blueprint("/docs", "/openapi.json", config={"app_name": "Promptmill"}))
    metrics.install(app)
    return app


_SECURITY: dict[str, Any] = {
    "securitySchemes": {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    }
}


def _name_the_request() -> None:
    flask.g.request_id = name_request(flask.request.headers.get("X-Request-Id", ""))
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=flask.g.request_id)


def _finish(response: flask.Response) -> flask.Response:
    response.headers["X-Request-Id"] = flask.g.get("request_id", "")
    response.headers.extend(ALWAYS)
    return response
