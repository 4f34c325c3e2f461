"""A connection to one server, to ask it anything: redis-py's, without its pools, retries and readings of replies."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import redis.connection
from redis import exceptions

from headrace._layers.hosts import Endpoint
from headrace._layers.tls import Tls

__all__ = ["Link", "Refusal", "Unreachable"]

# Its types are partial, and others in each version.
_redis_py: Any = redis.connection
# Answers of a cluster that say where else to ask, or that it is not whole: the command itself was allowed.
_ELSEWHERE = ("AskError", "MovedError", "TryAgainError", "ClusterCrossSlotError", "ClusterDownError")
_CODES_OF_ELSEWHERE = ("ASK", "MOVED", "TRYAGAIN", "CROSSSLOT", "CLUSTERDOWN")


class Unreachable(Exception):
    """There is no connection; the text says why and holds no secret."""


class Refusal(Exception):
    """The server answered with an error; the text is its own, without what it quotes of the command."""

    def __init__(self, error: exceptions.ResponseError) -> None:
        # What an unknown command was given is quoted, and with AUTH that is a password.
        super().__init__(str(error).partition(", with args beginning with")[0])
        self.no_permission = isinstance(error, exceptions.NoPermissionError) or str(error).startswith("NOPERM")
        self.elsewhere = type(error).__name__ in _ELSEWHERE or str(error).split(" ")[0] in _CODES_OF_ELSEWHERE


class Link:
    """A connection, closed with the context.

    Attributes:
        protocol: The version of RESP: what the endpoint says, or 3, or 2 where the server does not know that.
        greeting: What the server said of itself to HELLO; empty with RESP2.
        why_not_3: Why it is not RESP3, if that was tried.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self.greeting: dict[str, Any] = {}
        self.why_not_3 = ""
        self._timeout = timeout
        self.protocol = endpoint.protocol or 3
        try:
            self._connection = self._open()
        except exceptions.AuthenticationError as error:
            raise Unreachable(f"it refuses the user or the password: {_plain(error)}") from None
        except exceptions.ResponseError as error:
            if endpoint.protocol:
                raise Unreachable(f"it refuses: {_plain(error)}") from None
            self.protocol, self.why_not_3 = 2, _plain(error)
            self._connection = self._open_resp2()

    @classmethod
    def plain(cls, endpoint: Endpoint, timeout: float) -> Self:
        """Connect with RESP2, under which what comes in is read one way, also what a subscription says."""
        return cls(Endpoint(**{**vars(endpoint), "protocol": 2}), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def ask(self, *words: str | int) -> Any:
        """Ask the server and return its reply.

        Raises:
            Refusal: The reply is an error.
            Unreachable: The connection is lost, or there was no answer in time.
        """
        try:
            self._connection.send_command(*words)
            return self._connection.read_response()
        except exceptions.ResponseError as error:
            raise Refusal(error) from None
        except (exceptions.RedisError, OSError) as error:
            raise Unreachable(f"{words[0]} got no answer: {_plain(error)}") from None

    def asked(self, *words: str | int) -> Any:
        """Ask the server; None if it does not tell."""
        with suppress(Refusal):
            return self.ask(*words)

    def _open_resp2(self) -> Any:
        try:
            return self._open()
        except exceptions.AuthenticationError as error:
            raise Unreachable(f"it refuses the user or the password: {_plain(error)}") from None
        except exceptions.ResponseError as error:
            raise Unreachable(f"it refuses: {_plain(error)}") from None

    def _open(self) -> Any:
        endpoint = self.endpoint
        username, password = _login(endpoint)
        options: dict[str, Any] = {
            "username": username,
            "password": password,
            "db": endpoint.database,
            "protocol": self.protocol,
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "decode_responses": True,
            "encoding_errors": "replace",
        }
        try:
            if endpoint.path is not None:
                return self._connected(_redis_py.UnixDomainSocketConnection(path=endpoint.path, **options))
            options |= {"host": endpoint.host, "port": endpoint.port}
            if endpoint.tls is None:
                return self._connected(_redis_py.Connection(**options))
            with _tls_options(endpoint.tls) as tls:
                return self._connected(_redis_py.SSLConnection(**options, **tls))
        except (exceptions.ResponseError, exceptions.AuthenticationError):
            raise
        except (exceptions.RedisError, OSError) as error:
            raise Unreachable(_plain(error)) from None

    def _connected(self, connection: Any) -> Any:
        connection.connect()
        told = getattr(connection, "handshake_metadata", None)
        self.greeting = told if isinstance(told, dict) else {}
        return connection


def _login(endpoint: Endpoint) -> tuple[str | None, str | None]:
    if endpoint.password_source is None:
        return endpoint.username, endpoint.password
    try:
        answer = endpoint.password_source()
    except Exception as error:  # a function of the project may raise anything
        raise Unreachable(f"the function that gives the password failed with {type(error).__name__}") from None
    return answer if isinstance(answer, tuple) else (endpoint.username, answer)


@contextmanager
def _tls_options(tls: Tls) -> Iterator[dict[str, Any]]:
    """Give redis-py's options; certificate and key are in files, which nobody else can read, while it connects."""
    options: dict[str, Any] = {
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.verify_hostname,
        "ssl_ca_data": None if tls.ca is None else tls.ca.decode("ascii", "replace"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for option, content in (("ssl_certfile", tls.certificate), ("ssl_keyfile", tls.key)):
            if content is not None:
                options[option] = os.path.join(folder, option)
                descriptor = os.open(options[option], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(content)
        yield options


def _plain(error: Exception) -> str:
    """Return an error's own words, without what it quotes of a command."""
    return str(error).partition(", with args beginning with")[0] or type(error).__name__
