"""Listening at an address, with errors that say what to do."""

import errno
import socket

from shoal.core.errors import ConfigurationError

BACKLOG = 2048


def address(scheme: str, listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{host if ':' not in host else f'[{host}]'}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises ConfigurationError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _no_address(host, port, error) from error
    listener.listen(BACKLOG)
    return listener


def _no_address(host: str, port: int, error: OSError) -> ConfigurationError:
    problem = f"cannot listen on {host}:{port} ({error.strerror})"
    match error.errno:
        case errno.EADDRINUSE:
            return ConfigurationError(problem, "choose another --port, or stop what uses it")
        case errno.EACCES:
            return ConfigurationError(problem, "choose a --port from 1024 on, or get the right to use this one")
        case _:
            return ConfigurationError(problem, "give a --host that is an address of this machine, such as 0.0.0.0")
