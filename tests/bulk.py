"""What tests of bulk operations share: submit one, read it, read its results."""

from typing import Any

from tests.support import Api

PATH = "/v1/bulk/prompts"
OPERATIONS = "/v1/bulk/operations"


def submit(api: Api, operation: str, items: list[Any] | None = None, **fields: Any) -> str:
    """The id of a new operation."""
    body = {"operation": operation, **fields}
    if items is not None:
        body["items"] = items
    return str(api.expect(202, "POST", PATH, body)["operation_id"])


def creates(count: int, *, prefix: str = "p") -> list[dict[str, Any]]:
    return [{"name": f"{prefix}{number:04}", "template_source": f"Text {number}"} for number in range(count)]


def read(api: Api, operation_id: str) -> Any:
    return api.expect(200, "GET", f"{OPERATIONS}/{operation_id}")


def results(api: Api, operation_id: str, query: str = "limit=100") -> list[Any]:
    return list(api.expect(200, "GET", f"{OPERATIONS}/{operation_id}/results?{query}")["data"])


def statuses(api: Api, operation_id: str) -> list[str]:
    return [result["status"] for result in results(api, operation_id)]
