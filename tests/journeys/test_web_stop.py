"""The API process: what it writes beside the database while it runs, and what is left when it has ended."""

from pathlib import Path

from tests.journeys.stack import api_alone
from tests.servers import temporary_directory


def metrics_in(directory: Path) -> list[Path]:
    return list(directory.glob("promptmill-metrics-*"))


def test_the_counters_of_the_api_lie_in_its_home_and_go_with_it() -> None:
    with temporary_directory() as home:
        elsewhere = set(metrics_in(Path("/tmp")))
        with api_alone(home, TMPDIR=str(home)):
            running = metrics_in(home)
        left = metrics_in(home)

        assert len(running) == 1
        assert left == []
        assert set(metrics_in(Path("/tmp"))) <= elsewhere
