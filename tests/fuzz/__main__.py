"""The long form: `make fuzz`, or `python -m tests.fuzz --help`."""

import argparse
import os
import random
import sys
from collections.abc import Sequence

import pytest

from tests.fuzz.options import Options

DATABASES = ("sqlite", "postgresql")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing was found, else 1. The databases, the seed and Redis are those of the tests."""
    options = parse(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}: the same command with --seed {seed} asks the same", file=sys.stderr, flush=True)
    os.environ["PROMPTMILL_TEST_DATABASES"] = " ".join(options.databases or DATABASES)
    Options(options.examples, seed, options.chains, tuple(options.only), is_long=True).store(os.environ)
    return int(pytest.main(["tests/fuzz/test_campaign.py", "-n0", "-s", "--timeout=0", "--tb=short", "--no-header"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="random requests per operation (200)")
    parser.add_argument(
        "--chains", type=int, default=200, help="chains of requests that use each other's answers (200)"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="operations whose name has this part"
    )
    parser.add_argument("--database", action="append", dest="databases", choices=DATABASES)
    parser.add_argument("--seed", type=int, help="of the requests; drawn and printed when left out")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
