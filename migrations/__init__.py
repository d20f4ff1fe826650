"""Schema changes: numbered, one subject each, reversible. `upgrade()` is what a deploy runs."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def config() -> Config:
    """The Alembic configuration; the database is the one that `shared.db` is connected to."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return made


def upgrade(revision: str = "head") -> None:
    command.upgrade(config(), revision)


def downgrade(revision: str) -> None:
    command.downgrade(config(), revision)
