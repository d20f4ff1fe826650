"""Requests as a client of Prompt Studio makes them; what they answer is in the envelope."""

from typing import Any

from tests.support import MODEL, Api, make_triage

PREFIX = "/api/v1/prompt-studio"
NOBODY = "00000000-0000-0000-0000-000000000000"


class Studio:
    def __init__(self, api: Api) -> None:
        self.api = api

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        return self.api.request(method, PREFIX + path, body, **options)

    def expect(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The whole envelope, which says the same as the status."""
        answer = self.api.expect(status, method, PREFIX + path, body, **options)
        assert set(answer) - {"detail"} == {"success", "data", "error", "error_code", "metadata"}
        assert answer["success"] is (status < 400)
        return answer

    def data(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
        return self.expect(status, method, path, body, **options)["data"]

    def project(self, name: str = "atlas", **fields: Any) -> Any:
        return self.data(201, "POST", "/projects/", {"name": name, **fields})

    def prompt(self, project: Any, name: str = "greeter", **fields: Any) -> Any:
        body = {"project_id": project["id"], "name": name, "user_prompt": "Say hello to {name}.", **fields}
        return self.data(201, "POST", "/prompts/create", body)


def triage(studio: Studio, *, cases: int = 12) -> tuple[str, str]:
    """(project id, prompt id): a prompt of /v1 with its model, and a dataset to measure it on."""
    make_triage(studio.api, cases=cases)
    version = studio.api.expect(200, "GET", "/v1/prompts/triage/versions/1")
    assert version["model"]["model_name"] == MODEL["model_name"]
    return studio.api.expect(200, "GET", "/v1/projects/default")["project_id"], version["version_id"]
