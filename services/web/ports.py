"""The TCP ports that servers listen on: checked before anything slow is started."""

import errno
import socket

from k2d.errors import K2DError


class PortTaken(K2DError):
    """The server cannot listen at its address."""

    code = "port_taken"
    status = 503


def listen(host: str, port: int, *, change: str) -> socket.socket:
    """A socket that is bound to a host's port and not listening yet.

        server.run(sockets=[listen("127.0.0.1", 8001, change="give another --port")])

    Args:
        change: what to do to take another port.

    Raises:
        PortTaken: another process listens there, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortTaken(
            f"cannot listen at {host}: {error.strerror or error}", hint="the host is no address or name of this machine"
        ) from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last connections are closing is free
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} of {host} is taken by another program", hint=f"stop it, or {change}"
            ) from error
        raise PortTaken(f"cannot listen at port {port} of {host}: {error.strerror or error}", hint=change) from error
    return bound


def check_free(host: str, port: int, *, change: str) -> None:
    """Raise PortTaken unless a server can listen at a host's port now. As `listen`."""
    listen(host, port, change=change).close()
