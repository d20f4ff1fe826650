"""gunicorn for the API: a few processes of many threads; half of the threads may wait for runs."""

import os
import tempfile

from shared.config import settings

# Counters of all processes are summed at scrape time from files in here.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="promptmill-metrics-"))

from prometheus_client import multiprocess  # it reads the variable when it is imported

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
worker_class = "gthread"
workers = settings().web_processes
threads = settings().web_threads
timeout = 60
graceful_timeout = 30
keepalive = 30
preload_app = True  # imported once; the engine and the Redis client are made after the fork, on first use
loglevel = "warning"


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
