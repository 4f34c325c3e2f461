"""The settings of the Redis layer: what channels_redis and redis-py accept, checked and made plain.

Nothing here connects. ``parse_hosts`` turns the ``hosts`` of channels_redis into endpoints, ``redis_config`` all
arguments of the layer into one frozen object, which the native side reads by the names of its fields.

No text made here holds a secret: not a repr, not an error, also if a URL or an option was written wrongly. What cannot
be told from a secret is shown as ``***``.
"""

import difflib
import inspect
import re
import reprlib
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from headrace.layers.base import BaseChannelLayer, Capacities, check_seconds
from headrace.layers.native import LayerConfig

__all__ = [
    "Endpoint",
    "Host",
    "HostSetting",
    "RedisConfig",
    "Tls",
    "parse_hosts",
    "redacted",
    "redis_config",
]

Credentials: TypeAlias = str | tuple[str, str]
HostSetting: TypeAlias = str | bytes | Sequence[str | int] | Mapping[str, Any]
"""One server: a URL, a pair of host and port, or a mapping of redis-py's options."""

Protocol: TypeAlias = Literal[0, 2, 3]
Ring: TypeAlias = Literal["rendezvous", "channels_redis"]
Topology: TypeAlias = Literal["auto", "single", "shards", "sentinel", "cluster", "serverless"]
Wire: TypeAlias = Literal["headrace", "channels_redis"]

_PORT = 6379
_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
_HIDDEN = "***"
_SMALLEST_LIMIT = 1024
# What Redis stores in one string at most, unless its configuration says otherwise.
_LARGEST_LIMIT = 512 * 1024 * 1024
_LONGEST_PREFIX = 100

# redis-py's classes of connections, and what each one is.
_CONNECTIONS: Mapping[str, Literal["tcp", "tls", "unix"]] = {
    "Connection": "tcp",
    "SSLConnection": "tls",
    "UnixDomainSocketConnection": "unix",
    "SentinelManagedConnection": "tcp",
    "SentinelManagedSSLConnection": "tls",
}

# The options of redis-py that mean something here...
_TLS_OPTIONS = {
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path"),
    *("ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_min_version"),
}
_SERVER_OPTIONS = {
    *("host", "port", "path", "unix_socket_path", "db", "username", "password", "credential_provider"),
    *("protocol", "connection_class", "ssl", *_TLS_OPTIONS),
}
_MAPPING_OPTIONS = {"address", "sentinels", "master_name", "sentinel_kwargs", "is_master"}
_SECRET_OPTIONS = {"password", "ssl_password", "ssl_ca_data", "credential_provider"}
# ...and those that do not, with the reason.
_OPTIONS_BY_REASON = {
    "receiving waits for as long as it takes, and sending has the layer's send_timeout": ("socket_timeout", "timeout"),
    "the layer's connect_timeout counts for every host": ("socket_connect_timeout",),
    "the layer notices a lost connection and connects again by itself": (
        *("retry", "retry_on_timeout", "retry_on_error", "health_check_interval", "check_connection"),
        "maint_notifications_config",
    ),
    "a process has one set of connections, which the layer owns": (
        *("max_connections", "queue_class", "single_connection_client", "auto_close_connection_pool"),
    ),
    "messages are msgpack, and replies are read natively": (
        *("decode_responses", "encoding", "encoding_errors", "encoder_class", "parser_class"),
        *("legacy_responses", "socket_read_size"),
    ),
    "the layer names its connections itself": ("client_name", "lib_name", "lib_version", "driver_info"),
    "the layer sets up its sockets itself": ("socket_keepalive", "socket_keepalive_options", "socket_type"),
}
_IGNORED = {option: reason for reason, options in _OPTIONS_BY_REASON.items() for option in options}
# What would make a connection safer, or is code that would have to run: to leave it out in silence would weaken it.
_NOT_HONOURED = {
    **dict.fromkeys(
        ("ssl_ciphers", "ssl_include_verify_flags", "ssl_exclude_verify_flags"),
        "ciphers and verification are those of the native TLS library; let the server refuse others, by 'tls-ciphers'",
    ),
    **dict.fromkeys(
        ("redis_connect_func", "event_dispatcher"),
        "it would not be called, as connections are native; to log in give 'password', which may be a function, or "
        "'credential_provider'",
    ),
}
_KNOWN_OPTIONS = _SERVER_OPTIONS | _IGNORED.keys() | _NOT_HONOURED.keys()
_HARMLESS_OPTIONS = (_KNOWN_OPTIONS | _MAPPING_OPTIONS) - _SECRET_OPTIONS
_NUMBERS = {"port", "db", "protocol"}
_PLACES = {"host", "port", "path", "unix_socket_path"}
_RANDOM_PREFIX = "it keeps equal messages apart in channels_redis's sorted sets, which this layer does not have"

