"""Every setting of the service, read once from the environment. Owns no behaviour.

`docs/reference/settings.md` and `deploy/env.example` are kept complete by a test.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import limits
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Values come from `PROMPTMILL_<NAME>`; a few names that other tools share are taken as they are."""

    model_config = SettingsConfigDict(
        env_prefix="PROMPTMILL_", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    home: Path = Field(Path(".promptmill"), description="Where one machine keeps its state.")
    database_url: str = Field(
        "sqlite:///.promptmill/promptmill.db",
        validation_alias=AliasChoices("PROMPTMILL_DATABASE_URL", "DATABASE_URL"),
        description="SQLAlchemy URL; `sqlite:///path` or `postgresql://user:password@host/name`.",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        validation_alias=AliasChoices("PROMPTMILL_REDIS_URL", "REDIS_URL"),
        description="The Celery broker and the wake-up channel. Needs no persistence.",
    )

    api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("PROMPTMILL_API_KEY", "API_KEY"),
        description="`python -m app.admin bootstrap` stores this key (hashed) for the first administrator.",
    )
    max_body_bytes: int = Field(4_000_000, ge=1_000, description="A larger request body answers 413.")
    run_wait_seconds: float = Field(30.0, ge=0, le=300, description="How long `:run` waits by default.")
    web_threads: int = Field(16, ge=2, description="Request threads per API process; half may wait for runs.")
    web_processes: int = Field(2, ge=1, description="API processes behind one port.")
    idempotency_hours: float = Field(24.0, gt=0, description="How long an Idempotency-Key is remembered.")
    rate_limit: str = Field(
        "60000/minute",
        description="Requests of one API key over all processes, such as `100/second; 5000/minute`; `off` for none.",
    )
    cache_megabytes: float = Field(256.0, ge=1, description="What an API process remembers of prompts that it served.")
    cache_seconds: float = Field(3600.0, ge=1, le=86_400, description="How long it is remembered, here and in Redis.")
    metrics_public: bool = Field(False, description="Serve /metrics without an API key.")

    concurrency: int = Field(16, ge=1, le=1000, description="Provider calls in flight per worker process.")
    job_lease_seconds: float = Field(60.0, ge=1, le=3600, description="A silent worker loses its jobs then.")
    heartbeat_seconds: float | None = Field(
        None, gt=0, description="How often leases are renewed; a third of the lease when unset."
    )
    poll_seconds: float = Field(2.0, gt=0, description="How often an idle worker looks for due work.")
    sweep_seconds: float = Field(5.0, gt=0, description="How often expired leases are swept.")
    drain_seconds: float = Field(25.0, ge=0, description="What SIGTERM leaves running work to finish.")

    worker_metrics_port: int = Field(
        0, ge=0, le=65_535, description="Where a worker process serves its /metrics; 0: nowhere."
    )
    worker_metrics_address: str = Field(
        "127.0.0.1", description="The address of that port. It asks for no key: keep it in your network."
    )
    keep_jobs_days: float = Field(
        7.0, gt=0, le=36_500, description="How long jobs that succeeded or were canceled are kept."
    )
    keep_dead_jobs_days: float = Field(
        30.0, gt=0, le=36_500, description="How long jobs that failed are kept, to be looked into and requeued."
    )
    keep_events_days: float = Field(90.0, gt=0, le=36_500, description="How long events are kept.")
    keep_executions_days: float | None = Field(
        None, gt=0, le=36_500, description="How long runs of prompts are kept; for ever when unset."
    )

    model: str | None = Field(None, description="Model name of the demo.")
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    provider_timeout_seconds: float = Field(60.0, gt=0, description="Longest single provider call.")

    simulated_seed: int = Field(0, description="The simulated provider's world.")
    simulated_answers: Path | None = Field(
        None,
        description="JSONL file with the answers that the simulated provider knows; the demo's if unset.",
    )
    simulated_latency_ms: float = Field(60.0, ge=0, description="Median wait of a simulated call; 0 answers at once.")

    simulated_faults: str = Field(
        "", description="How often a simulated call misbehaves: `rate_limited:0.1,server_error:0.05`."
    )

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url")
    @classmethod
    def _name_the_driver(cls, url: str) -> str:
        if url.startswith(("postgresql://", "postgres://")):
            return "postgresql+psycopg://" + url.split("://", 1)[1]
        if not url.startswith(("sqlite:", "postgresql+psycopg:")):
            raise ValueError("must begin with sqlite:// or postgresql://")
        return url

    @field_validator("rate_limit")
    @classmethod
    def _read_the_limits(cls, given: str) -> str:
        if given != "off":
            limits.parse_many(given)  # its error says what it expects
        return given

    @model_validator(mode="after")
    def _beat_within_half_the_lease(self) -> Self:
        if self.heartbeat_seconds is None:
            self.heartbeat_seconds = self.job_lease_seconds / 3
        if self.heartbeat_seconds > self.job_lease_seconds / 2:
            raise ValueError("PROMPTMILL_HEARTBEAT_SECONDS must be at most half of PROMPTMILL_JOB_LEASE_SECONDS")
        return self


@lru_cache
def settings() -> Settings:
    """The settings of this process. Tests that change the environment call `settings.cache_clear()`."""
    return Settings()
