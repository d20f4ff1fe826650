"""/openapi.json describes every route truly, and /docs shows it without another host."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.api.routes import STUDIO, routes
from tests.support import Api

API = ("/v1/", "/api/v1/")
METHODS = {"get", "put", "post", "delete", "patch"}
NO_ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def document(flask_client: FlaskClient) -> Any:
    answer = flask_client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.get_json()


def operations(document: Any) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """(method, path, operation, its parameters with those of its path)"""
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            parameters = item.get("parameters", []) + item[method].get("parameters", [])
            yield method, path, item[method], parameters


def values(node: Any, key: str) -> Iterator[Any]:
    """Everything that stands under this key, anywhere."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for inner in node.values():
            yield from values(inner, key)
    elif isinstance(node, list):
        for inner in node:
            yield from values(inner, key)


def resolve(document: Any, reference: str) -> Any:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def fetched(client: FlaskClient, path: str) -> str:
    """The body of a file that is there."""
    with client.get(path) as answer:
        assert answer.status_code == 200, path
        return answer.get_data().decode("latin-1")


def test_it_is_an_openapi_3_0_document(document: Any) -> None:
    assert re.fullmatch(r"3\.0\.\d", document["openapi"])
    assert document["info"] == {"title": "Promptmill", "version": "v1"}
    assert set(document) <= {"openapi", "info", "servers", "paths", "components", "security", "tags", "externalDocs"}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


def test_every_route_of_the_api_is_in_it_and_nothing_else_is(document: Any, flask_client: FlaskClient) -> None:
    served = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule))
        for method, rule in routes(flask_client.application)
    }

    described = {(method, path) for method, path, _, _ in operations(document) if path.startswith(API)}

    assert described == served
    assert len(served) > 25


def test_every_operation_has_a_summary_and_a_response_of_success(document: Any) -> None:
    for method, path, operation, _ in operations(document):
        success = [status for status in operation["responses"] if re.fullmatch(r"2\d\d", status)]
        assert operation["summary"].strip(), (method, path)
        assert success, (method, path)
        assert all("description" in answer or "$ref" in answer for answer in operation["responses"].values())


def test_every_success_says_what_its_body_is(document: Any) -> None:
    for method, path, operation, _ in operations(document):
        for status in set(operation["responses"]) & {"200", "201", "202"}:
            assert list(values(operation["responses"][status], "schema")), (method, path, status)


def test_every_error_is_described_as_a_problem(document: Any) -> None:
    schemas = document["components"]["schemas"]

    assert set(schemas["Problem"]["properties"]) == {
        *("type", "title", "status", "detail", "code", "request_id", "errors")
    }
    assert set(schemas["StudioError"]["properties"]) == {
        *("success", "data", "error", "error_code", "detail", "metadata")
    }
    for method, path, operation, _ in operations(document):
        default = operation["responses"]["default"]
        answer = resolve(document, default["$ref"]) if "$ref" in default else default
        older = "StudioError" if path.startswith(STUDIO) else "StoreError"
        schema = older if path.startswith("/api/v1/") else "Problem"
        assert f"#/components/schemas/{schema}" in list(values(answer, "$ref")), (method, path)
    for name, answer in document["components"]["responses"].items():
        assert set(answer["content"]) <= {"application/problem+json", "application/json"}, name


def test_every_parameter_of_a_path_is_documented_and_none_twice(document: Any) -> None:
    for method, path, _, parameters in operations(document):
        documented = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
        places = [(parameter["in"], parameter["name"]) for parameter in parameters]
        assert sorted(documented) == sorted(re.findall(r"{(\w+)}", path)), (method, path)
        assert len(places) == len(set(places)), (method, path)
        assert all("schema" in parameter for parameter in parameters), (method, path)
        assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path"), (method, path)


def test_every_parameter_that_a_view_reads_is_in_it_beside_the_headers(
    document: Any, flask_client: FlaskClient
) -> None:
    """A documented header once took the place of all query parameters of its operation."""
    app = flask_client.application
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/v1/"):
            continue
        read = getattr(app.view_functions[rule.endpoint], "_apidoc", {})
        arguments = read.get("arguments", {}).get("parameters", [])
        schemas = [argument["schema"] for argument in arguments if argument["in"] == "query"]
        expected = {("query", field.data_key or name) for schema in schemas for name, field in schema.fields.items()}
        expected |= {("header", one["name"]) for one in read.get("manual_doc", {}).get("parameters", [])}
        item = document["paths"][re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)]
        for method in METHODS & {method.lower() for method in rule.methods or ()}:
            assert {(one["in"], one["name"]) for one in item[method].get("parameters", [])} == expected, rule.rule


