"""The errors that zapd raises towards its own callers.

A leaf: it imports nothing of the house. Three kinds of trouble are kept apart. What a *peer* does wrong is
an event of the engine, never an exception that leaves it. What a *caller* does wrong is
`LocalProtocolError`. What goes wrong in the *world* is a `ZapdError` with a stable code, which the admin API
renders as a problem document and the command line as one sentence with its mend.
"""

from __future__ import annotations

from typing import ClassVar


class ZapdError(Exception):
    """Something a person or a program can act on.

    ``code`` is stable and machine-readable; the message says what is wrong and, where there is one, the mend.
    No secret is ever part of either.
    """

    code: ClassVar[str] = "error"


class LocalProtocolError(ZapdError):
    """The caller asked the engine for something its state does not allow."""

    code = "local_protocol"


class ConfigurationError(ZapdError):
    """The configuration cannot be used; the message names each mistake, its line and its mend."""

    code = "configuration"


class InvalidInput(ZapdError):
    """A value that a person or a program gave breaks a rule; the message names the rule."""

    code = "invalid_input"


class NotFound(ZapdError):
    """There is nothing of that name."""

    code = "not_found"


class Conflict(ZapdError):
    """It exists already, or somebody else changed it meanwhile."""

    code = "conflict"


class PreconditionFailed(ZapdError):
    """``If-Match`` named a version that is no longer the newest: read it again, then change it."""

    code = "precondition_failed"


class Unauthenticated(ZapdError):
    """No valid token came with the call."""

    code = "unauthenticated"


class Forbidden(ZapdError):
    """The caller is known, but its role or its domains do not cover this."""

    code = "forbidden"


class Unavailable(ZapdError):
    """It cannot be done now, and may be later: a database away, a journal that cannot be written."""

    code = "unavailable"
