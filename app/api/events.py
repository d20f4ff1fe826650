"""/v1/events: what changed, as a stream (SSE) or by polling. Both show the same events in the same order."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import flask
import marshmallow as ma

from app import waiting
from app.api import PageQuery, blueprint
from app.api.content import Length
from app.auth import caller, is_good, key_of_request
from shared.db import reading
from shared.domain import event_feed
from shared.domain.event_feed import Position
from shared.domain.tenants import Caller
from shared.errors import TooManyStreams
from shared.hashing import dump_json
from shared.models import Event

POLL_SECONDS = 0.5
BEAT_SECONDS = 15.0  # a line that says nothing, so that no proxy takes the stream for dead
STREAM_SECONDS = 300.0  # then it ends; clients come back with the id of the last event
STREAM = "text/event-stream"

blp = blueprint("events", "What changed: live progress of runs, and the history of everything.")


class EventsQuery(ma.Schema):
    subject = ma.fields.UUID(load_default=None, metadata={"description": "Of this run, prompt, project… only"})
    types = ma.fields.String(
        load_default="",
        validate=Length(max=500),
        metadata={"description": "Comma separated: whole types (`optimization.round`) or subjects (`optimization`)"},
    )
    after = ma.fields.String(
        load_default=None,
        validate=Length(1, 64),
        metadata={
            "description": "A cursor of this API, `begin` or `now`. Left out: `begin` of a subject, else `now`."
            " `Last-Event-ID` is read in its place."
        },
    )
    limit = PageQuery._declared_fields["limit"]


class EventOut(ma.Schema):
    cursor = ma.fields.String()
    type = ma.fields.String()
    subject_id = ma.fields.UUID()
    actor = ma.fields.String()
    data = ma.fields.Raw()
    created_at = ma.fields.DateTime()


class EventsOut(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(EventOut))
    next_cursor = ma.fields.String(metadata={"description": "Poll with it as `after`; it is given at the end too"})


@blp.get("/events")
@blp.doc(
    parameters=[
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "schema": {"type": "string"},
            "description": "What a reconnecting EventSource sends: the id of the last event that it got.",
        }
    ]
)
@blp.arguments(EventsQuery, location="query")
@blp.response(200, EventsOut)
@blp.alt_response(204, description="A stream of a run that has ended, all of which was read: do not come back")
def list_events(query: dict[str, Any]) -> flask.Response:
    """Follow what changes: a page, or with `Accept: text/event-stream` a stream

    Oldest first, in an order in which nothing is ever added before what was read. A stream of a run ends with it.
    """
    reader, subject = caller(), query["subject"]
    types = [one.strip() for one in query["types"].split(",") if one.strip()]
    with reading() as session:
        event_feed.check_subject(session, reader, subject)
        position = _position(session, query)
    options = {"subject_id": subject, "types": types}
    if flask.request.accept_mimetypes.best_match(["application/json", STREAM]) == STREAM:
        return _stream(reader, position, options)
    with reading() as session:
        found, last = event_feed.read(session, reader, after=position, limit=query["limit"], **options)
        rows = [_rendered(event) for event in found]
    return flask.jsonify({"data": rows, "next_cursor": event_feed.cursor_of(last)})


def _position(session: Any, query: dict[str, Any]) -> Position:
    given = flask.request.headers.get("Last-Event-ID")
    if given is not None:
        return event_feed.position_of(given, "Last-Event-ID")
    after = query["after"] or ("begin" if query["subject"] else "now")
    if after == "begin":
        return event_feed.BEGINNING
    return event_feed.now(session) if after == "now" else event_feed.position_of(after)


def _stream(reader: Caller, position: Position, options: dict[str, Any]) -> flask.Response:
    with reading() as session:
        if event_feed.is_over(session, reader, after=position, **options):
            return flask.Response(status=204)  # an EventSource that is told so stays away
    if not waiting.take_place():
        raise TooManyStreams("wait a little, or poll: the same route without Accept: text/event-stream")
    closed = threading.Event()
    stream = _Stream(_frames(reader, key_of_request(), position, options, closed), closed)
    return flask.Response(stream, mimetype=STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


class _Stream:
    """Frames whose place among the waiting is given back once, also if nobody ever asked for the first."""

    def __init__(self, frames: Iterator[str], closed: threading.Event) -> None:
        self._frames = frames
        self._closed = closed

    def __iter__(self) -> Iterator[str]:
        return self._frames

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            waiting.leave_place()


def _frames(
    reader: Caller, key: str, position: Position, options: dict[str, Any], closed: threading.Event
) -> Iterator[str]:
    """Without the request, which has been answered when the first frame is asked for."""
    ends_at, beat_at = time.monotonic() + STREAM_SECONDS, 0.0
    yield f"retry: {int(POLL_SECONDS * 2000)}\n\n"
    while time.monotonic() < ends_at:
        with reading() as session:
            over = event_feed.is_over(session, reader, after=position, **options)
            found, position = event_feed.read(session, reader, after=position, limit=500, **options)
        for event in found:
            yield _frame(event)
        if over and not found:
            return
        if time.monotonic() >= beat_at:
            beat_at = time.monotonic() + BEAT_SECONDS
            if not is_good(key):
                return  # it was revoked meanwhile
            yield ": still here\n\n"
        if not found:
            closed.wait(POLL_SECONDS)


def _rendered(event: Event) -> Any:
    return EventOut().dump(
        {
            "cursor": event_feed.cursor_of(event_feed.position_after(event)),
            **{name: getattr(event, name) for name in ("type", "subject_id", "actor", "data", "created_at")},
        }
    )


def _frame(event: Event) -> str:
    rendered = _rendered(event)
    return f"id: {rendered['cursor']}\nevent: {event.type}\ndata: {dump_json(rendered)}\n\n"