_PERCENT = "write the characters / ? # @ : in a user or password as %2F %3F %23 %40 %3A, or give them as options"


@dataclass(frozen=True, repr=False)
class Tls:
    """How to encrypt a connection. Certificates and the key are PEM.

    Without ``ca`` the system's authorities count.
    """

    verify: bool = True
    verify_hostname: bool = True
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        given = [name for name in ("ca", "certificate", "key") if getattr(self, name) is not None]
        shown = "".join(f", {name}={_HIDDEN}" for name in given)
        return f"Tls(verify={self.verify}, verify_hostname={self.verify_hostname}{shown})"


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
        login = f"{user}:{_HIDDEN}@" if secret else ""
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


@dataclass(frozen=True, repr=False)
class RedisConfig:
    """The settings of a Redis layer as the native side reads them.

    Attributes:
        local: The settings of the mailboxes in this process.
        hosts: The shards; one server if the topology is "single", the seeds if it is "cluster".
        topology: "auto" leaves it to the first host, which says whether it is part of a cluster; else the hosts are
            shards. Never "auto" with sentinels.
        encryption_keys: The keys as given, the one to encrypt with first. Empty if messages are not encrypted.
        ignored: The options that were given and have no effect, each with the reason.
    """

    local: LayerConfig
    hosts: tuple[Host, ...]
    topology: Topology
    prefix: str
    wire: Wire
    ring: Ring
    encryption_keys: tuple[bytes, ...]
    send_timeout: float
    connect_timeout: float
    subscription_linger: float
    max_message_bytes: int
    on_disconnect: str | None
    on_reconnect: str | None
    on_gap: str | None
    ignored: dict[str, str]

    def __repr__(self) -> str:
        hosts = ", ".join(map(str, self.hosts))
        encrypted = ", encrypted" if self.encryption_keys else ""
        return f"RedisConfig({self.topology}: {hosts}, prefix={self.prefix!r}, wire={self.wire!r}{encrypted})"


class _Refused(Exception):
    """Why an entry of ``hosts`` is refused; holds names of options and no values."""


def redacted(url: str | bytes) -> str:
    """Return a URL with its password hidden, and with what may be a part of one.

    Any text is accepted: a URL with characters that should have been percent-encoded is shown as its scheme alone.
    """
    text = url.decode("utf-8", "replace") if isinstance(url, bytes) else url
    scheme = beginning.group() if (beginning := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)) else ""
    rest = text[len(scheme) :]
    authority = re.match(r"[^/?#]*", rest).group()  # type: ignore[union-attr]  # it matches any text
    behind = rest[len(authority) :]
    login, at, address = authority.rpartition("@")
    if "@" in behind or "#" in behind or address.startswith(":"):
        return scheme + _HIDDEN
    user, colon, _ = login.partition(":")
    # A user without a password may well be a password in the wrong place.
    shown = f"{user if colon else ''}{colon}{_HIDDEN}@" if at else ""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.%]*\]|[\w.%-]*)(:.*)?", address, re.DOTALL)
    name, port = match.groups() if match else ("", _HIDDEN)
    if port and port != ":" and not port[1:].isdecimal():
        return f"{scheme}{shown}{name}{':' if name else ''}{_HIDDEN}"
    path, mark, query = behind.partition("?")
    if scheme not in ("", "unix://") and not path.replace("/", "0").isdecimal() and path:
        path = f"/{_HIDDEN}"
    pieces = [_redacted_piece(piece) for piece in query.split("&")] if mark else []
    return f"{scheme}{shown}{address}{path}{mark}{'&'.join(pieces)}"


