"""The servers of the Redis layer: what channels_redis and redis-py accept, checked and made plain.

Nothing here connects. ``parse_hosts`` turns the ``hosts`` of channels_redis into endpoints.

No text made here holds a secret. An error names the entry by its place in the list, and the option. It shows no value,
as that may be a password in the wrong place. A repr hides passwords.
"""

import difflib
import inspect
import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

from headrace._layers.options import (
    HIDDEN,
    IGNORED,
    KNOWN_OPTIONS,
    MAPPING_OPTIONS,
    NOT_HONOURED,
    SERVER_OPTIONS,
    Refused,
    quoted,
    read_number,
    read_text,
)
from headrace._layers.tls import Tls, tls_of
from headrace._layers.urls import PERCENT, split

__all__ = ["Endpoint", "Host", "HostSetting", "as_mappings", "parse_hosts"]

Credentials: TypeAlias = str | tuple[str, str]
HostSetting: TypeAlias = str | bytes | Sequence[str | int] | Mapping[str, Any]
"""One server: a URL, a pair of host and port, or a mapping of redis-py's options."""

Protocol: TypeAlias = Literal[0, 2, 3]

_PORT = 6379
# Behind host and port. What is longer may be a password in the wrong place, which must not be shown.
_DATABASE = re.compile(r"\d{1,3}", re.ASCII)
_PLACES = {"host", "port", "path", "unix_socket_path"}

# redis-py's classes of connections, and what each one is.
_CONNECTIONS: Mapping[str, Literal["tcp", "tls", "unix"]] = {
    "Connection": "tcp",
    "SSLConnection": "tls",
    "UnixDomainSocketConnection": "unix",
    "SentinelManagedConnection": "tcp",
    "SentinelManagedSSLConnection": "tls",
}


@dataclass(frozen=True, repr=False)
class Endpoint:
    """One server or sentinel.

    Attributes:
        host: Its name or address; empty if there is a path, or sentinels tell it.
        port: Its port; 0 if there is a path, or sentinels tell it.
        path: Its unix socket.
        username: The ACL user.
        password: Its password; empty for a user that has none.
        password_source: Returns the password, or username and password; asked at every connect.
        database: The number of the database.
        tls: How to encrypt, or None for plain TCP.
        protocol: The version of RESP; 0 tries 3 and falls back to 2.
    """

    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    username: str | None = None
    password: str | None = None
    password_source: Callable[[], Credentials] | None = None
    database: int = 0
    tls: Tls | None = None
    protocol: Protocol = 0

    def __str__(self) -> str:
        """Return it as a URL, with the password hidden."""
        scheme = "unix" if self.path is not None else "rediss" if self.tls else "redis"
        # A user without a password may well be a password in the wrong place.
        known = self.username and (self.password or self.password_source)
        user = (self.username or "") if known else ""
        secret = self.username or self.password is not None or self.password_source is not None
        login = f"{user}:{HIDDEN}@" if secret else ""
        name = f"[{self.host}]" if ":" in self.host else self.host
        where = self.path if self.path is not None else f"{name}:{self.port}" if self.port else ""
        database = "" if not self.database else f"?db={self.database}" if self.path is not None else f"/{self.database}"
        return f"{scheme}://{login}{where}{database}"

    def __repr__(self) -> str:
        protocol = f", protocol={self.protocol}" if self.protocol else ""
        return f"Endpoint({self}{protocol}{f', tls={self.tls}' if self.tls else ''})"


@dataclass(frozen=True)
class Host:
    """One shard, or one seed of a cluster.

    Attributes:
        endpoint: Where it is. With sentinels they tell its host and port, and the rest is how to log in to it.
        sentinels: Whom to ask for the master.
        master_name: How the sentinels call it.
        ignored: The options that were given and have no effect.
    """

    endpoint: Endpoint
    sentinels: tuple[Endpoint, ...] = ()
    master_name: str | None = None
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.sentinels:
            return str(self.endpoint)
        return f"{self.master_name!r} of {', '.join(map(str, self.sentinels))}"


