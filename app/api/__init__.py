"""One file per noun: its schemas at the top, then views that parse, call one domain function and render."""

import re
from typing import Any

import marshmallow as ma
from flask_smorest import Blueprint

from app.auth import authenticate
from app.bodies import StrictParser
from shared.domain.pages import Page


class ApiBlueprint(Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint behind an API key, with our strict body parser."""

    ARGUMENTS_PARSER = StrictParser()


def blueprint(name: str, description: str) -> ApiBlueprint:
    made = ApiBlueprint(name, name, url_prefix="/v1", description=description)
    made.before_request(authenticate)
    return made


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


class PageQuery(ma.Schema):
    limit = ma.fields.Integer(load_default=50, validate=ma.validate.Range(1, 100))
    cursor = ma.fields.String(load_default=None, metadata={"description": "`next_cursor` of the last page"})


class ProjectQuery(ma.Schema):
    project = ma.fields.String(
        load_default=None, metadata={"description": "Project name or id; the default project if left out"}
    )


def page_of(schema: type[ma.Schema]) -> type[ma.Schema]:
    """The schema of one page of these."""
    name = re.sub("Out$", "Page", schema.__name__)
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