def _redacted_piece(piece: str) -> str:
    name, equals, _ = piece.partition("=")
    if equals and _may_be_shown(name):
        return piece
    return f"{name}={_HIDDEN}" if equals and _is_like_an_option(name) else _HIDDEN


def _is_like_an_option(name: str) -> bool:
    return bool(difflib.get_close_matches(name, _KNOWN_OPTIONS, n=1))


def _may_be_shown(option: object) -> bool:
    """Tell whether the value of an option is no secret; that of an unknown one may be a mistyped password."""
    return option in _HARMLESS_OPTIONS


def _shown(entry: object) -> str:
    """Return a repr of what was given as a host, without secrets."""
    if isinstance(entry, str | bytes):
        return repr(redacted(entry))
    if isinstance(entry, Mapping):
        return f"{{{', '.join(f'{key!r}: {_shown_option(key, value)}' for key, value in entry.items())}}}"
    if isinstance(entry, list | tuple) and entry and not isinstance(entry[0], list | tuple):
        # A pair; what is more than that is a password to some.
        options = zip(("host", "port", *["password"] * len(entry)), entry, strict=False)
        return f"({', '.join(_shown_option(option, value) for option, value in options)})"
    if isinstance(entry, list | tuple):
        return f"[{', '.join(map(_shown, entry))}]"
    plain = entry is None or isinstance(entry, bool | int | float)
    return repr(entry) if plain else f"a {type(entry).__name__}"


def _shown_option(option: object, value: object) -> str:
    no_number = option in _NUMBERS and isinstance(value, str) and not value.isdecimal()
    return _HIDDEN if no_number or not _may_be_shown(option) else _shown(value)


def parse_hosts(hosts: Iterable[HostSetting] | None) -> tuple[Host, ...]:
    """Read ``hosts`` as channels_redis does: a list of URLs, pairs, mappings of redis-py's options, Sentinel mappings.

    None or an empty list is ``redis://localhost:6379``. Certificates are read from their files here.

    Raises:
        ValueError: An entry is none of these, or has an option that is unknown or wrong. The error shows the entry
            with its secrets hidden.
    """
    if not hosts:
        return (Host(Endpoint()),)
    pair = isinstance(hosts, tuple) and len(hosts) == 2 and isinstance(hosts[0], str) and isinstance(hosts[1], int)
    if isinstance(hosts, str | bytes | Mapping) or pair or not isinstance(hosts, Iterable):
        # The first sentence is channels_redis's, which programs may match on.
        raise ValueError(
            "You must pass a list of Redis hosts, even if there is only one. "
            f"Got {_shown(hosts)}: put it in square brackets"
        )
    parsed = [_parse_host(index, entry) for index, entry in enumerate(hosts)]
    return tuple(parsed) or (Host(Endpoint()),)


def _parse_host(index: int, entry: object) -> Host:
    try:
        return _host(_options(entry))
    except _Refused as refused:
        reason = str(refused)
    raise ValueError(f"hosts[{index}] is {_shown(entry)}: {reason}")


def _options(entry: object) -> dict[str, Any]:
    """Turn an entry into redis-py's options, with ``ssl`` and ``path`` for what a URL's scheme says."""
    if isinstance(entry, str | bytes):
        return _url_options(entry)
    if isinstance(entry, Mapping):
        options = dict(entry)
        if "address" in options:
            address = options.pop("address")
            if not isinstance(address, str | bytes):
                raise _Refused("'address' must be a URL, such as 'redis://localhost:6379'; give a pair without it")
            url_options = _url_options(address)
            _refuse_unused(options, url_options)
            # As in redis-py, what the URL says counts.
            options |= url_options
        return options
    if isinstance(entry, list | tuple):
        if len(entry) != 2:
            raise _Refused("a pair must be (host, port); give more as {'host': ..., 'port': ..., 'password': ...}")
        return {"host": entry[0], "port": entry[1]}
    missing = "; is an environment variable not set?" if entry is None else ""
    raise _Refused(f"expected a URL, a pair (host, port), or a mapping of options{missing}")


def _refuse_unused(options: Mapping[Any, object], url_options: Mapping[str, object]) -> None:
    """Refuse what is more than the URL says in its place."""
    _flag("ssl", options.get("ssl"))
    if callable(options.get("password")) and "password" in url_options:
        raise _Refused(
            "'password' is a function, and the URL has a password, which would count; take it out of the URL"
        )


