"""Canonical JSON and the hashes made of it. Two processes, two databases, one hash."""

import hashlib
import json
from typing import Any

# Made once: `json.dumps` makes one for each value, which takes longer than a small value itself.
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_sorting_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def dump_json(value: Any) -> str:
    """JSON as the database keeps it: no NaN, no escapes, no spaces, keys in the order given."""
    return _encoder.encode(value)


def canonical_json(value: Any) -> str:
    """JSON in which equal values have equal text: keys sorted, no NaN, no spaces."""
    return _sorting_encoder.encode(value)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of(value: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return sha256(canonical_json(value))