def as_mappings(hosts: Iterable[HostSetting] | None) -> list[dict[str, Any]]:
    """Return the hosts as they were given, each as a mapping, as channels_redis keeps them: with their passwords."""
    return [_as_mapping(host) for host in hosts or ["redis://localhost:6379"]]


def _as_mapping(host: HostSetting) -> dict[str, Any]:
    if isinstance(host, Mapping):
        return dict(host)
    if isinstance(host, str | bytes):
        return {"address": host}
    return dict(zip(("host", "port", "db"), host, strict=False))


def parse_hosts(hosts: Iterable[HostSetting] | None) -> tuple[Host, ...]:
    """Read ``hosts`` as channels_redis does: a list of URLs, pairs, mappings of redis-py's options, Sentinel mappings.

    None is ``redis://localhost:6379``. Certificates are read from their files here.

    Raises:
        ValueError: An entry is none of these, or has an option that is unknown or wrong. The error has the place of the
            entry in the list and the name of the option, and no value.
    """
    if hosts is None:
        return (Host(Endpoint()),)
    pair = isinstance(hosts, tuple) and len(hosts) == 2 and isinstance(hosts[0], str) and isinstance(hosts[1], int)
    if isinstance(hosts, str | bytes | Mapping) or pair or not isinstance(hosts, Iterable):
        # The first sentence is channels_redis's, which programs may match on.
        raise ValueError(
            "You must pass a list of Redis hosts, even if there is only one. "
            f"Got a {type(hosts).__name__}: put it in square brackets"
        )
    parsed = tuple(_parse_host(index, entry) for index, entry in enumerate(hosts))
    if not parsed:
        raise ValueError(
            "hosts is an empty list, so there is no server: is an environment variable not set? "
            "Leave hosts out for redis://localhost:6379"
        )
    return parsed


def _parse_host(index: int, entry: object) -> Host:
    try:
        return _host(_options(entry))
    except Refused as refused:
        reason = str(refused)
    raise ValueError(f"hosts[{index}]: {reason}")


def _options(entry: object) -> dict[str, Any]:
    """Turn an entry into redis-py's options, with ``ssl`` and ``path`` for what a URL's scheme says."""
    if isinstance(entry, str | bytes):
        return _url_options(entry)
    if isinstance(entry, Mapping):
        options = dict(entry)
        if isinstance(options.get("ssl"), ssl.SSLContext):
            # The switch may be in the URL too, and would count.
            options["ssl_context"] = options.pop("ssl")
        if "address" in options:
            address = options.pop("address")
            if not isinstance(address, str | bytes):
                raise Refused("'address' must be a URL, such as 'redis://localhost:6379'; give a pair without it")
            url_options = _url_options(address)
            _refuse_unused(options, url_options)
            # As in redis-py, what the URL says counts.
            options |= url_options
        return options
    if isinstance(entry, list | tuple):
        if len(entry) not in (2, 3) or not all(_DATABASE.fullmatch(str(number)) for number in entry[2:]):
            raise Refused(
                "a pair must be (host, port), with a number of a database perhaps; give more as {'host': ...}"
            )
        return dict(zip(("host", "port", "db"), entry, strict=False))
    found = "None; is an environment variable not set?" if entry is None else f"a {type(entry).__name__}"
    raise Refused(f"expected a URL, a pair (host, port), or a mapping of options, got {found}")


def _refuse_unused(options: Mapping[Any, object], url_options: Mapping[str, object]) -> None:
    """Refuse what is more than the URL says in its place."""
    if callable(options.get("password")) and "password" in url_options:
        raise Refused("'password' is a function, and the URL has a password, which would count; take it out of the URL")