def _url_options(url: str | bytes) -> dict[str, Any]:
    scheme, parts, port = _split((_text("the URL", url) or "").strip())
    # As in redis-py: the first counts, and an empty one does not.
    options: dict[str, Any] = dict(reversed(parse_qsl(parts.query)))
    # Most likely the rest of a password: what has an @ behind the host, or has no host before it.
    named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    unsure = "@" in parts.query or (scheme != "unix" and not parts.hostname)
    in_path = "@" in parts.path and (scheme != "unix" or parts.netloc)
    if parts.fragment or in_path or (unsure and named - _KNOWN_OPTIONS):
        raise _Refused(f"the URL cannot be read; {_PERCENT}")
    # What is like no option may be a part of a password, and is not named.
    _refuse_unknown({name: None for name in named if _is_like_an_option(name)}, _SERVER_OPTIONS, "the URL")
    if named - _KNOWN_OPTIONS:
        raise _Refused("unknown option in the URL; options are those of redis-py's connections")
    path = unquote(parts.path)
    if scheme == "unix":
        if not path:
            raise _Refused("a unix URL needs the path of the socket behind three slashes: 'unix:///run/redis.sock'")
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


def _split(url: str) -> tuple[str, SplitResult, int | None]:
    """Split a URL. The errors of urllib are dropped, because they quote it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts = None
    if parts is None:
        raise _Refused(f"the URL cannot be read, its host or its port is wrong; {_PERCENT}")
    if parts.scheme not in _SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        near = difflib.get_close_matches(parts.scheme, _SCHEMES, n=1)
        meant = f"; did you mean {near[0]}://?" if near and parts.scheme not in _SCHEMES else ""
        raise _Refused(f"a URL must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}{meant}")
    return parts.scheme, parts, port


def _host(options: dict[str, Any]) -> Host:
    _refuse_unknown(options, _SERVER_OPTIONS | _MAPPING_OPTIONS)
    _refuse_not_honoured(options)
    ignored = {name for name in options if name in _IGNORED}
    if options.get("is_master") is False:
        raise _Refused("'is_master' is False, but a replica takes no messages; leave it out")
    master_name = _text("master_name", options.get("master_name"))
    sentinels = options.get("sentinels")
    sentinel_options = options.get("sentinel_kwargs") or {}
    if not master_name and not sentinels:
        if sentinel_options:
            raise _Refused("'sentinel_kwargs' is given without 'sentinels' and 'master_name'")
        return Host(_endpoint(options), ignored=tuple(sorted(ignored)))
    if not master_name or not sentinels:
        raise _Refused("Sentinel needs both: 'sentinels', a list of pairs (host, port), and 'master_name'")
    if located := options.keys() & _PLACES:
        raise _Refused(f"{_quoted(located)} is given beside 'sentinels', who tell where the master is; leave it out")
    if not isinstance(sentinel_options, Mapping):
        raise _Refused("'sentinel_kwargs' must be a mapping of options")
    _refuse_unknown(sentinel_options, _SERVER_OPTIONS, "'sentinel_kwargs'")
    _refuse_not_honoured(sentinel_options)
    if located := sentinel_options.keys() & {*_PLACES, "db"}:
        raise _Refused(f"{_quoted(located)} is given in 'sentinel_kwargs', but 'sentinels' says where they are")
    ignored |= {name for name in sentinel_options if name in _IGNORED}
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
        raise _Refused("'sentinels' must be a list of pairs (host, port), such as [('sentinel-1', 26379)]")
    return tuple(_endpoint({**options, "host": host, "port": port, "db": 0}) for host, port in sentinels)


def _refuse_not_honoured(options: Mapping[Any, object]) -> None:
    for option, reason in _NOT_HONOURED.items():
        if options.get(option):
            raise _Refused(f"{option!r} cannot be honoured: {reason}")


def _refuse_unknown(options: Mapping[Any, object], known: set[str], inside: str = "") -> None:
    known = known | _IGNORED.keys() | _NOT_HONOURED.keys()
    unknown = sorted(str(name) for name in options if name not in known)
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], known, n=3)
    meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "options are those of redis-py's connections"
    raise _Refused(f"unknown option {_quoted(unknown)}{f' in {inside}' if inside else ''}; {meant}")


def _endpoint(options: Mapping[str, Any], *, told: bool = False) -> Endpoint:
    """Read a server's options; its host and port may be empty if they are to be told by sentinels."""
    username, password, source = _login(options)
    kind = _connection_class(options.get("connection_class"))
    path = _socket_path(options)
    if kind == "unix" and not path:
        raise _Refused("a connection by a unix socket needs 'path'")
    tls = _tls(options, kind == "tls")
    if path and tls:
        raise _Refused("a unix socket is given, which takes no TLS; leave 'ssl' out")
    host = "" if path else _text("host", options.get("host", "localhost"))
    if not host and not path and not told:
        raise _Refused("'host' is empty; give a name or an address")
    if host and not re.fullmatch(r"[^\s/@?#:]+|[0-9a-fA-F:.]+(%[^\s/@?#:]+)?", host):
        raise _Refused("'host' must be a name or an address; a URL stands alone or in 'address', a port in 'port'")
    return Endpoint(
        host=host or "",
        port=0 if path else _number("port", options.get("port", _PORT), 0 if told else 1, 65535),
        path=path or None,
        username=username,
        password=password,
        password_source=source,
        database=_number("db", options.get("db") or 0, 0, 2**31 - 1),
        tls=tls,
        protocol=_protocol(options.get("protocol")),
    )


