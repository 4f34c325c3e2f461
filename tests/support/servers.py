"""Redis and Valkey servers of the tests: each on a free port, in a folder of its own, always ended, nothing saved."""

import os
import secrets
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support import guard
from tests.support.binaries import Binary, find, missing
from tests.support.certificates import HOSTS, Authority
from tests.support.lifetime import Lifetime
from tests.support.monitor import Monitor
from tests.support.ports import HOST, Port
from tests.support.resp import SECONDS, Connection, Word
from tests.support.waiting import eventually

# The tests' own user on every server, who may do everything whatever becomes of the others. Servers replicate as it.
ADMIN = ("headrace-tests", secrets.token_hex(16))
Options = Mapping[str, Word | Sequence[Word]]

_DEFAULTS: Options = {
    "bind": HOST,
    "save": '""',
    "appendonly": "no",
    # What a replica is sent at first would be found after a restart.
    "rdb-del-sync-files": "yes",
    "daemonize": "no",
    "always-show-logo": "no",
    "masteruser": ADMIN[0],
    "masterauth": ADMIN[1],
    # What makes a server wait for others in production makes a test slow.
    "repl-diskless-sync-delay": 0,
    "shutdown-timeout": 0,
}
# How many entries ACL LOG keeps; without a number it gives ten.
_MOST_DENIED = 128


def output_limit(binary: Binary, limit: str) -> dict[str, Word]:
    """Give the options of a server that gives up clients which do not read.

    Args:
        binary: The server.
        limit: When it does, as in its configuration: ``pubsub 1mb 0 0``.
    """
    options: dict[str, Word] = {"client-output-buffer-limit": limit}
    if binary.is_valkey(9, 1):
        # It does not count long messages, unless it is to copy them.
        options["min-string-size-avoid-copy-reply"] = 0
    return options


class ServerFailed(Exception):
    """A server ended by itself; the message has its last words."""


@dataclass(frozen=True)
class Denied:
    """An entry of ACL LOG: which user tried what, and how often; ``reason`` is command, key, channel or auth."""

    user: str
    reason: str
    what: str
    count: int


