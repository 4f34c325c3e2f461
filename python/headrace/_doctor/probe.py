"""Which protocol a port speaks that does not answer: plain Redis, or TLS."""

import socket
import ssl

from headrace._layers.hosts import Endpoint

__all__ = ["other_protocol"]


def other_protocol(endpoint: Endpoint, timeout: float) -> tuple[str, str] | None:
    """Say that a port speaks the other protocol than the endpoint's, and what to do; None if it does not."""
    if endpoint.path is not None:
        return None
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout) as connection:
            if endpoint.tls and _speaks_plain(connection):
                return (
                    "this port speaks plain Redis and no TLS",
                    "use redis:// (without 'ssl'), or the server's TLS port",
                )
            if not endpoint.tls and _speaks_tls(connection):
                return "this port speaks TLS", "use rediss:// (or 'ssl': True), or the server's plain port"
    except OSError:
        pass
    return None


def _speaks_plain(connection: socket.socket) -> bool:
    connection.sendall(b"PING\r\n")
    return connection.recv(1) in (b"+", b"-")


def _speaks_tls(connection: socket.socket) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        # It spoke TLS, and said no.
        return "ALERT" in (error.reason or "")
    return True
