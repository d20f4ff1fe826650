"""What generated requests are aimed at: what `tests.api.routes` has seeded."""

import re
import zlib
from typing import Any

from flask import Flask
from schemathesis.core.parameters import ParameterLocation

from tests.api.routes import address, writes
from tests.support import Api

# Of a body or a query: they name something, so one that was made up is a 404 and goes no further.
NAMES = ("project", "prompt_name", "name", "dataset", "target", "version_number", "label")
FIRST = -1


class Aim:
    """Turns generated requests towards what exists: the first of each operation whole, most others in part.

    The same request is turned the same way whenever it comes, and what is wrong in it by intent stays wrong.
    """

    def __init__(self, app: Flask, owner: Api) -> None:
        self._owner = owner
        self._rules = {
            re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule): rule.rule
            for rule in app.url_map.iter_rules()
            if rule.rule.startswith(("/v1/", "/api/v1/"))
        }
        self._bodies = {(method, rule): body for method, rule, body in writes(app, owner)}
        self._known: dict[str, dict[str, str]] = {}
        self._started: set[str] = set()

    def look(self) -> None:
        """Find an address for each path; one that was found before stays where none can be made of what is listed now,
        if anything is: a request may have emptied a field or put a slash into it."""
        for path, rule in self._rules.items():
            if "{" not in path:
                continue
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
            try:
                match = re.fullmatch(pattern, address(self._owner, rule).partition("?")[0])
            except AssertionError:
                match = None
            if match:
                self._known[path] = match.groupdict()
            else:
                assert path in self._known, f"nothing is seeded for {path}: see tests/api/routes.py"

    def turn(self, case: Any) -> None:
        wrong = {place for place in ParameterLocation if case.meta is not None and case.meta.is_negative_at(place)}
        draw = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "surrogatepass"))
        operation = case.operation
        if not wrong and case.method.lower() == operation.method.lower() and operation.label not in self._started:
            self._started.add(operation.label)
            draw = FIRST
        self._turn_parameters(case, wrong, draw)
        good = self._bodies.get((case.method.upper(), self._rules.get(case.path, "")))
        if good is not None and ParameterLocation.BODY not in wrong:
            turned = _turned(case.body, good, draw)
            if turned is not case.body:  # to set a body that was left out would count as a wrong one
                case.body = turned

    def _turn_parameters(self, case: Any, wrong: set[ParameterLocation], draw: int) -> None:
        # Below /api/v1/prompts a name that is made up may be a word of another route.
        is_aimed = draw % 4 or case.path.startswith("/api/v1/")
        if case.path_parameters and is_aimed and ParameterLocation.PATH not in wrong:
            case.path_parameters = {**case.path_parameters, **self._known.get(case.path, {})}
        if case.query and "project" in case.query and draw % 2 and ParameterLocation.QUERY not in wrong:
            case.query = {**case.query, "project": "default"}
        if "If-Match" in (case.headers or {}) and draw % 2 and ParameterLocation.HEADER not in wrong:
            case.headers = {**case.headers, "If-Match": "*"}


def _turned(body: Any, good: Any, draw: int) -> Any:
    """The body as it was drawn, or with names that exist, or one that works but for one part that was drawn."""
    if draw == FIRST:
        return good
    if isinstance(body, list) and isinstance(good, list):
        return body if draw % 3 == 0 else [*good, *body[:1]]
    if not isinstance(body, dict) or not isinstance(good, dict) or draw % 3 == 0:
        return body
    if draw % 3 == 1:
        return {**body, **{name: good[name] for name in NAMES if name in body and name in good}}
    names = sorted(set(body) - set(NAMES))
    return {**good, **{name: body[name] for name in names[draw // 3 % (len(names) or 1) :][:1]}}