class Server(Lifetime):
    """A server that runs while the context lasts; it can be ended, paused and started again in between.

    Args:
        binary: Which server; the preferred one if not said.
        options: Directives of the configuration file, as written there; of one that comes more than once, a list.
        users: ACL users, by name: their rules as in the configuration file. ``default`` is the one who says no name.
        password: That of the user ``default``.
        tls: Who issues its certificate: it then speaks TLS only, on its port.

    Attributes:
        port: Its TCP port, always the same.
        paused: It was stopped where it was.
        folder: Where everything of it is, until the context ends.
        socket: The path of its unix socket.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        options: Options | None = None,
        users: Mapping[str, str] | None = None,
        password: str | None = None,
        tls: Authority | None = None,
    ) -> None:
        self.binary = find(tls=tls is not None) if binary is None else binary
        if tls is not None and not self.binary.tls:
            raise ValueError(f"{self.binary} was built without TLS; {missing(self.binary.name, tls=True)}")
        self.tls = tls
        self.password = password
        self.users = dict(users or {})
        self.paused = False
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._own: Counter[str] = Counter()
        self._port = Port()
        self.folder = guard.folder()
        self.socket = self.folder / "socket"

    def _begin(self) -> None:
        try:
            self.start()
        except ServerFailed as failure:
            # Between the look at its port and its use somebody else came, which does not happen twice.
            if "Address already in use" not in str(failure):
                raise
            self._move()
            self.start()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerFailed: it ended instead.
        """
        self.launch()
        eventually(self.answers, f"an answer of {self!r}")

    def launch(self) -> None:
        """Start it only, for who starts several."""
        if self.running:
            raise RuntimeError(f"{self!r} runs already")
        self._write_files()
        self._own.clear()
        if self.binary.is_valkey(9, 1):
            # What it asks itself when it starts.
            self._own["config|get"] = 2
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Signals of the terminal are for the tests, which then end it.
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))

    def answers(self) -> bool:
        """Tell whether it answers.

        Raises:
            ServerFailed: it never will.
        """
        if not self.running:
            self._ended()
            raise ServerFailed(f"{self!r} ended:\n{self.log()}")
        # Not there yet, or left there by a predecessor that was killed.
        with suppress(FileNotFoundError, ConnectionRefusedError):
            return bool(self.ask("PING") == "PONG")
        return False

    def stop(self) -> None:
        """Tell it to end, and wait until it has."""
        with suppress(ConnectionError):
            self.ask("SHUTDOWN", "NOSAVE")
        self._ended()

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def restart(self) -> None:
        """Start it again on its port, after it was told to end if it runs; what it held is gone."""
        if self.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it where it is, by SIGSTOP: connections stay and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)
        self.paused = True

    def resume(self) -> None:
        """Let it go on after a pause."""
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def close(self) -> None:
        """End it in whatever state it is, and leave nothing of it."""
        self.kill()
        self._port.release()
        if self.folder.exists():
            guard.remove(self.folder)

    @property
    def running(self) -> bool:
        """Tell whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Give its process id."""
        if self._process is None:
            raise RuntimeError(f"{self!r} does not run")
        return self._process.pid

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def url(self) -> str:
        """Give its address for the user ``default``."""
        return self.url_for(None if self.password is None else ("", self.password))

    @property
    def unix_url(self) -> str:
        """Give the address of its unix socket for the user ``default``."""
        return f"unix://{self._credentials(None if self.password is None else ('', self.password))}{self.socket}"

    def url_for(self, user: tuple[str, str] | None, host: str = HOST) -> str:
        """Give its address for a user, as name and password."""
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{self._credentials(user)}{host}:{self.port}"

    @property
    def ca(self) -> Path:
        """Give the file with the certificate of who issued its own; beside it, ``client.pem`` and ``client.key``."""
        return self.folder / "ca.pem"

    def connect(self, user: tuple[str, str] | None = None, *, decode: bool = True) -> Connection:
        """Connect to its port, as a client does; not as the tests' own user, but as ``user`` or nobody yet."""
        context: ssl.SSLContext | None = None
        if self.tls is not None:
            context = self.tls.context()
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return Connection((HOST, self.port), tls=context, user=user, decode=decode)

    def cli(self, *words: Word, decode: bool = True) -> Any:
        """Ask it anything, and return the reply.

        Raises:
            ReplyError: the reply is an error.
            OSError: it does not answer.
        """
        with self.admin(decode=decode) as connection:
            return connection.ask(*words)

    def ask(self, *words: Word) -> Any:
        """Ask it as ``cli`` does, but so that ``commands_seen`` does not count it."""
        reply = self.cli(*words)
        name = str(words[0]).lower()
        self._own[f"{name}|{str(words[1]).lower()}" if name in ("client", "acl", "config") else name] += 1
        return reply

    def admin(self, *, decode: bool = True, seconds: float = SECONDS) -> Connection:
        """Connect as the tests' own user."""
        connection = Connection(self.socket, user=ADMIN, decode=decode, seconds=seconds)
        self._own["auth"] += 1
        return connection

    def info(self, section: str) -> dict[str, str]:
        """Give a section of INFO."""
        lines = str(self.ask("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def commands_seen(self) -> Counter[str]:
        """Count the commands that it carried out since it started, by name, in lower case: ``client|setname``.

        What the methods here ask is not counted, except for ``cli``. The difference of two is what came in between.
        """
        own = self._own.copy()
        own["auth"] += 1
        stats = self.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): int(_fields(value)["calls"]) for name, value in stats.items()}
        return Counter(calls) - own

    def errors_seen(self) -> Counter[str]:
        """Count the errors that it answered since it started, by kind: ``NOPERM``, ``CROSSSLOT``."""
        stats = self.info("errorstats")
        return Counter({kind.removeprefix("errorstat_"): int(_fields(value)["count"]) for kind, value in stats.items()})

    def clients(self) -> list[dict[str, str]]:
        """List its clients as CLIENT LIST does, without the tests' own and the other servers."""
        lines = str(self.ask("CLIENT", "LIST")).splitlines()
        clients = [dict(field.split("=", 1) for field in line.split(" ")) for line in lines]
        return [client for client in clients if client["user"] != ADMIN[0]]

    def denied(self) -> list[Denied]:
        """List what its users tried and were not allowed, the last first."""
        entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in self.ask("ACL", "LOG", _MOST_DENIED)]
        return [
            Denied(entry["username"], entry["reason"], entry["object"], entry["count"])
            for entry in entries
            if entry["username"] != ADMIN[0]
        ]

    @contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """Watch what it is given on its port while the context lasts."""
        with self.admin() as connection:
            connection.ask("MONITOR")
            self._own["monitor"] += 1
            yield Monitor(connection, mark=lambda token: self.ask("PING", token))

    def log(self) -> str:
        """Give the end of its log."""
        with suppress(FileNotFoundError):
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-15:])
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.binary} on port {self.port}>"

    def command(self) -> list[str | Path]:
        """Give the words that start it."""
        return [self.binary.path, self.folder / "conf"]

    def directives(self) -> dict[str, Word | Sequence[Word]]:
        """Give its configuration, of which ``options`` overrides any."""
        port: Options = {"port": self.port}
        if self.tls is not None:
            port = {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": "server.pem",
                "tls-key-file": "server.key",
                "tls-ca-cert-file": self.ca.name,
                "tls-auth-clients": "no",
                "tls-replication": "yes",
            }
        users = [f"{name} {rules}" for name, rules in self.users.items()]
        users.append(f"{ADMIN[0]} on >{ADMIN[1]} ~* &* +@all")
        password: Options = {} if self.password is None else {"requirepass": _quoted(self.password)}
        place: Options = {"dir": _quoted(self.folder), "unixsocket": _quoted(self.socket), "user": users}
        return {**_DEFAULTS, **port, **place, **password, **self._options}

    def _move(self) -> None:
        self._port.release()
        self._port = Port()
        (self.folder / "conf").unlink()

    def _write_files(self) -> None:
        if self.tls is not None and not self.ca.exists():
            self.ca.write_bytes(self.tls.certificate)
            for name in ("server", "client"):
                certificate, key = self.tls.issue(*HOSTS)
                (self.folder / f"{name}.pem").write_bytes(certificate)
                (self.folder / f"{name}.key").write_bytes(key)
        if not (conf := self.folder / "conf").exists():
            conf.write_text("".join(f"{line}\n" for line in _lines(self.directives())))

    def _ended(self) -> None:
        if self._process is not None:
            self._process.wait(SECONDS)
            self.paused = False
            (self.folder / "pid").unlink(missing_ok=True)

    @staticmethod
    def _credentials(user: tuple[str, str] | None) -> str:
        return "" if user is None else ":".join(quote(part, safe="") for part in user) + "@"


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(directives: Options) -> Iterator[str]:
    for name, value in directives.items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]:
            yield f"{name} {one.decode() if isinstance(one, bytes) else one}"


def _fields(value: str) -> dict[str, str]:
    return dict(field.split("=", 1) for field in value.split(","))