def _protocol(value: object) -> Protocol:
    match _number("protocol", value, 2, 3) if value is not None else 0:
        case 2:
            return 2
        case 3:
            return 3
    return 0


def _socket_path(options: Mapping[str, Any]) -> str | None:
    path, other = _text("path", options.get("path")), _text("unix_socket_path", options.get("unix_socket_path"))
    if path and other and path != other:
        raise _Refused("'path' and 'unix_socket_path' are given, and differ; leave one of them out")
    if (path or other) and (located := {name for name in ("host", "port") if options.get(name)}):
        raise _Refused(f"{_quoted(located)} is given beside a unix socket; leave one of them out")
    return path or other


def _connection_class(kind: object) -> Literal["tcp", "tls", "unix"]:
    """Tell what redis-py's class of connections stands for, without importing it. One of somebody else's is refused."""
    if kind is None:
        return "tcp"
    names = [base.__name__ for base in inspect.getmro(kind)] if isinstance(kind, type) else []
    if not isinstance(kind, type) or not _CONNECTIONS.keys() & set(names):
        raise _Refused("'connection_class' must be redis-py's Connection, SSLConnection or UnixDomainSocketConnection")
    if kind.__module__.partition(".")[0] not in ("redis", "valkey") or kind.__name__ not in _CONNECTIONS:
        raise _Refused(
            f"'connection_class' is {kind.__name__}, whose code would not run, as connections are native; give options "
            "for what it does: 'ssl' and 'ssl_...', 'password', which may be a function, or 'credential_provider'"
        )
    return _CONNECTIONS[kind.__name__]


def _login(options: Mapping[str, Any]) -> tuple[str | None, str | None, Callable[[], Credentials] | None]:
    username = _text("username", options.get("username")) or None
    password = options.get("password")
    provider = options.get("credential_provider")
    if provider is not None:
        if username or password:
            raise _Refused("'credential_provider' is given beside 'username' or 'password'; give one of them")
        ask = getattr(provider, "get_credentials", None)
        if not callable(ask):
            raise _Refused("'credential_provider' must have a method get_credentials()")
        return None, None, _source(ask, "credential_provider.get_credentials()")
    if callable(password):
        return username, None, _source(password, "password()")
    secret = _text("password", password) or None
    # As in redis-py: a user that needs no password logs in with an empty one.
    return username, "" if username and secret is None else secret, None


def _source(ask: Callable[[], object], name: str) -> Callable[[], Credentials]:
    if inspect.iscoroutinefunction(ask):
        raise _Refused(f"{name} is a coroutine function, but it is called by a thread without a loop; make it plain")

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


