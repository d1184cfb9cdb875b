"""How many files and sockets this process may have open."""

import resource


def allow_many() -> int:
    """Raise the limit to what the system lets this process have; returns that.

    A service manager's usual 1024 are soon used up by watches, each of which is a socket.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
