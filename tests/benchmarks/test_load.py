"""The load of the benchmarks: what it counts as latency, and that it hides no refusal."""

import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import Names, Request

READ = Request(method="GET", path="/@name@", headers={"X-Key": "k"}, body=None)
STALL_SECONDS = 0.4


class Server(socketserver.ThreadingTCPServer):
    """Answers each request with `status`; one that asks for /stall stops all answers for a while."""

    allow_reuse_address = True
    daemon_threads = True
    status = "200 OK"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.one_at_a_time = threading.Lock()
        self.asked: list[str] = []


class Answering(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline()).strip():
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            path, body = line.split()[1].decode(), self.rfile.read(length).decode()
            with self.server.one_at_a_time:
                self.server.asked.append(f"{path} {body}".strip())
                if path == "/stall":
                    threading.Event().wait(STALL_SECONDS)
            self.wfile.write(f"HTTP/1.1 {self.server.status}\r\nContent-Length: 2\r\n\r\nok".encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def names(tmp_path: Path, *lines: str) -> Names:
    file = tmp_path / "names.txt"
    file.write_text("\n".join(lines))
    return {"file": str(file), "at": len(lines) - 1, "number": 7}  # the next is the first


def test_at_a_rate_the_wait_behind_a_stall_counts_for_all_that_were_due_meanwhile(
    server: Server, tmp_path: Path
) -> None:
    one_stall = names(tmp_path, "stall", *["quick"] * 99)
    where = {"server": os.getpid(), "port": server.server_address[1]}

    due = load.at_rate(**where, request=READ, names=one_stall, per_s=100, seconds=1, warm_seconds=0)  # type: ignore[arg-type]
    turns = load.in_turn(**where, request=READ, names=one_stall, clients=1, at_most=100, seconds=9)  # type: ignore[arg-type]

    assert due["count"] == turns["count"] == 100
    # Forty of a hundred were due while nothing was answered; to one client, one of a hundred was slow.
    assert due["p95_ms"] > 1000 * STALL_SECONDS / 2 > turns["p95_ms"]


def test_names_and_numbers_are_put_into_path_and_body(server: Server, tmp_path: Path) -> None:
    request = Request(method="PUT", path="/p/@name@", headers={}, body='{"text": "@name@.@number@"}')

    load.in_turn(
        server=os.getpid(),
        port=server.server_address[1],
        request=request,
        names=names(tmp_path, "a", "b"),
        clients=1,
        at_most=3,
        seconds=9,
    )

    assert server.asked == ['/p/a {"text": "a.8"}', '/p/b {"text": "b.9"}', '/p/a {"text": "a.10"}']


def test_requests_that_take_turns_share_a_name_and_a_number(server: Server, tmp_path: Path) -> None:
    create = Request(method="POST", path="/create", headers={}, body="@name@.@number@")

    load.saturate(
        server=os.getpid(),
        port=server.server_address[1],
        requests=[READ, create, READ],
        names=names(tmp_path, "a", "b"),
        connections=1,
        seconds=0.2,
        generator="own",
    )

    assert server.asked[:6] == ["/a", "/create a.8", "/a", "/b", "/create b.9", "/b"]


def test_a_refused_request_fails_the_measurement(server: Server, tmp_path: Path) -> None:
    server.status = "429 Too Many Requests"

    with pytest.raises(AssertionError, match="429"):
        load.saturate(
            server=os.getpid(),
            port=server.server_address[1],
            requests=[READ],
            names=names(tmp_path, "a"),
            connections=2,
            seconds=0.2,
            generator="own",
        )