def _tls(options: Mapping[str, Any], by_class: bool) -> Tls | None:
    wanted = _flag("ssl", options.get("ssl"))
    given = {name for name in options if name in _TLS_OPTIONS and options[name] is not None}
    if not (wanted or by_class):
        if given and wanted is None:
            raise _Refused(f"{_quoted(given)} is given, but the connection is not TLS; write rediss:// or 'ssl': True")
        return None
    _refuse_tls_options(options)
    required = _verified(options.get("ssl_cert_reqs", "required"))
    hostname = _flag("ssl_check_hostname", options.get("ssl_check_hostname"))
    if hostname and not required:
        raise _Refused("'ssl_check_hostname' is True, but 'ssl_cert_reqs' verifies nothing; leave one of them out")
    certificate = _pem("ssl_certfile", options.get("ssl_certfile"))
    keyfile = options.get("ssl_keyfile")
    # As in redis-py, the key may be in the certificate's file.
    key = _pem("ssl_keyfile", keyfile, "PRIVATE KEY") if keyfile else certificate
    if key is not None and (certificate is None or b"PRIVATE KEY-----" not in key):
        raise _Refused("'ssl_certfile' and 'ssl_keyfile' must both be given, or one file have both")
    if key is not None and b"ENCRYPTED" in key:
        raise _Refused("the key is encrypted; decrypt its file with 'openssl pkey', and guard it by its permissions")
    return Tls(required, required and hostname is not False, _authorities(options), certificate, key)


def _refuse_tls_options(options: Mapping[str, Any]) -> None:
    if options.get("ssl_password"):
        raise _Refused("'ssl_password' is not supported; decrypt the key with 'openssl pkey', and guard its file")
    oldest = options.get("ssl_min_version")
    if oldest is not None and _number("ssl_min_version", oldest, -2, 0xFFFF) > ssl.TLSVersion.TLSv1_2:
        raise _Refused("'ssl_min_version' asks for more than TLS 1.2; let the server refuse it, by 'tls-protocols'")


def _verified(value: object) -> bool:
    if value is None or isinstance(value, int):
        return value not in (None, ssl.CERT_NONE)
    if value not in ("none", "optional", "required"):
        raise _Refused("'ssl_cert_reqs' must be 'required', 'optional', 'none' or one of ssl.VerifyMode")
    return value != "none"


def _authorities(options: Mapping[str, Any]) -> bytes | None:
    parts = [_pem("ssl_ca_certs", options.get("ssl_ca_certs"))]
    if data := options.get("ssl_ca_data"):
        text = _text("ssl_ca_data", data) or ""
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise _Refused("'ssl_ca_data' must be the text of certificates in PEM")
        parts.append(text.encode())
    if folder := options.get("ssl_ca_path"):
        parts += _folder_of_pem("ssl_ca_path", folder)
    found = [part for part in parts if part is not None]
    return b"\n".join(found) if found else None


def _folder_of_pem(option: str, folder: Any) -> list[bytes]:
    try:
        # Each certificate is usually there twice, by name and as a link by its hash.
        files = {file.resolve() for file in Path(folder).iterdir() if file.is_file()}
        found = [content for file in sorted(files) if b"-----BEGIN CERTIFICATE-----" in (content := file.read_bytes())]
    except (OSError, TypeError) as error:
        raise _Refused(f"{option!r} cannot be read: {_why(error)}") from None
    if not found:
        raise _Refused(f"{option!r} names a folder without certificates in PEM")
    return found


def _pem(option: str, file: Any, kind: str = "CERTIFICATE") -> bytes | None:
    if not file:
        return None
    try:
        content = Path(file).read_bytes()
    except (OSError, TypeError) as error:
        raise _Refused(f"{option!r} cannot be read: {_why(error)}; check the path and its permissions") from None
    if f"{kind}-----".encode() not in content:
        raise _Refused(f"{option!r} names a file without a {kind.lower()} in PEM")
    return content


