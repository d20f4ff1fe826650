"""structlog set-up for every process: one line per event, JSON in production, readable on a terminal."""

import logging
import sys
from functools import partial
from typing import Any

import structlog

from shared.config import settings

_SECRET_NAMES = ("authorization", "api_key", "x-api-key", "password", "secret", "token", "redis_url")


def configure(role: str) -> None:
    """Send structlog and the standard library's loggers through one renderer to stderr."""
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, _redact]
    if settings().log_format == "json":
        # On a terminal the supervisor puts time and role before each line.
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        shared.append(partial(_add_role, role))
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, pad_level=False)
        if settings().log_format == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings().log_level)
    for noisy in (
        "httpx",
        "httpx2",
        "openai",
        "kombu",
        "amqp",
        "celery.worker.strategy",
        "celery.app.trace",
        "celery.beat",
        "alembic",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_role(role: str, logger: Any, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, **fields}


def _redact(logger: Any, method: str, fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name.lower() in _SECRET_NAMES:
            fields[name] = "[redacted]"
    return fields