def test_options_and_a_405_name_the_methods_that_the_document_has(document: Any, api: Api) -> None:
    for path in (path for path in document["paths"] if path.startswith("/v1/")):
        concrete = re.sub(r"{\w+}", "nobody", re.sub(r"{\w+_id}", NO_ID, path.replace("{job_id}", "1")))
        # An address such as /v1/prompts/search is also that of a prompt, though none may have such a name.
        same = [other for other in document["paths"] if re.fullmatch(pattern(other), concrete)]
        methods = {method.upper() for other in same for method in METHODS & set(document["paths"][other])}

        for method, status in (("OPTIONS", 200), ("TRACE", 405)):
            answer = api.request(method, concrete)
            assert answer.status_code == status
            assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == methods, path


def pattern(path: str) -> str:
    """What an address of the path looks like."""
    return re.sub(r"{\w+}", "[^/]+", re.sub(r"{\w+_id}", "[0-9a-f-]{36}", path.replace("{job_id}", "[0-9]+")))


def test_a_body_of_which_nothing_is_required_may_be_left_out(document: Any) -> None:
    """Each operation said that it needs its body; those that need nothing of it went on without."""
    required = {
        path: operation["requestBody"].get("required", False)
        for _, path, operation, _ in operations(document)
        if "requestBody" in operation
    }

    assert required["/v1/prompts/{name}/labels/{label}/undo"] is False
    assert required["/v1/executions:run"] is True


def test_the_schema_of_a_page_is_not_that_of_its_items(document: Any) -> None:
    """The pages of schemas that are not named …Out once took the names of their items."""
    for path in ("/v1/jobs", "/v1/prompts"):
        (reference,) = values(document["paths"][path]["get"]["responses"]["200"], "$ref")
        assert set(resolve(document, reference)["properties"]) == {"data", "next_cursor"}


def test_every_operation_that_reads_a_body_describes_it(document: Any) -> None:
    without = {
        (method, path)
        for method, path, operation, _ in operations(document)
        if method in ("post", "put", "patch") and "requestBody" not in operation
    }

    assert {re.sub("(/{[^/]+})+$", "", path).rpartition("/")[2] for _, path in without} <= set(
        "archive cancel drain pause replay requeue restore resume retry revert unarchive".split()
    )
    for method, path, operation, _ in operations(document):
        for content in values(operation.get("requestBody", {}), "content"):
            assert all(media["schema"] for media in content.values()), (method, path)


def test_every_reference_leads_somewhere(document: Any) -> None:
    references = list(values(document, "$ref"))

    assert len(references) > 30
    for reference in references:
        assert resolve(document, reference), reference


def test_the_documented_limit_is_the_one_that_holds(document: Any) -> None:
    for method, path, _, parameters in operations(document):
        for parameter in parameters:
            if parameter["name"] == "limit" and path.startswith("/v1/"):
                schema = parameter["schema"]
                assert (schema["minimum"], schema["maximum"], schema["default"]) == (1, 100, 50), (method, path)


def test_a_key_is_required_unless_it_says_otherwise(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]

    assert schemes["ApiKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    assert schemes["Bearer"] == {"type": "http", "scheme": "bearer"}
    assert document["security"] == [{"ApiKey": []}, {"Bearer": []}]


def test_the_docs_page_loads_everything_from_here(flask_client: FlaskClient) -> None:
    html = fetched(flask_client, "/docs/")

    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", html)
    files = {path: fetched(flask_client, path) for path in loaded}

    assert '"url": "/openapi.json"' in html
    assert {path.rpartition(".")[2] for path in loaded} == {"css", "js", "png"}
    assert [path for path in loaded if not path.startswith("/docs/")] == []
    for path in (path for path in loaded if path.endswith(".css")):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", files[path]), path


def test_docs_without_the_slash_leads_to_the_page(flask_client: FlaskClient) -> None:
    assert flask_client.get("/docs", follow_redirects=True).status_code == 200