def _why(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is no path"


def _flag(option: str, value: object) -> bool | None:
    """Read a switch as redis-py does, which in a URL is text."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.upper() not in ("0", "F", "FALSE", "N", "NO")
    if isinstance(value, bool | int):
        return bool(value)
    if isinstance(value, ssl.SSLContext):
        raise _Refused(
            f"{option!r} is an SSLContext, which a native connection cannot use; give True, and options for what is in "
            "it: 'ssl_ca_certs', 'ssl_certfile', 'ssl_keyfile', 'ssl_cert_reqs', 'ssl_check_hostname'"
        )
    raise _Refused(f"{option!r} must be True or False")


def _text(option: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes) and "\ufffd" not in (text := value.decode("utf-8", "replace")):
        return text
    what = "bytes that are no UTF-8" if isinstance(value, bytes) else type(value).__name__
    raise _Refused(f"{option if ' ' in option else repr(option)} must be text, not {what}")


def _number(option: str, value: object, low: int, high: int) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return int(value)
    raise _Refused(f"{option!r} must be a number from {low} to {high}")


def _quoted(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(repr, names)))


def redis_config(
    *,
    hosts: Iterable[HostSetting] | None = None,
    prefix: str = "asgi",
    expiry: float = 60,
    group_expiry: float = 86400,
    capacity: int = 100,
    channel_capacity: Capacities | None = None,
    on_disconnect: str | None = None,
    on_reconnect: str | None = None,
    on_gap: str | None = None,
    symmetric_encryption_keys: Sequence[str | bytes] | None = None,
    serializer_format: str = "msgpack",
    random_prefix_length: int | None = None,
    wire: Wire | None = None,
    ring: Ring | None = None,
    topology: Topology = "auto",
    send_timeout: float = 5,
    connect_timeout: float = 5,
    subscription_linger: float = 5,
    max_message_bytes: int = 8 * 1024 * 1024,
    wake: Literal["direct", "future"] = "direct",
) -> RedisConfig:
    """Check all arguments of a Redis layer, alone and together.

    Raises:
        ValueError: An argument is wrong, or two exclude each other; the error names them and says what to do.
    """
    parsed = parse_hosts(hosts)
    chosen_wire: Wire = _one_of("wire", wire or "headrace", get_args(Wire))
    arranged = _arranged(_one_of("topology", topology, get_args(Topology)), parsed)
    _refuse_cluster_with(arranged, parsed, chosen_wire)
    _one_of("wake", wake, ("direct", "future"))
    _refuse_other_formats(serializer_format)
    ignored = {option: _IGNORED[option] for host in parsed for option in host.ignored}
    if random_prefix_length is not None:
        ignored["random_prefix_length"] = _RANDOM_PREFIX
    base = BaseChannelLayer(expiry, capacity, channel_capacity)
    globs = channel_capacity.items() if isinstance(channel_capacity, Mapping) else None
    return RedisConfig(
        local=LayerConfig(
            expiry=float(expiry),
            group_expiry=float(check_seconds("group_expiry", group_expiry)),
            capacity=capacity,
            # Globs go to the native side as they are, and not as the regular expressions that the base makes of them.
            channel_capacity=list(globs) if globs else list(base.channel_capacity),
            # Only what msgpack can carry leaves the process.
            strict=True,
            direct_wake=wake == "direct",
        ),
        hosts=parsed,
        topology=arranged,
        prefix=_prefix(prefix),
        wire=chosen_wire,
        ring=_ring(ring, chosen_wire, len(parsed)),
        encryption_keys=_encryption_keys(symmetric_encryption_keys),
        send_timeout=float(check_seconds("send_timeout", send_timeout)),
        connect_timeout=float(check_seconds("connect_timeout", connect_timeout)),
        subscription_linger=_linger(subscription_linger),
        max_message_bytes=_limit(max_message_bytes),
        on_disconnect=_message_type("on_disconnect", on_disconnect),
        on_reconnect=_message_type("on_reconnect", on_reconnect),
        on_gap=_message_type("on_gap", on_gap),
        ignored=ignored,
    )


def _one_of(argument: str, value: Any, choices: Sequence[Any]) -> Any:
    if value in choices:
        return value
    raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {reprlib.repr(value)}")


def _arranged(topology: Topology, hosts: tuple[Host, ...]) -> Topology:
    """Return the topology that is meant, if the hosts fit it."""
    by_sentinel = [host for host in hosts if host.sentinels]
    if topology == "auto":
        return "auto" if not by_sentinel else "sentinel" if len(hosts) == 1 else "shards"
    if topology in ("single", "serverless", "sentinel") and len(hosts) != 1:
        instead = "" if topology == "serverless" else "; several are 'shards', each of which may have sentinels"
        raise ValueError(f"topology={topology!r} takes one host, got {len(hosts)}{instead}")
    if topology == "sentinel" and not by_sentinel:
        raise ValueError(
            f"topology='sentinel' needs a host with sentinels, got {hosts[0]}: "
            "give {'sentinels': [(host, port), ...], 'master_name': ...}"
        )
    if topology in ("single", "cluster", "serverless") and by_sentinel:
        raise ValueError(f"topology={topology!r} takes no sentinels, got {by_sentinel[0]}: leave topology out")
    return topology


def _refuse_cluster_with(topology: Topology, hosts: tuple[Host, ...], wire: Wire) -> None:
    if topology not in ("cluster", "serverless"):
        return
    for host in hosts:
        if host.endpoint.database:
            raise ValueError(
                f"topology={topology!r} has only database 0, got {host}: "
                "leave the number out, and give each project a prefix of its own"
            )
        if host.endpoint.path is not None:
            raise ValueError(f"topology={topology!r} is reached by TCP, got {host}: give host and port")
    if wire == "channels_redis":
        raise ValueError(
            f"wire='channels_redis' does not go with topology={topology!r}, which channels_redis cannot use: "
            "leave wire out, or move over on another server first"
        )


def _ring(ring: Ring | None, wire: Wire, shards: int) -> Ring:
    if wire == "headrace":
        chosen: Ring = _one_of("ring", ring or "rendezvous", get_args(Ring))
        return chosen
    if _one_of("ring", ring or "channels_redis", get_args(Ring)) != "channels_redis" and shards > 1:
        raise ValueError(
            f"ring={ring!r} with wire='channels_redis' would send to other hosts than channels_redis listens to: "
            "leave ring out"
        )
    return "channels_redis"


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        # The first sentence is channels_redis's, which programs may match on.
        raise ValueError(f"Prefix must be unicode. Got {reprlib.repr(prefix)}: give text, such as 'asgi'")
    if re.fullmatch(rf"[!-z|~]{{1,{_LONGEST_PREFIX}}}", prefix):
        return prefix
    raise ValueError(
        f"prefix must be 1 to {_LONGEST_PREFIX} printable characters of ASCII without spaces and braces, "
        f"which would move keys to other slots of a cluster; got {reprlib.repr(prefix)}"
    )


def _refuse_other_formats(serializer_format: object) -> None:
    if serializer_format != "msgpack":
        raise ValueError(
            f"serializer_format must be 'msgpack', got {reprlib.repr(serializer_format)}: messages are msgpack, "
            "which all processes of a fleet have to read; leave it out, and turn other values to text before you send"
        )


def _encryption_keys(keys: object) -> tuple[bytes, ...]:
    if not keys:
        return ()
    # The text of channels_redis, which programs may match on. What was given is a key, so it is not shown.
    text = "symmetric_encryption_keys must be a list of possible keys"
    if isinstance(keys, str | bytes):
        raise ValueError(f"{text}, got one {type(keys).__name__}: put it in square brackets")
    if not isinstance(keys, list | tuple):
        raise ValueError(f"{text}, got a {type(keys).__name__}: give a list, the key to encrypt with first")
    for position, key in enumerate(keys):
        if not isinstance(key, str | bytes) or not key:
            what = "an empty one" if isinstance(key, str | bytes) else f"a {type(key).__name__}"
            raise ValueError(f"{text} of text or bytes, got {what} at position {position}: is a variable not set?")
    return tuple(key.encode() if isinstance(key, str) else key for key in keys)


def _linger(seconds: float) -> float:
    return float(seconds if seconds == 0 else check_seconds("subscription_linger", seconds))


def _limit(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and _SMALLEST_LIMIT <= value <= _LARGEST_LIMIT:
        return value
    raise ValueError(
        f"max_message_bytes must be an integer from {_SMALLEST_LIMIT} to {_LARGEST_LIMIT}, got {reprlib.repr(value)}"
    )


def _message_type(argument: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError(
        f"{argument} must be the type of a message, such as 'redis.disconnect', or None, got {reprlib.repr(value)}"
    )
