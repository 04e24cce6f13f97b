"""What the library reports, as exceptions: one class per code of capi/finchkv.h."""

from __future__ import annotations


class Error(Exception):
    """Something that the library could not do. `str(error)` is a sentence that names the thing and what to do."""

    code: int = 9
    """The fkv_code of capi/finchkv.h."""
    name: str = "internal"
    """The code's name there."""


class InvalidArgument(Error, ValueError):
    """The call could never succeed as it was made."""

    code, name = 1, "invalid_argument"


class NotFound(Error, LookupError):
    """There is no such entry, file or store."""

    code, name = 2, "not_found"


class Corrupt(Error):
    """Stored bytes are not what was written."""

    code, name = 3, "corrupt"


class Unavailable(Error):
    """Not now: another process has it, or the call was stopped."""

    code, name = 4, "unavailable"


class ResourceExhausted(Error):
    """Memory, disk, or a limit."""

    code, name = 5, "resource_exhausted"


class DeadlineExceeded(Error, TimeoutError):
    """It took longer than it was allowed to."""

    code, name = 6, "deadline_exceeded"


class PermissionDenied(Error):
    """The store was opened for reading, or the tenant may not do this."""

    code, name = 7, "permission_denied"


class Unsupported(Error):
    """A newer format, or a way that this build does not have."""

    code, name = 8, "unsupported"


class Internal(Error):
    """A defect of the library."""

    code, name = 9, "internal"


_ALL: tuple[type[Error], ...] = (
    InvalidArgument, NotFound, Corrupt, Unavailable, ResourceExhausted, DeadlineExceeded, PermissionDenied, Unsupported,
    Internal,
)  # fmt: skip
_BY_CODE: dict[int, type[Error]] = {kind.code: kind for kind in _ALL}


def from_code(code: int, message: str) -> Error:
    """The exception for a code; a code that this package does not know becomes `Internal`."""
    return _BY_CODE.get(code, Internal)(message)
