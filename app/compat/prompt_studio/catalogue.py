"""Every endpoint that Prompt Studio's documents name, and what answers it."""

from collections.abc import Sequence

from app.compat.catalogue import Endpoint

PREFIX = "/api/v1/prompt-studio"
CASES = "built on datasets"
REALTIME = "WebSocket messages are events of one stream; polling shows the same facts"


def _endpoint(method: str, path: str, note: str = "", successor: str | None = None) -> Endpoint:
    return Endpoint(method, PREFIX + path, successor, note)


CATALOGUE: Sequence[Endpoint] = (
    _endpoint("POST", "/projects/", "in the envelope; a name that is taken is a 409, not the project that has it"),
    _endpoint("POST", "/projects", "the bare object"),
    _endpoint("GET", "/projects/"),
    _endpoint("GET", "/projects"),
    _endpoint("GET", "/projects/get/{id}"),
    _endpoint("GET", "/projects/{id}"),
    _endpoint("PUT", "/projects/update/{id}"),
    _endpoint("DELETE", "/projects/delete/{id}", "hidden; `permanent=true` deletes for good and takes the role admin"),
    _endpoint("POST", "/projects/archive/{id}"),
    _endpoint("POST", "/projects/unarchive/{id}"),
    _endpoint("GET", "/projects/stats/{id}", "`signature_count` is 0: there are no signatures"),
    _endpoint("PATCH", "/projects/{id}", "named by the PRD only", "PATCH /v1/projects/{project}"),
    _endpoint("DELETE", "/projects/{id}", "named by the PRD only", "DELETE /v1/projects/{project}"),
    _endpoint("POST", "/prompts/create", "`{x}` is kept as `{{ x }}`; content decides whether a version is made"),
    _endpoint("POST", "/prompts", "as `/prompts/create`"),
    _endpoint("GET", "/prompts/list/{project_id}", "every version row, newest first"),
    _endpoint("GET", "/prompts", "of every project unless `project_id` names one"),
    _endpoint("GET", "/prompts/get/{id}"),
    _endpoint("GET", "/prompts/history/{id}"),
    _endpoint("PUT", "/prompts/update/{id}", "the next number is one more than the highest, whichever row was changed"),
    _endpoint("POST", "/prompts/revert/{id}/{version}", "moves `production` to that version; no copy is made"),
    _endpoint("POST", "/prompts/execute", "through the queue and the ledger of /v1; 202 when it takes too long"),
    _endpoint("POST", "/prompts/preview"),
    _endpoint("POST", "/prompts/convert", "reads `$x` too"),
    _endpoint("PATCH", "/prompts/{id}", "named by the PRD only", "PATCH /v1/prompts/{name}"),
    _endpoint("DELETE", "/prompts/{id}", "named by the PRD only", "DELETE /v1/prompts/{name}"),
    _endpoint("POST", "/test-cases/create", CASES),
    _endpoint("POST", "/test-cases/bulk", CASES),
    _endpoint("GET", "/test-cases/list/{project_id}", CASES),
    _endpoint("GET", "/test-cases/get/{id}", CASES),
    _endpoint("PUT", "/test-cases/update/{id}", CASES),
    _endpoint("DELETE", "/test-cases/delete/{id}", CASES),
    _endpoint("POST", "/test-cases/import", CASES),
    _endpoint("POST", "/test-cases/import/csv-upload", CASES),
    _endpoint("GET", "/test-cases/import/template", CASES),
    _endpoint("POST", "/test-cases/export/{project_id}", CASES),
    _endpoint("POST", "/test-cases/run", CASES),
    _endpoint("POST", "/test-cases/generate", CASES),
    _endpoint("POST", "/evaluations", "200 when it ended while the request waited, else 202; `metrics` are measured"),
    _endpoint("GET", "/evaluations", "of your workspace and projects only"),
    _endpoint("GET", "/evaluations/{id}"),
    _endpoint(
        "DELETE",
        "/evaluations/{id}",
        "409: an evaluation says what was paid for; cancel ends one that runs",
        "POST /v1/evaluations/{evaluation_id}/cancel",
    ),
    _endpoint("GET", "/evaluations/background/ping", "a helper of the original's tests", "GET /health"),
    _endpoint("POST", "/optimizations/create", "one run, one executor; `budget_limit` is held before money is spent"),
    _endpoint("POST", "/optimizations", "`{id, status}`, validated like `/optimizations/create`"),
    _endpoint("GET", "/optimizations/list/{project_id}"),
    _endpoint("GET", "/optimizations/get/{id}"),
    _endpoint("GET", "/optimizations/{job_id}", "the job's id is the optimization's"),
    _endpoint("POST", "/optimizations/cancel/{id}", "409 if it has ended; canceling again changes nothing"),
    _endpoint("GET", "/optimizations/strategies", "those that search, with every knob"),
    _endpoint("GET", "/optimizations/history/{id}"),
    _endpoint("GET", "/optimizations/iterations/{id}", "the candidates that were tried, each once"),
    _endpoint(
        "POST",
        "/optimizations/iterations/{id}",
        "409: iterations are measured, not told; evaluate a version of your own",
        "POST /v1/evaluations",
    ),
    _endpoint("POST", "/optimizations/compare", "one optimization for each strategy, all under the same ceiling"),
    _endpoint("POST", "/optimizations/compare-strategies", "as `/optimizations/compare`"),
    _endpoint("GET", "/status", "with the oldest job's age and warnings; an error is never a 200"),
    _endpoint("WS", "/ws", REALTIME, "GET /v1/events"),
    _endpoint("WS", "/ws/{project_id}", REALTIME, "GET /v1/events"),
    _endpoint("GET", "/ws", "server-sent events", "GET /v1/events"),
)
