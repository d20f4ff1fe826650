"""Connections that stay open, spread over the processes of the API."""

import contextlib
import http.client
import signal
import statistics
from collections.abc import Iterator

import psutil

from tests.journeys.stack import Stack, api_alone
from tests.servers import temporary_directory, wait_until

CONNECTIONS = 32
ROUNDS = 5


@contextlib.contextmanager
def two_processes() -> Iterator[tuple[Stack, list[psutil.Process]]]:
    with temporary_directory() as home, api_alone(home, PROMPTMILL_WEB_PROCESSES="2") as stack:
        wait_until(lambda: len(_serving(stack)) == 2, "both processes run")
        yield stack, _serving(stack)


def _serving(stack: Stack) -> list[psutil.Process]:
    """Those that listen at its port, but for the parent of them."""
    family = psutil.Process().children(recursive=True)
    return [child for child in family if not child.children() and _ports(child, psutil.CONN_LISTEN) == [_port(stack)]]


def _port(stack: Stack) -> int:
    return int(stack.up["url"].rsplit(":", 1)[1])


def _ports(process: psutil.Process, status: str) -> list[int]:
    return [found.laddr.port for found in process.net_connections("tcp") if found.status == status]


@contextlib.contextmanager
def connections_to(stack: Stack) -> Iterator[None]:
    """All there before the first request is sent, each answered once and kept open."""
    with contextlib.ExitStack() as opened:
        clients = [http.client.HTTPConnection("127.0.0.1", _port(stack), timeout=20) for _ in range(CONNECTIONS)]
        for client in clients:
            opened.enter_context(contextlib.closing(client)).connect()
        for client in clients:
            client.request("GET", "/health")
        assert [client.getresponse().read() for client in clients] == [b'{"status":"healthy"}\n'] * CONNECTIONS
        yield


def held_by(process: psutil.Process) -> int:
    return len(_ports(process, psutil.CONN_ESTABLISHED))


def test_clients_that_come_at_once_are_spread_over_the_processes() -> None:
    with two_processes() as (stack, processes):
        shares = [_smaller_share(stack, processes) for _ in range(ROUNDS)]
        # In one round the process whose turn it is may not run for longer than the other waits for it.
        assert statistics.median(shares) == CONNECTIONS // 2, shares


def _smaller_share(stack: Stack, processes: list[psutil.Process]) -> int:
    with connections_to(stack):
        held = [held_by(process) for process in processes]
    assert sum(held) == CONNECTIONS
    wait_until(lambda: not any(map(held_by, processes)), "the clients are gone")
    return min(held)


def test_a_process_that_hangs_leaves_its_share_to_the_other() -> None:
    with two_processes() as (stack, processes):
        hanging, awake = processes
        hanging.send_signal(signal.SIGSTOP)
        try:
            with connections_to(stack):
                assert held_by(awake) == CONNECTIONS
        finally:
            hanging.send_signal(signal.SIGCONT)
