"""The one error tree.

Every error a user may see derives from SvcplaneError and its text is one clear line: what is wrong, with
which value, and what to do.  The command line prints that line and exits with `exit_status`; anything else
that escapes is a bug.
"""

import os


class SvcplaneError(Exception):
    """An error meant for people: `str(error)` is one line without a trailing full stop."""

    exit_status = 1


class ConfigError(SvcplaneError):
    """A flag, configuration field, manifest or file given by the user is wrong; names it and what is allowed."""

    exit_status = 2


class EnvironmentProblem(SvcplaneError):
    """The host lacks something: a tool, a privilege, a kernel feature, a free port.  Names the remedy."""

    exit_status = 3


class KernelError(SvcplaneError):
    """The kernel, or a tool that programs it, refused an operation; names the operation and the reason."""


class StoreError(SvcplaneError):
    """The store cannot serve: corrupt, locked by another process, or out of reach."""


class TransportError(SvcplaneError):
    """The API server could not be reached or broke the connection; the call may be tried again."""


def reason_of(error: OSError) -> str:
    """Why the system refused, without what a library put around it: `address already in use`."""
    own_numbers = type(error).__module__ == "ssl"  # which are not the system's
    if error.errno is not None and error.errno > 0 and not own_numbers:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)
