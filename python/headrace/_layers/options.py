"""The options of redis-py: which there are, what becomes of each, and how one is read.

No error made here holds a value, as it may be a secret in the wrong place.
"""

from collections.abc import Iterable

__all__ = [
    "HIDDEN",
    "IGNORED",
    "KNOWN_OPTIONS",
    "MAPPING_OPTIONS",
    "NOT_HONOURED",
    "SERVER_OPTIONS",
    "TLS_OPTIONS",
    "Refused",
    "quoted",
    "read_flag",
    "read_number",
    "read_text",
]

HIDDEN = "***"

# The options of redis-py that mean something here...
TLS_OPTIONS = {
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path"),
    *("ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_min_version"),
}
SERVER_OPTIONS = {
    *("host", "port", "path", "unix_socket_path", "db", "username", "password", "credential_provider"),
    *("protocol", "connection_class", "ssl", "ssl_context", *TLS_OPTIONS),
}
MAPPING_OPTIONS = {"address", "sentinels", "master_name", "sentinel_kwargs", "is_master"}
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
IGNORED = {option: reason for reason, options in _OPTIONS_BY_REASON.items() for option in options}
# What would make a connection safer, or is code that would have to run: to leave it out in silence would weaken it.
NOT_HONOURED = {
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
KNOWN_OPTIONS = SERVER_OPTIONS | IGNORED.keys() | NOT_HONOURED.keys()


class Refused(Exception):
    """Why an entry of ``hosts`` is refused; holds names of options and no values."""


def read_flag(option: str, value: object) -> bool | None:
    """Read a switch as redis-py does, which in a URL is text; None if nothing is said."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.upper() not in ("0", "F", "FALSE", "N", "NO")
    if isinstance(value, bool | int):
        return bool(value)
    raise Refused(f"{option!r} must be True or False")


def read_text(option: str, value: object) -> str | None:
    """Read text, or bytes of UTF-8."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes) and "\ufffd" not in (text := value.decode("utf-8", "replace")):
        return text
    what = "bytes that are no UTF-8" if isinstance(value, bytes) else type(value).__name__
    raise Refused(f"{option if ' ' in option else repr(option)} must be text, not {what}")


def read_number(option: str, value: object, low: int, high: int) -> int:
    """Read a number in these bounds, which in a URL is text."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return int(value)
    raise Refused(f"{option!r} must be a number from {low} to {high}")


def quoted(names: Iterable[object]) -> str:
    """Return names for an error, in their order."""
    return ", ".join(sorted(map(repr, names)))