def _url_options(url: str | bytes) -> dict[str, Any]:
    scheme, parts, port = split((read_text("the URL", url) or "").strip())
    # As in redis-py: the first counts, and an empty one does not.
    options: dict[str, Any] = dict(reversed(parse_qsl(parts.query)))
    # Most likely the rest of a password: what has an @ behind the host, or has no host before it.
    named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    unsure = "@" in parts.query or (scheme != "unix" and not parts.hostname)
    in_path = "@" in parts.path and (scheme != "unix" or parts.netloc)
    if parts.fragment or in_path or (unsure and named - KNOWN_OPTIONS):
        raise Refused(f"the URL cannot be read; {PERCENT}")
    # What is like no option may be a part of a password, and is not named.
    like = {name: None for name in named if difflib.get_close_matches(name, KNOWN_OPTIONS, n=1)}
    _refuse_unknown(like, SERVER_OPTIONS, "the URL")
    if named - KNOWN_OPTIONS:
        raise Refused("unknown option in the URL; options are those of redis-py's connections")
    path = unquote(parts.path)
    if scheme == "unix":
        if not path:
            raise Refused("a unix URL needs the path of the socket behind three slashes: 'unix:///run/redis.sock'")
        options["path"] = path
    else:
        options |= {"host": unquote(parts.hostname)} if parts.hostname else {}
        options |= {"port": port} if port else {}
        number = path.replace("/", "")
        if number and "db" not in options:
            options["db"] = number
        options |= {"ssl": True} if scheme in ("rediss", "valkeys") else {}
    options |= {"username": unquote(parts.username)} if parts.username else {}
    options |= {"password": unquote(parts.password)} if parts.password else {}
    return options


def _host(options: dict[str, Any]) -> Host:
    _refuse_unknown(options, SERVER_OPTIONS | MAPPING_OPTIONS)
    _refuse_not_honoured(options)
    ignored = {name for name in options if name in IGNORED}
    if options.get("is_master") is False:
        raise Refused("'is_master' is False, but a replica takes no messages; leave it out")
    master_name = read_text("master_name", options.get("master_name"))
    sentinels = options.get("sentinels")
    sentinel_options = options.get("sentinel_kwargs") or {}
    if not master_name and not sentinels:
        if sentinel_options:
            raise Refused("'sentinel_kwargs' is given without 'sentinels' and 'master_name'")
        return Host(_endpoint(options), ignored=tuple(sorted(ignored)))
    if not master_name or not sentinels:
        raise Refused("Sentinel needs both: 'sentinels', a list of pairs (host, port), and 'master_name'")
    if located := options.keys() & _PLACES:
        raise Refused(f"{quoted(located)} is given beside 'sentinels', who tell where the master is; leave it out")
    if not isinstance(sentinel_options, Mapping):
        raise Refused("'sentinel_kwargs' must be a mapping of options")
    _refuse_unknown(sentinel_options, SERVER_OPTIONS, "'sentinel_kwargs'")
    _refuse_not_honoured(sentinel_options)
    if located := sentinel_options.keys() & {*_PLACES, "db"}:
        raise Refused(f"{quoted(located)} is given in 'sentinel_kwargs', but 'sentinels' says where they are")
    ignored |= {name for name in sentinel_options if name in IGNORED}
    return Host(
        _endpoint({**options, "host": "", "port": 0}, told=True),
        _sentinels(sentinels, sentinel_options),
        master_name,
        tuple(sorted(ignored)),
    )


def _sentinels(sentinels: object, options: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    def is_pair(entry: object) -> bool:
        return isinstance(entry, list | tuple) and len(entry) == 2

    if not isinstance(sentinels, list | tuple) or not all(map(is_pair, sentinels)):
        raise Refused("'sentinels' must be a list of pairs (host, port), such as [('sentinel-1', 26379)]")
    return tuple(_endpoint({**options, "host": host, "port": port, "db": 0}) for host, port in sentinels)


def _refuse_not_honoured(options: Mapping[Any, object]) -> None:
    for option, reason in NOT_HONOURED.items():
        if options.get(option):
            raise Refused(f"{option!r} cannot be honoured: {reason}")


def _refuse_unknown(options: Mapping[Any, object], known: set[str], inside: str = "") -> None:
    known = known | IGNORED.keys() | NOT_HONOURED.keys()
    unknown = sorted(str(name) for name in options if name not in known)
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], known, n=3)
    meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "options are those of redis-py's connections"
    raise Refused(f"unknown option {quoted(unknown)}{f' in {inside}' if inside else ''}; {meant}")


