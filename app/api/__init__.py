"""One file per noun: its schemas at the top, then views that parse, call one domain function and render."""

import functools
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import flask
import marshmallow as ma
from flask_smorest import Blueprint

from app import addresses, rates
from app.auth import authenticate
from app.bodies import StrictParser, check_query
from app.statuses import error_statuses
from shared.domain.pages import Page


class ApiBlueprint(Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint behind an API key, with our strict body parser and true error statuses."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # First, before the others take apart what they describe; and last, where nothing is written over it.
        self._prepare_doc_cbks.insert(0, self._document_errors)
        self._prepare_doc_cbks.append(self._document_headers)

    def arguments(self, schema: type[ma.Schema], *, location: str = "json", **options: Any) -> Any:
        """A body of which no field is required may be left out, and the document says so."""
        if location == "json":
            options.setdefault("required", any(field.required for field in schema().fields.values()))
        return super().arguments(schema(), location=location, **options)  # a class would be made anew each time

    @staticmethod
    def fails(*also: int, never: Collection[int] = ()) -> Callable[[Any], Any]:
        """Errors that the view answers with, beyond those that `app.statuses` derives; `never`: it does not."""

        def decorate(view: Any) -> Any:
            view._apidoc = {**getattr(view, "_apidoc", {}), "fails": {"also": set(also), "never": set(never)}}
            return view

        return decorate

    def add_url_rule(self, rule: str, *args: Any, **options: Any) -> None:
        super().add_url_rule(rule, *args, **options)
        for method, described in self._docs[self._endpoints[-1]].items():
            if method != "parameters":
                described["rule"] = rule

    @staticmethod
    def _document_errors(doc: Any, described: Any, *, method: str, **_: Any) -> Any:
        statuses = error_statuses(described["rule"], method, described)
        described["headers"] = described.get("manual_doc", {}).pop("parameters", [])
        return {**doc, "responses": {status: HTTPStatus(status).name for status in statuses}}

    @staticmethod
    def _document_headers(doc: Any, described: Any, **_: Any) -> Any:
        """Beside the query's parameters, in whose place flask-smorest would put them."""
        return {**doc, "parameters": [*doc.get("parameters", []), *described["headers"]]}


def blueprint(
    name: str, description: str, *, prefix: str = "/v1", kind: type[ApiBlueprint] = ApiBlueprint
) -> ApiBlueprint:
    made = kind(name, name, url_prefix=prefix, description=description)
    made.before_request(authenticate)
    made.before_request(rates.check)
    made.before_request(addresses.refuse_unstorable)
    made.before_request(_refuse_unknown_parameters)
    return made


def _refuse_unknown_parameters() -> None:
    """On every route, whether it reads the query or not: a parameter that is not read is a misunderstanding."""
    view = flask.current_app.view_functions[flask.request.endpoint or ""]
    check_query(flask.request, _parameters_of(view))


@functools.cache
def _parameters_of(view: Any) -> Sequence[str]:
    """The names that a view reads from its query, in the order of its schema."""
    arguments = getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", [])
    schemas = [argument["schema"] for argument in arguments if argument["in"] == "query"]
    fields = [item for schema in schemas for item in schema.fields.items()]
    return [field.data_key or name for name, field in fields]


class Strict(ma.fields.Float):
    """A number that is written as a number: no "0.5", no true, no NaN."""

    def _validated(self, value: Any) -> float:
        if isinstance(value, str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class WholeNumber(ma.fields.Integer):
    """An integer that is written as one: no "5", no 5.0, no true."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)


class Decimal(ma.fields.Float):
    """A number of a query, in plain digits: none of Python's `1_0`, `nan` or digits of other scripts."""

    def _validated(self, value: Any) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Digits(ma.fields.Integer):
    """A whole number of a query, in plain digits."""

    def _validated(self, value: Any) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Flag(ma.fields.Boolean):
    """`true` or `false` of a query."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(truthy={"true"}, falsy={"false"}, **kwargs)


class Moment(ma.fields.AwareDateTime):
    """A time with its offset, as UTC; one that no calendar holds once it is UTC is a mistake of the caller."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> datetime:
        try:
            return super()._deserialize(*args, **kwargs).astimezone(UTC)
        except OverflowError as error:
            raise self.make_error("invalid", input=args[0], obj_type=self.OBJ_TYPE) from error


def project_field(**kwargs: Any) -> ma.fields.String:
    """A project's name or id. An empty one is a mistake, and not the default project."""
    return ma.fields.String(validate=ma.validate.Length(1), **kwargs)


class PageQuery(ma.Schema):
    limit = Digits(load_default=50, validate=ma.validate.Range(1, 100))
    cursor = ma.fields.String(load_default=None, metadata={"description": "`next_cursor` of the last page"})


class ProjectQuery(ma.Schema):
    project = project_field(
        load_default=None, metadata={"description": "Project name or id; the default project if left out"}
    )


class ListQuery(PageQuery):
    project = project_field(load_default=None, metadata={"description": "Name or id; every project if left out"})


def page_of(schema: type[ma.Schema]) -> type[ma.Schema]:
    """The schema of one page of these."""
    name = re.sub("(Out|Summary)?$", "Page", schema.__name__, count=1)
    return type(
        name,
        (ma.Schema,),
        {
            "data": ma.fields.List(ma.fields.Nested(schema)),
            "next_cursor": ma.fields.String(allow_none=True),
        },
    )


def render_page(schema: ma.Schema, page: Page, rows: Any = None) -> dict[str, Any]:
    return {
        "data": schema.dump(page.data if rows is None else rows, many=True),
        "next_cursor": page.next_cursor,
    }
