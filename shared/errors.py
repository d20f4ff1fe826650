"""The one catalogue of errors that a caller can see: a kind per status, leaves with a stable code.

The first line of a docstring is the title that the user reads. A worker-side failure of a
provider call is a `ProviderError`: it says whether to retry, and whether money may have been spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One wrong field, and what is wrong with it.

    `pointer` is a JSON pointer into the body (`/params/temperature`; RFC 6901's empty text is the whole body),
    `?name` of a query parameter, or a header's name.
    """

    pointer: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.detail}" if self.pointer else self.detail


class PromptmillError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_seconds: int | None = None

    def __init__(self, detail: str = "", *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail or self.title())
        self.detail = detail
        self.errors = tuple(errors)

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")


class BadRequest(PromptmillError):
    """The request cannot be read."""

    status, code = 400, "bad_request"


class Unauthorized(PromptmillError):
    """A valid API key is required."""

    status, code = 401, "unauthorized"


class Forbidden(PromptmillError):
    """This API key may not do that."""

    status, code = 403, "forbidden"


class NotFound(PromptmillError):
    """There is no such thing here."""

    status, code = 404, "not_found"

    def __init__(self, detail: str = "", *, fields: Sequence[str] = ()) -> None:
        """`fields`: the names that this may have been asked for by; the API knows which, and where it stood."""
        super().__init__(detail)
        self.fields = tuple(fields)


class Conflict(PromptmillError):
    """The request conflicts with the current state."""

    status, code = 409, "conflict"


class AlreadyExists(Conflict):
    """That name is taken."""

    code = "already_exists"


class IdempotencyInProgress(Conflict):
    """The first request with this Idempotency-Key is still in progress."""

    code = "idempotency_in_progress"
    retry_after_seconds = 1


class PreconditionFailed(PromptmillError):
    """It is not as the request expects it to be."""

    status, code = 412, "precondition_failed"

    def __init__(self, detail: str = "", *, etag: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        """`etag`: the current one; None when the thing does not exist."""
        super().__init__(detail, errors=errors)
        self.etag = etag


class PromotionRefused(Conflict):
    """The result does not meet the rule of the promotion."""

    code = "promotion_refused"


class RelationshipCycle(Conflict):
    """That relationship would close a circle."""

    code = "relationship_cycle"


class BodyTooLarge(PromptmillError):
    """The request body is too large."""

    status, code = 413, "body_too_large"


class UnsupportedMediaType(PromptmillError):
    """The body is of a kind that is not read here."""

    status, code = 415, "unsupported_media_type"


class Unprocessable(PromptmillError):
    """The request has invalid fields."""

    status, code = 422, "invalid_fields"


class IdempotencyMismatch(Unprocessable):
    """This Idempotency-Key was used with another request body."""

    code = "idempotency_mismatch"


class InvalidTemplate(Unprocessable):
    """The template is not accepted."""

    code = "invalid_template"


class RenderFailed(Unprocessable):
    """The template cannot be rendered with these variables."""

    code = "render_failed"


class BudgetTooSmall(Unprocessable):
    """The budget is too small for this run."""

    code = "budget_too_small"


class TooManyRequests(PromptmillError):
    """This API key has made too many requests."""

    status, code = 429, "rate_limited"

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class DatabaseBusy(PromptmillError):
    """The database is busy; try again."""

    status, code = 503, "database_busy"
    retry_after_seconds = 1


class TooManyStreams(PromptmillError):
    """As many event streams are open as this process serves."""

    status, code = 503, "too_many_streams"
    retry_after_seconds = 5


class QueueDraining(PromptmillError):
    """The queue takes no new work now."""

    status, code = 503, "queue_draining"
    retry_after_seconds = 30


class ProviderError(Exception):
    """A provider call failed.

    `code` is the error class that is recorded. `retryable` follows the class (timeouts,
    connection errors, 408, 409, 429 and 5xx are; other 4xx are not). `possibly_paid` is true
    when the request had been sent and no answer was read: the provider may have billed it.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retryable: bool,
        possibly_paid: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.possibly_paid = possibly_paid
        self.retry_after_seconds = retry_after_seconds


def field_error(pointer: str, detail: str) -> Unprocessable:
    """The 422 for one wrong field."""
    error = FieldError(pointer, detail)
    return Unprocessable(str(error), errors=[error])
