"""docs/reference/compatibility.md, made of the catalogues and of what the application serves."""

import re
from collections.abc import Iterable, Mapping, Sequence

import flask

from app.compat.catalogue import Endpoint
from app.compat.prompt_ledger.catalogue import CATALOGUE as PROMPT_LEDGER
from app.compat.prompt_store.catalogue import CATALOGUE as PROMPT_STORE
from app.compat.prompt_studio.catalogue import CASES
from app.compat.prompt_studio.catalogue import CATALOGUE as PROMPT_STUDIO

CATALOGUES: Mapping[str, Sequence[Endpoint]] = {
    "Prompt Studio": PROMPT_STUDIO,
    "PromptLedger": PROMPT_LEDGER,
    "Prompt Store": PROMPT_STORE,
}
# How the note of an endpoint begins that is neither served nor has a successor.
ABSENT = ("comes with ", "not taken over: ", CASES)

_HEAD = """\
# Compatibility

Where the endpoints of the earlier systems are. Written by `python -m app.admin compatibility`, from the catalogues in
`app/compat` and from the routes that the application serves; change those, and write it again.

Every address takes an API key (`X-API-Key`, or `Authorization: Bearer`), has true status codes, and refuses unknown
fields and parameters by their name. **here**: *same path* is answered at that very address. **successor**: what does
the same in the API of this service; new clients call that.
"""

_ABOUT = {
    "Prompt Studio": """\
Answers are `{success, data, error, error_code, metadata}`; where the original answered a bare object, so do these. A
list's `metadata` has `page`, `per_page`, `total` and `total_pages`. An error's `error_code` is that of the
[problem](errors.md), and its `metadata.errors` names the fields. Ids are UUIDs, in `id` and `uuid` alike; a prompt's is
that of one version.
""",
    "PromptLedger": """\
Names, bodies and answers are the originals', with fields added. Prompts that no project is named for are those of the
project `default`. Statuses are `queued`, `running`, `succeeded`, `failed`, `canceled`. A version's `status` says what
`production` says: `active` is where it points, `deprecated` where it pointed before, `draft` is all else. Errors are
[problems](errors.md).
""",
    "Prompt Store": """\
Answers are `{success: true, message, data, timestamp, request_id}`, errors `{success: false, message, error_code,
details: {code, errors}, timestamp, request_id}` with the status code of the [problem](errors.md) that they are:
`VALIDATION_ERROR` (400, 422), `NOT_FOUND` (404), `INTERNAL_ERROR` (500), else its code in capitals.

- These addresses see the prompts of one project: the one that the key is limited to, else `default`. A prompt was known
  by category and name; here the **name is unique in the project** and the category an attribute. A name is of letters,
  digits, dots, dashes and underscores; what is not is refused.
- Ids are UUIDs as text. What was taken in the query is taken there and in the body. The body is JSON, also where
  `curl -d` calls it something else. A list that was a whole body there still is.
- `content` is a [template](content.md) and is kept as it is. It is that of the current version: the one at
  `production`, else the latest. Every content that is written moves `production`, and so does a rollback; where
  `production` is [protected](labels.md#protection) the answer has a `label_request_id`, and the content is as before.
- `variables` are those that the content uses. Those that are declared for a template must be all of them.
  `is_template`: it uses any. `is_active`: it is not deleted.
- `usage_count` counts executions. `performance_score` is the mean feedback on them (0 to 1), else the score of the
  newest evaluation, else null.
- `created_by` of a create, `updated_by` of content and `created_by` of a fork are written down as the author. Elsewhere
  `user_id` and `created_by` are read and not used: who did it is whom the key belongs to.
- Creates and bulk operations take `Idempotency-Key`.
- `limit` is 50 unless given, and 100 at most.
""",
}


def page(app: flask.Flask) -> str:
    """The page as Markdown."""
    served = routes(app)
    sections = [
        f"## {system}\n\n{_ABOUT[system]}\n{_table(catalogue, served)}" for system, catalogue in CATALOGUES.items()
    ]
    return "\n".join([_HEAD, *sections])


def routes(app: flask.Flask) -> set[tuple[str, str]]:
    """(method, path) of everything that is served, with `{}` for each parameter."""
    return {
        (method, shape(rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def shape(path: str) -> str:
    """The path without the names of its parameters, which differ from one document to the next."""
    return re.sub(r"<[^>]+>|{[^}]+}", "{}", path)


def is_served(endpoint: Endpoint, served: Iterable[tuple[str, str]]) -> bool:
    return (endpoint.method, shape(endpoint.path)) in served


def _table(catalogue: Sequence[Endpoint], served: set[tuple[str, str]]) -> str:
    rows = [
        f"| `{one.method} {one.path}` | {'same path' if is_served(one, served) else '—'} |"
        f" {f'`{one.successor}`' if one.successor else ''} | {one.note} |"
        for one in catalogue
    ]
    return "\n".join(["| endpoint | here | successor | note |", "|---|---|---|---|", *rows, ""])
