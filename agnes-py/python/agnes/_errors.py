"""One exception for each kind of error: whose move is next. Codes are in docs/errors.md."""

from __future__ import annotations

from typing import Any


class AgnesError(Exception):
    """Anything that went wrong in Agnes."""

    def __init__(
        self,
        message: str,
        kind: str = "internal",
        code: str = "internal",
        hint: str | None = None,
        retryable: bool = False,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, kind, code, hint, retryable, facts)
        self.message = message
        self.kind = kind
        """Whose move is next."""
        self.code = code
        """Stable name of this error."""
        self.hint = hint
        """One thing to try."""
        self.retryable = retryable
        """Whether the same call may succeed later without any change."""
        self.facts = facts
        """Machine-readable facts: limits, names."""

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class InvalidInputError(AgnesError, ValueError):
    """Change the request."""


class QueryRefusedError(AgnesError):
    """The SQL is not one read-only query over granted tables: change it."""


class AccessError(AgnesError, PermissionError):
    """Sign in, or ask for a grant."""

    # PermissionError would print an error number.
    __str__ = AgnesError.__str__


class NotFoundError(AgnesError, LookupError):
    """Check the name."""


class ConflictError(AgnesError):
    """It exists already, or somebody changed it: reload."""


class LimitExceededError(AgnesError):
    """A size, row, memory or time limit: narrow the request."""


class RateLimitedError(AgnesError):
    """Too many at once: wait."""


class UnavailableError(AgnesError):
    """Try again later."""


class UnsupportedError(AgnesError, NotImplementedError):
    """Not offered here: choose another way."""


class ConfigError(AgnesError):
    """The operator has to correct the configuration."""


class DataError(AgnesError):
    """Stored data is damaged, too new or not what it claims to be."""


class InternalError(AgnesError):
    """A bug in Agnes: report it."""


KINDS: dict[str, type[AgnesError]] = {
    "invalid_input": InvalidInputError,
    "query_refused": QueryRefusedError,
    "unauthenticated": AccessError,
    "forbidden": AccessError,
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "limit_exceeded": LimitExceededError,
    "rate_limited": RateLimitedError,
    "unavailable": UnavailableError,
    "unsupported": UnsupportedError,
    "config_invalid": ConfigError,
    "data_invalid": DataError,
    "internal": InternalError,
}


def from_wire(error: dict[str, Any]) -> AgnesError:
    """The exception for an error as the engine tells it."""
    return KINDS.get(error["kind"], InternalError)(
        error["message"], error["kind"], error["code"], error["hint"], error["retryable"], error["facts"]
    )


# People know them by where they find them.
for _exception in {AgnesError, *KINDS.values()}:
    _exception.__module__ = "agnes"
