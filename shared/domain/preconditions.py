"""If-Match and If-None-Match of a request, held against the ETag that a row has while it is locked."""

from dataclasses import dataclass

from shared.errors import FieldError, PreconditionFailed


@dataclass(frozen=True)
class Precondition:
    """`match`: one of these ETags, or `*` for any that exists. None asks for nothing."""

    match: frozenset[str] | None = None
    must_be_new: bool = False

    def check(self, etag: str | None, what: str) -> None:
        """`PreconditionFailed` with the current ETag; `etag` is None when the thing does not exist."""
        if self.must_be_new and etag is not None:
            raise PreconditionFailed(
                f"{what} exists", etag=etag, errors=[FieldError("If-None-Match", f"{what} exists")]
            )
        if self.match is None or (etag is not None and self.match & {etag, "*"}):
            return
        detail = f"{what} has changed since you read it" if etag is not None else f"{what} does not exist"
        detail += "; read it again"
        raise PreconditionFailed(detail, etag=etag, errors=[FieldError("If-Match", detail)])


ANY = Precondition()