def _endpoint(options: Mapping[str, Any], *, told: bool = False) -> Endpoint:
    """Read a server's options; its host and port may be empty if they are to be told by sentinels."""
    username, password, source = _login(options)
    kind = _connection_class(options.get("connection_class"))
    path = _socket_path(options)
    if kind == "unix" and not path:
        raise Refused("a connection by a unix socket needs 'path'")
    tls = tls_of(options, kind == "tls")
    if path and tls:
        raise Refused("a unix socket is given, which takes no TLS; leave 'ssl' out")
    host = "" if path else read_text("host", options.get("host", "localhost"))
    if not host and not path and not told:
        raise Refused("'host' is empty; give a name or an address")
    if host and not re.fullmatch(r"[^\s/@?#:]+|[0-9a-fA-F:.]+(%[^\s/@?#:]+)?", host):
        raise Refused("'host' must be a name or an address; a URL stands alone or in 'address', a port in 'port'")
    return Endpoint(
        host=host or "",
        port=0 if path else read_number("port", options.get("port", _PORT), 0 if told else 1, 65535),
        path=path or None,
        username=username,
        password=password,
        password_source=source,
        database=read_number("db", options.get("db") or 0, 0, 2**31 - 1),
        tls=tls,
        protocol=_protocol(options.get("protocol")),
    )


def _protocol(value: object) -> Protocol:
    match read_number("protocol", value, 2, 3) if value is not None else 0:
        case 2:
            return 2
        case 3:
            return 3
    return 0


def _socket_path(options: Mapping[str, Any]) -> str | None:
    path, other = read_text("path", options.get("path")), read_text("unix_socket_path", options.get("unix_socket_path"))
    if path and other and path != other:
        raise Refused("'path' and 'unix_socket_path' are given, and differ; leave one of them out")
    if (path or other) and (located := {name for name in ("host", "port") if options.get(name)}):
        raise Refused(f"{quoted(located)} is given beside a unix socket; leave one of them out")
    return path or other


def _connection_class(kind: object) -> Literal["tcp", "tls", "unix"]:
    """Tell what redis-py's class of connections stands for, without importing it. One of somebody else's is refused."""
    if kind is None:
        return "tcp"
    names = [base.__name__ for base in inspect.getmro(kind)] if isinstance(kind, type) else []
    if not isinstance(kind, type) or not _CONNECTIONS.keys() & set(names):
        raise Refused("'connection_class' must be redis-py's Connection, SSLConnection or UnixDomainSocketConnection")
    if kind.__module__.partition(".")[0] not in ("redis", "valkey") or kind.__name__ not in _CONNECTIONS:
        raise Refused(
            f"'connection_class' is {kind.__name__}, whose code would not run, as connections are native; give options "
            "for what it does: 'ssl' and 'ssl_...', 'password', which may be a function, or 'credential_provider'"
        )
    return _CONNECTIONS[kind.__name__]


def _login(options: Mapping[str, Any]) -> tuple[str | None, str | None, Callable[[], Credentials] | None]:
    username = read_text("username", options.get("username")) or None
    password = options.get("password")
    provider = options.get("credential_provider")
    if provider is not None:
        if username or password:
            raise Refused("'credential_provider' is given beside 'username' or 'password'; give one of them")
        ask = getattr(provider, "get_credentials", None)
        if not callable(ask):
            raise Refused("'credential_provider' must have a method get_credentials()")
        return None, None, _source(ask, "credential_provider.get_credentials()")
    if callable(password):
        return username, None, _source(password, "password()")
    secret = read_text("password", password) or None
    # As in redis-py: a user that needs no password logs in with an empty one.
    return username, "" if username and secret is None else secret, None


def _source(ask: Callable[[], object], name: str) -> Callable[[], Credentials]:
    if inspect.iscoroutinefunction(ask):
        raise Refused(f"{name} is a coroutine function, but it is called by a thread without a loop; make it plain")

    def credentials() -> Credentials:
        match ask():
            case str(password) | (str(password),):
                return password
            case (str(username), str(password)):
                return username, password
            case answer:
                raise TypeError(
                    f"{name} must return a password or (username, password), returned {type(answer).__name__}"
                )

    return credentials
