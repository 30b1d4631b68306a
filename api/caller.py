"""Who a request is from: set by the guard, read by whatever serves the request."""

from contextvars import ContextVar
from dataclasses import dataclass

from api.models import DEFAULT_PROJECT, Scope

_ORDER = list(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's holder, or someone on the loopback address without a key: `Caller("default", Scope.WRITE, None)`."""

    project: str
    scope: Scope
    key_id: str | None

    def may(self, scope: Scope) -> bool:
        """Whether the caller's scope contains `scope`."""
        return _ORDER.index(scope) <= _ORDER.index(self.scope)


NOBODY = Caller("", Scope.READ, None)  # of what is public; no project has this name
ON_LOOPBACK = Caller(DEFAULT_PROJECT, Scope.WRITE, None)

# Follows a request into its threads and tasks; None in what belongs to no request (relay, reaper, workers).
CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
