"""What PromptLedger had, and where it is."""

from app.compat.catalogue import Endpoint

CATALOGUE: tuple[Endpoint, ...] = (
    Endpoint("PUT", "/v1/prompts/{name}", None, "a changed description or owner is written too"),
    Endpoint("GET", "/v1/prompts/{name}", None, "more fields"),
    Endpoint(
        "GET",
        "/v1/prompts/{name}/versions",
        None,
        "the list stands under `data`, 1 first unless `order=desc`; `checksum_hash` and `status` are in it",
    ),
    Endpoint("POST", "/v1/prompts/register-code", None, "all of the prompts or none; prompts in full mode are refused"),
    Endpoint("POST", "/v1/prompts/{name}/execute", None, "the other mode is 409, bad fields are 422"),
    Endpoint("GET", "/v1/prompts/{name}/history", None, "`current_version` is the one at `production`"),
    Endpoint("POST", "/v1/executions:run", None, "202 and the Location when the answer takes longer than the wait"),
    Endpoint("POST", "/v1/executions:submit", None, "202"),
    Endpoint(
        "POST", "/v1/executions/run", "POST /v1/executions:run", "`idempotency_key` in the body works as the header"
    ),
    Endpoint("POST", "/v1/executions/submit", "POST /v1/executions:submit", "likewise"),
    Endpoint("GET", "/v1/executions/", "GET /v1/executions", "`total` is that of all pages; `limit` up to 100"),
    Endpoint("GET", "/v1/executions/{execution_id}", None, "what is no id is 404"),
    Endpoint("GET", "/v1/analytics/prompts", None, "with a window, percentiles, failures and cost"),
    Endpoint("GET", "/health", None, '`{"status": "healthy"}`; no key'),
    Endpoint("POST", "/v1/traces/{trace_id}/spans", None, "not taken over: it was planned there, and never made"),
    Endpoint("GET", "/v1/traces/{trace_id}", None, "not taken over: it was planned there, and never made"),
    Endpoint("GET", "/v1/traces/{trace_id}/spans", None, "not taken over: it was planned there, and never made"),
    Endpoint("GET", "/v1/traces/{trace_id}/tree", None, "not taken over: it was planned there, and never made"),
    Endpoint("GET", "/v1/traces/{trace_id}/summary", None, "not taken over: it was planned there, and never made"),
)
