"""A worker whose clock is wrong by FAULTS_CLOCK_SECONDS: `python -m tests.faults.skewed_worker -A worker.tasks worker`.

It shifts the clock before anything else is imported, so Celery and everything of ours read the wrong time.
"""

import datetime
import os
import time

_offset = float(os.environ["FAULTS_CLOCK_SECONDS"])
_time, _time_ns = time.time, time.time_ns


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.now(datetime.UTC).replace(tzinfo=None)


if __name__ == "__main__":
    time.time = lambda: _time() + _offset
    time.time_ns = lambda: _time_ns() + int(_offset * 1e9)
    datetime.datetime = _Datetime  # type: ignore[misc]

    from celery.__main__ import main

    main()
