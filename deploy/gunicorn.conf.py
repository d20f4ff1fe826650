"""gunicorn for the API: a few processes of many threads; half of the threads may wait for runs."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from shared.config import settings

# Counters of all processes are summed at scrape time from files in one directory. Ours ends with the server;
# one that was given is left to the giver.
own_metrics = None
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    home = os.environ.get("PROMPTMILL_HOME")  # unset where the file system is read-only: then in /tmp
    if home:
        Path(home).mkdir(parents=True, exist_ok=True)
    own_metrics = tempfile.mkdtemp(prefix="promptmill-metrics-", dir=os.path.abspath(home) if home else None)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = own_metrics

from prometheus_client import multiprocess  # noqa: E402 - it reads the variable when it is imported

# BIND: a socket that is open already, `fd://N`, of whoever started us.
bind = os.environ.get("BIND") or f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
worker_class = "app.even_worker.EvenWorker"
workers = settings().web_processes
threads = settings().web_threads
timeout = 60
graceful_timeout = 30
keepalive = 30
preload_app = True  # imported once; the engine and the Redis client are made after the fork, on first use
loglevel = "warning"


def when_ready(server):
    """All that was imported is here for good: no process looks through it for garbage, or copies its pages by that."""
    gc.collect()
    gc.freeze()


def child_exit(server, worker):
    worker.leave()
    multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    if own_metrics:
        shutil.rmtree(own_metrics, ignore_errors=True)
