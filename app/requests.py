"""What every answer carries, whoever gives it."""

import random
import re

ALWAYS = (("X-Content-Type-Options", "nosniff"),)


def name_request(given: str) -> str:
    """One id from the caller's request to the worker's log line: theirs if it is sane, else a new one."""
    return given if re.fullmatch(r"[\w.:-]{1,64}", given) else f"{random.getrandbits(128):032x}"
