"""A fleet for each file of the short form: on its DATABASE, and with the ODDITIES that its first test wants."""

from collections.abc import Iterator

import pytest

from tests.conftest import DATABASES
from tests.faults.fleet import Fleet, running_fleet
from tests.servers import temporary_directory


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    oddities = getattr(request.module, "ODDITIES", {})
    with (
        temporary_directory() as home,
        running_fleet(home, database=request.module.DATABASE, oddities=oddities) as running,
    ):
        yield running


def database_like(preferred: str) -> str:
    """That database, or the one that PROMPTMILL_TEST_DATABASES leaves."""
    return preferred if preferred in DATABASES else DATABASES[0]
