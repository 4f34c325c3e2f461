"""A server's URL, taken apart; of one that cannot be read, what may have been meant.

No error made here holds a part of the URL that may be a password.
"""

import difflib
import re
from urllib.parse import SplitResult, urlsplit

from headrace._layers.options import Refused

__all__ = ["PERCENT", "split"]

_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")
PERCENT = "write the characters / ? # @ : in a user or password as %2F %3F %23 %40 %3A, or give them as options"

_SEVERAL = "it holds several; give each as an item of the list"
_SENTINELS = "Sentinels are given as {'sentinels': [(host, port), ...], 'master_name': ...}"
# What other libraries write, and what it is called here.
_ELSEWHERE = {
    "redis+sentinel": _SENTINELS,
    "rediss+sentinel": _SENTINELS,
    "redis-sentinel": _SENTINELS,
    "rediss-sentinel": _SENTINELS,
    "sentinel": _SENTINELS,
    "redis+cluster": "the servers of a cluster are given by redis:// or rediss://",
    "redis-cluster": "the servers of a cluster are given by redis:// or rediss://",
    "redis+socket": "a unix socket is given as 'unix:///path/of/the.sock?db=0'",
    "redis-socket": "a unix socket is given as 'unix:///path/of/the.sock?db=0'",
    "http": "that is no port of Redis; give the address for its own protocol",
    "https": "that is no port of Redis; give the address for its own protocol",
    **dict.fromkeys(("tcp", "redis+tcp", "redis-tcp"), "did you mean redis://?"),
    **dict.fromkeys(("tls", "ssl", "redis+tls", "redis+ssl", "redis-tls", "redis-ssl"), "did you mean rediss://?"),
}


def split(url: str) -> tuple[str, SplitResult, int | None]:
    """Split a URL into its scheme, all its parts, and the port if there is one.

    Raises:
        Refused: It is none, or cannot be read. The errors of urllib are dropped, because they quote it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts = None
    if len(re.findall(rf"(?:^|[,;\s])(?:{'|'.join(_SCHEMES)})://", url)) > 1 or _has_several(url):
        raise Refused(_SEVERAL)
    if parts is None:
        raise Refused(f"the URL cannot be read, its host or its port is wrong; {PERCENT}")
    if parts.scheme not in _SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        raise Refused(f"a URL must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}{_meant(url)}")
    return parts.scheme, parts, port


def _has_several(url: str) -> bool:
    """Tell whether several hosts stand where one should; a password may hold a comma too, in front of an @."""
    address = re.match(r"(?:\w+://)?(?:[^/?#]*@)?([^/?#]*)", url)
    return address is not None and re.search(r"[\w\]][,;\s]+[\w\[]", address[1]) is not None


def _meant(url: str) -> str:
    if not url:
        return "; it is empty: is an environment variable not set?"
    if url[0] in "'\"":
        return "; it begins with a quote, which an environment file may have left in it"
    scheme, marks, _ = url.partition("://")
    if not marks:
        # Text that may be anything else, such as a password, is not repeated.
        host = re.fullmatch(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?(?:/\d*)?", url)
        return "; put redis:// before the host, or rediss:// if it speaks TLS" if host else ""
    if instead := _ELSEWHERE.get(scheme.lower()):
        return f"; {instead}"
    near = difflib.get_close_matches(scheme, _SCHEMES, n=1)
    return f"; did you mean {near[0]}://?" if near else ""
