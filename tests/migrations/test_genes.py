"""0031: candidates get genes; those that are there have none, and taking it back touches nothing else of them."""

from alembic.script import ScriptDirectory

import migrations
from tests.migrations.test_migrations import fill, only, rows
from tests.servers import RedisServer

BEFORE = str(ScriptDirectory.from_config(migrations.config()).get_revision("0031").down_revision)


def test_candidates_that_are_older_than_genes_have_none_and_stay_what_they_were(
    empty_database: str, broker: RedisServer
) -> None:
    migrations.upgrade()
    fill()
    before = rows()["candidates"]

    migrations.downgrade(BEFORE)
    without = rows()["candidates"]
    migrations.upgrade()
    after = rows()["candidates"]

    assert before
    assert without == only([name for name in before[0] if name not in ("demos", "params")], before)
    assert only(list(without[0]), after) == without
    assert [(row["demos"], row["params"]) for row in after] == [([], {})] * len(after)
