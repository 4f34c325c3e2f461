"""What the Redis layer accepts as settings, and that no text it makes of them holds a secret."""

import dataclasses
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio
import redis.asyncio.sentinel
from channels_redis.utils import create_pool, decode_hosts  # it has no types
from hypothesis import example, given
from hypothesis import strategies as st
from redis.credentials import UsernamePasswordCredentialProvider
from tests.support.certificates import Authority
from tests.support.ids import label

from headrace._layers.base import BaseChannelLayer
from headrace._layers.hosts import Endpoint, Host, parse_hosts
from headrace._layers.options import KNOWN_OPTIONS, MAPPING_OPTIONS
from headrace._layers.redis_config import RedisConfig, RedisOptions, redis_config
from headrace._layers.tls import Tls

SECRET = "s3cr3t"
PEM = "-----BEGIN {0}-----\nAA==\n-----END {0}-----\n"
CERTIFICATE = PEM.format("CERTIFICATE")
KEY = PEM.format("PRIVATE KEY")
NAMES_ARE_CHECKED = int(redis.__version__.partition(".")[0]) >= 6
"""By redis-py, where nothing is said of it."""
UNQUOTES_TWICE = redis.asyncio.connection.parse_url("redis://cache?password=%2540")["password"] == "@"
SENTINEL = {"sentinels": [("s1", 26379), ["s2", "26380"]], "master_name": "mymaster"}


class OwnTls(redis.asyncio.Connection):
    """Speaks TLS by code of its own."""


class OwnLogin(redis.asyncio.SSLConnection):
    """Logs in by code of its own."""


class Connection(redis.asyncio.Connection):
    """Has the name of redis-py's."""


def only(entry: Any) -> Endpoint:
    """Parse one host and return its endpoint."""
    (host,) = parse_hosts([entry])
    return host.endpoint


def refused(call: Callable[[], object]) -> str:
    """Return the text of the ValueError that a call raises."""
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    return str(caught.value)


class TestHostsOfChannelsRedis:
    def test_no_hosts_are_the_local_server(self) -> None:
        assert parse_hosts(None) == (Host(Endpoint("localhost", 6379)),)

    @pytest.mark.parametrize("hosts", [[], (), iter([])], ids=["list", "tuple", "iterator"])
    def test_an_empty_list_of_hosts_is_refused(self, hosts: Any) -> None:
        assert "hosts is an empty list, so there is no server: is an environment variable not set?" in refused(
            lambda: parse_hosts(hosts)
        )

    @pytest.mark.parametrize(
        ("hosts", "given"),
        [
            ("redis://:s3cr3t@cache", "str"),
            (b"redis://cache", "bytes"),
            ({"host": "cache", "password": SECRET}, "dict"),
            (("cache", 6379), "tuple"),
            (6379, "int"),
        ],
    )
    def test_hosts_that_are_no_list_are_refused_with_channels_redis_text(self, hosts: Any, given: str) -> None:
        text = "You must pass a list of Redis hosts, even if there is only one."
        assert refused(lambda: parse_hosts(hosts)) == f"{text} Got a {given}: put it in square brackets"
        if isinstance(hosts, str | bytes):
            assert refused(lambda: decode_hosts(hosts)) == text

    @pytest.mark.parametrize(
        "entry",
        [
            "redis://localhost",
            "redis://cache:7000",
            "redis://cache/3",
            "redis://cache/0/",
            "redis://cache/3?db=4",
            "redis://cache?db=4&db=5",
            "redis://user:pass@cache",
            "redis://:pass@cache:6380/1",
            "redis://us%40er:p%2Fa%3Fs%23s%25@cache",
            "redis://user@cache",
            pytest.param(
                "redis://cache?username=user&password=p%2540a",
                marks=pytest.mark.skipif(UNQUOTES_TWICE, reason="this redis-py unquotes the query of a URL twice"),
            ),
            "redis://user:pass@cache?username=other&password=other",
            "redis://[::1]:7000/2",
            "redis://?db=",
            "rediss://cache:7000",
            "rediss://cache?ssl_cert_reqs=none",
            "rediss://cache?ssl_check_hostname=False",
            "rediss://cache?ssl_check_hostname=yes&protocol=3",
            "unix:///run/redis.sock",
            "unix://user:pass@/run/redis.sock?db=2",
            "unix:///run/re%20dis.sock?password=pass",
            ("cache", 7000),
            ["cache", "7000"],
            {},
            {"host": "cache", "port": 7000, "db": 2, "username": "user", "password": "pass"},
            {"host": "cache", "db": "2", "password": ""},
            {"address": "redis://cache"},
            {"address": "redis://cache/2", "db": 3, "password": "pass", "socket_timeout": None},
            {"address": "redis://:a@cache", "password": "b", "username": "user"},
            {"address": "rediss://cache", "ssl_cert_reqs": None},
            {"address": "rediss://cache", "ssl_cert_reqs": ssl.CERT_OPTIONAL, "ssl_check_hostname": False},
            {"address": "unix:///run/redis.sock", "db": 1},
            {"connection_class": redis.asyncio.SSLConnection, "host": "cache", "ssl_cert_reqs": "none"},
            {"connection_class": redis.asyncio.UnixDomainSocketConnection, "path": "/run/redis.sock"},
        ],
        ids=label,
    )
    def test_what_redis_py_connects_to_is_the_endpoint(self, entry: Any) -> None:
        endpoint = only(entry)
        pool = create_pool(decode_hosts([entry])[0])
        connection = pool.connection_class(**pool.connection_kwargs)
        theirs = connection.credential_provider
        login = (connection.username or None, connection.password or None)
        assert theirs is None
        assert (endpoint.username, endpoint.password or None, endpoint.database) == (*login, int(connection.db))
        if isinstance(connection, redis.asyncio.UnixDomainSocketConnection):
            assert (endpoint.path, endpoint.host, endpoint.port) == (connection.path, "", 0)
        else:
            assert (endpoint.path, endpoint.host, endpoint.port) == (None, connection.host, connection.port)
        context = getattr(connection, "ssl_context", None)
        if context is None:
            assert endpoint.tls is None
        elif NAMES_ARE_CHECKED:
            assert endpoint.tls == Tls(context.cert_reqs != ssl.CERT_NONE, context.check_hostname)

    def test_a_sentinel_mapping_is_one_shard(self) -> None:
        options = {
            "db": 1,
            "username": "user",
            "password": "pass",
            "ssl": True,
            "sentinel_kwargs": {"password": "other"},
        }
        (host,) = parse_hosts([{**SENTINEL, **options}])
        assert host.master_name == "mymaster"
        assert host.endpoint == Endpoint("", 0, username="user", password="pass", database=1, tls=Tls())
        assert host.sentinels == (Endpoint("s1", 26379, password="other"), Endpoint("s2", 26380, password="other"))

    def test_sentinels_do_not_take_the_masters_options(self) -> None:
        (host,) = parse_hosts([{**SENTINEL, "password": "pass", "ssl": True, "db": 3, "sentinel_kwargs": None}])
        assert host.sentinels == (Endpoint("s1", 26379), Endpoint("s2", 26380))

    def test_several_hosts_keep_their_order(self) -> None:
        hosts = parse_hosts(["redis://one", ("two", 1), {"host": "three"}, SENTINEL])
        assert [host.endpoint.host or host.master_name for host in hosts] == ["one", "two", "three", "mymaster"]


class TestBeyondChannelsRedis:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            (b"redis://cache:1", Endpoint("cache", 1)),
            ("valkey://cache:1", Endpoint("cache", 1)),
            ("valkeys://cache:1", Endpoint("cache", 1, tls=Tls())),
            ("redis://cache?ssl=true", Endpoint("cache", tls=Tls())),
            (" redis://cache\n", Endpoint("cache")),
            ("REDIS://cache", Endpoint("cache")),
            (("cache", 1, 2), Endpoint("cache", 1, database=2)),
            (["cache", "1", "2"], Endpoint("cache", 1, database=2)),
        ],
    )
    def test_more_forms_are_read(self, url: Any, expected: Endpoint) -> None:
        assert only(url) == expected

    @pytest.mark.parametrize(("given", "expected"), [(None, 0), (2, 2), (3, 3), ("3", 3)])
    def test_the_protocol_is_tried_unless_it_is_given(self, given: Any, expected: int) -> None:
        assert only({"protocol": given}).protocol == expected

    @pytest.mark.parametrize(
        "options",
        [
            {"connection_class": redis.Connection},
            {"connection_class": redis.asyncio.Connection},
            {"connection_class": redis.asyncio.sentinel.SentinelManagedConnection},
            {"ssl_ciphers": None, "redis_connect_func": None, "ssl_include_verify_flags": []},
        ],
        ids=label,
    )
    def test_what_says_nothing_is_no_more_than_its_absence(self, options: dict[str, Any]) -> None:
        assert only({"host": "cache", **options}) == Endpoint("cache")

    def test_a_class_of_redis_py_with_tls_is_tls(self) -> None:
        for kind in (redis.SSLConnection, redis.asyncio.sentinel.SentinelManagedSSLConnection):
            assert only({"host": "cache", "connection_class": kind}) == Endpoint("cache", tls=Tls())

    def test_a_unix_socket_may_be_given_by_either_name(self) -> None:
        assert only({"unix_socket_path": "/run/redis.sock"}) == only("unix:///run/redis.sock")

    def test_a_password_may_be_a_callable(self) -> None:
        endpoint = only({"username": "user", "password": lambda: "fresh"})
        assert (endpoint.username, endpoint.password) == ("user", None)
        assert endpoint.password_source is not None
        assert endpoint.password_source() == "fresh"

    @pytest.mark.parametrize(
        ("user", "expected"), [(None, "pass"), ("user", ("user", "pass"))], ids=["password", "username and password"]
    )
    def test_a_credential_provider_is_asked(self, user: str | None, expected: Any) -> None:
        source = only({"credential_provider": UsernamePasswordCredentialProvider(user, "pass")}).password_source
        assert source is not None
        assert source() == expected

    @pytest.mark.parametrize("answer", [None, b"bytes", (), ("a", "b", "c"), (1, "b")])
    def test_a_source_that_returns_no_credentials_is_told_so(self, answer: Any) -> None:
        source = only({"password": lambda: answer}).password_source
        assert source is not None
        with pytest.raises(TypeError, match=r"password\(\) must return a password or \(username, password\), returned"):
            source()


class TestCertificates:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        contents = {"ca": CERTIFICATE, "cert": CERTIFICATE, "key": KEY, "both": CERTIFICATE + KEY, "text": "nothing"}
        contents["locked"] = PEM.format("ENCRYPTED PRIVATE KEY")
        for name, content in contents.items():
            (tmp_path / name).write_text(content)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/one.pem").write_text(CERTIFICATE)
        (tmp_path / "folder/01234567.0").symlink_to(tmp_path / "folder/one.pem")
        (tmp_path / "folder/README").write_text("nothing")
        (tmp_path / "empty").mkdir()
        return tmp_path

    def test_files_are_read(self, files: Path) -> None:
        url = f"rediss://cache?ssl_ca_certs={files}/ca&ssl_certfile={files}/cert&ssl_keyfile={files}/key"
        tls = only(url).tls
        assert tls is not None
        assert tls.files is not None
        read = (CERTIFICATE.encode(), CERTIFICATE.encode(), KEY.encode())
        assert (tls.ca, tls.certificate, tls.key) == tls.files.read() == read
        assert only(url).tls == tls
        (files / "cert").write_text(CERTIFICATE + CERTIFICATE)
        assert tls.files.read()[1] == (CERTIFICATE + CERTIFICATE).encode()

    def test_the_same_files_are_one_object(self, files: Path) -> None:
        def kept(name: str) -> object:
            tls = only({"ssl": True, "ssl_ca_certs": f"{files}/{name}"}).tls
            assert tls is not None
            return tls.files

        assert kept("ca") is kept("ca")
        assert kept("ca") is not kept("cert")

    def test_a_certificate_may_hold_its_key(self, files: Path) -> None:
        tls = only({"ssl": True, "ssl_certfile": files / "both"}).tls
        assert tls is not None
        assert tls.certificate == tls.key == (CERTIFICATE + KEY).encode()

    def test_authorities_come_from_text_and_from_folders_too(self, files: Path) -> None:
        tls = only({"ssl": True, "ssl_ca_data": CERTIFICATE, "ssl_ca_path": str(files / "folder")}).tls
        assert tls is not None
        assert tls.ca is not None
        assert tls.ca.count(b"BEGIN CERTIFICATE") == 2

    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"ssl_ca_certs": "absent"}, "'ssl_ca_certs' cannot be read: No such file or directory; check the path"),
            ({"ssl_ca_certs": "text"}, "'ssl_ca_certs' names a file without a certificate in PEM"),
            ({"ssl_ca_path": "absent"}, "'ssl_ca_path' cannot be read: No such file or directory"),
            ({"ssl_ca_path": "empty"}, "'ssl_ca_path' names a folder without certificates in PEM"),
            ({"ssl_certfile": "cert"}, "'ssl_certfile' and 'ssl_keyfile' must both be given, or one file have both"),
            ({"ssl_keyfile": "key"}, "'ssl_certfile' and 'ssl_keyfile' must both be given, or one file have both"),
            ({"ssl_certfile": "cert", "ssl_keyfile": "ca"}, "names a file without a private key in PEM"),
            ({"ssl_certfile": "cert", "ssl_keyfile": "locked"}, "the key is encrypted; decrypt its file"),
        ],
    )
    def test_a_file_that_does_not_fit_is_refused(self, files: Path, options: dict[str, str], fault: str) -> None:
        options = {name: str(files / file) for name, file in options.items()}
        assert fault in refused(lambda: only({"ssl": True, **options}))

    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"ssl_ca_certs": 7}, "'ssl_ca_certs' cannot be read: it is no path"),
            ({"ssl_ca_data": b"\x30\x82"}, "'ssl_ca_data' must be text, not bytes that are no UTF-8"),
            ({"ssl_ca_data": "text"}, "'ssl_ca_data' must be the text of certificates in PEM"),
            ({"ssl_password": SECRET}, "'ssl_password' is not supported; decrypt the key"),
            ({"ssl_min_version": ssl.TLSVersion.TLSv1_3}, "'ssl_min_version' asks for more than TLS 1.2"),
            ({"ssl_cert_reqs": "CERT_NONE"}, "'ssl_cert_reqs' must be 'required', 'optional', 'none' or"),
            ({"ssl_check_hostname": 0.5}, "'ssl_check_hostname' must be True or False"),
        ],
    )
    def test_an_option_that_cannot_be_honoured_is_refused(self, options: dict[str, Any], fault: str) -> None:
        assert fault in refused(lambda: only({"ssl": True, **options}))

    def test_tls_1_2_may_be_asked_for(self) -> None:
        assert only({"ssl": True, "ssl_min_version": ssl.TLSVersion.TLSv1_2}).tls == Tls()
        assert only("rediss://cache?ssl_min_version=771").tls == Tls()

    @pytest.mark.parametrize("name", ["ssl", "ssl_context"])
    def test_a_context_is_read(self, name: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        expected = Tls(verify=True, verify_hostname=True)
        for host in ({"host": "cache"}, {"address": "rediss://cache"}, {"address": "redis://cache"}):
            assert only({**host, name: context}).tls == expected
        context.check_hostname = False
        assert only({"host": "cache", name: context}).tls == Tls(verify=True, verify_hostname=False)
        context.verify_mode = ssl.CERT_NONE
        assert only({"host": "cache", name: context}).tls == Tls(verify=False, verify_hostname=False)
        assert only({**SENTINEL, name: context}).tls == Tls(verify=False, verify_hostname=False)

    def test_the_authorities_of_a_context_are_trusted(self) -> None:
        authority = Authority()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.certificate.decode())
        tls = only({"host": "cache", "ssl_context": context}).tls
        assert tls is not None
        assert tls.ca == authority.certificate

    def test_a_context_that_cannot_be_honoured_is_refused(self) -> None:
        def context() -> ssl.SSLContext:
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        ciphers, newest, revoked, leaf = (context() for _ in range(4))
        ciphers.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
        newest.minimum_version = ssl.TLSVersion.TLSv1_3
        revoked.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        leaf.load_verify_locations(cadata=Authority().issue("cache")[0].decode())
        faults = {
            "an SSLContext with ciphers of its own cannot be honoured; give True, and 'ssl_...' options": ciphers,
            "an SSLContext that asks for more than TLS 1.2 cannot be honoured": newest,
            "an SSLContext that looks at revocation lists cannot be honoured": revoked,
            "an SSLContext that trusts a certificate of no authority cannot be read": leaf,
        }
        for fault, wrong in faults.items():
            assert fault in refused(lambda wrong=wrong: only({"host": "cache", "ssl": wrong}))  # type: ignore[misc]
        assert "'ssl_context' must be an ssl.SSLContext" in refused(lambda: only({"ssl_context": True}))
        both = {"ssl_context": context(), "ssl_cert_reqs": "none"}
        assert "'ssl_cert_reqs' is given beside an SSLContext" in refused(lambda: only(both))

    def test_options_of_tls_without_tls_are_refused(self) -> None:
        fault = (
            "'ssl_ca_certs', 'ssl_cert_reqs' is given, but the connection is not TLS; write rediss:// or 'ssl': True"
        )
        assert fault in refused(lambda: only({"ssl_cert_reqs": "none", "ssl_ca_certs": "/ca"}))

    def test_tls_that_is_switched_off_may_keep_its_options(self) -> None:
        assert only({"ssl": False, "ssl_cert_reqs": "none"}).tls is None


class TestRefused:
    @pytest.mark.parametrize(
        ("entry", "fault"),
        [
            (
                None,
                "expected a URL, a pair (host, port), or a mapping of options, got None; is an environment var",
            ),
            (object(), "expected a URL, a pair (host, port), or a mapping of options, got a object"),
            (
                "localhost:6379",
                "a URL must begin with redis://, rediss://, valkey://, valkeys://, unix://; put redis://",
            ),
            ("cache", "put redis:// before the host, or rediss:// if it speaks TLS"),
            ("", "it is empty: is an environment variable not set?"),
            ("'redis://cache'", "it begins with a quote, which an environment file may have left in it"),
            ("redis://one:6379,redis://two:6379", "it holds several; give each as an item of the list"),
            ("redis://one:6379 redis://:s3cr3t@two:6379", "it holds several; give each as an item of the list"),
            ("redis://one:6379,two:6379/0", "it holds several; give each as an item of the list"),
            ("one:6379, two:6379", "it holds several; give each as an item of the list"),
            ("redis+sentinel://one:26379/mymaster/0", "Sentinels are given as {'sentinels': [(host, port), ...], 'mas"),
            ("sentinel://one:26379", "Sentinels are given as {'sentinels': [(host, port), ...], 'master_name': ...}"),
            ("redis+cluster://one", "the servers of a cluster are given by redis:// or rediss://"),
            ("redis+socket:///run/redis.sock", "a unix socket is given as 'unix:///path/of/the.sock?db=0'"),
            ("redis+ssl://cache", "did you mean rediss://?"),
            ("https://cache", "that is no port of Redis; give the address for its own protocol"),
            ("redis:cache", "a URL must begin with redis://"),
            ("redi://cache", "did you mean redis://?"),
            ("http://cache", "a URL must begin with"),
            ("unix://run", "three slashes: 'unix:///run/redis.sock'"),
            ("redis://cache:port", "its host or its port is wrong"),
            ("redis://[::1", "its host or its port is wrong"),
            ("redis://cache/chat", "'db' must be a number from 0 to"),
            ("redis://cache?db=chat", "'db' must be a number from 0 to"),
            ("redis://cache?databse=1", "unknown option in the URL; options are those of redis-py's connections"),
            ("redis://cache?pasword=1&x=2", "unknown option 'pasword' in the URL; did you mean 'password'"),
            ("redis://:1#2@cache", "write the characters / ? # @ : in a user or password as %2F"),
            ("redis://:1/2@cache", "write the characters / ? # @ : in a user or password as %2F"),
            ("redis://:1?2=3@cache", "write the characters / ? # @ : in a user or password as %2F"),
            ("redis://?a=1", "write the characters / ? # @ : in a user or password as %2F"),
            ("redis://:1?2@cache", "write the characters / ? # @ : in a user or password as %2F"),
            (b"redis://\xff", "the URL must be text, not bytes that are no UTF-8"),
            ({"address": ("cache", 1)}, "'address' must be a URL, such as 'redis://localhost:6379'"),
            (("cache",), "a pair must be (host, port)"),
            (("cache", 1, "password"), "a pair must be (host, port), with"),
            (("cache", 1, "081555"), "a pair must be (host, port), with"),
            (("cache", 1, True), "a pair must be (host, port), with"),
            ((None, 1), "'host' is empty; give a name or an address"),
            ((5, 1), "'host' must be text, not int"),
            (("redis://cache", 1), "'host' must be a name or an address; a URL stands alone or in 'address'"),
            ({"host": "cache:6379"}, "'host' must be a name or an address"),
            (("cache", 0), "'port' must be a number from 1 to 65535"),
            (("cache", True), "'port' must be a number from 1 to 65535"),
            ({"host": "cache", "prot": 1}, "unknown option 'prot'; did you mean 'port'"),
            ({"host": "cache", "soket_timeout": 1}, "did you mean 'socket_timeout'"),
            ({"host": "cache", 7: 1, "zzz": 1}, "unknown option '7', 'zzz'; options are those of redis-py"),
            ({"db": -1}, "'db' must be a number from 0 to"),
            ({"protocol": 4}, "'protocol' must be a number from 2 to 3"),
            ({"password": 5}, "'password' must be text, not int"),
            ({"credential_provider": object()}, "'credential_provider' must have a method get_credentials()"),
            (
                {"credential_provider": UsernamePasswordCredentialProvider(), "password": SECRET},
                "'credential_provider' is given beside 'username' or 'password'",
            ),
            ({"path": "/run/redis.sock", "ssl": True}, "a unix socket is given, which takes no TLS"),
            ({"connection_class": redis.asyncio.UnixDomainSocketConnection}, "by a unix socket needs 'path'"),
            ({"connection_class": dict}, "'connection_class' must be redis-py's Connection"),
            ({"connection_class": "SSLConnection"}, "'connection_class' must be redis-py's Connection"),
            (
                {"connection_class": OwnTls, "password": SECRET},
                "'connection_class' is OwnTls, whose code would not run",
            ),
            ({"connection_class": OwnLogin}, "'password', which may be a function, or 'credential_provider'"),
            ({"connection_class": Connection}, "'connection_class' is Connection, whose code would not run"),
            ({**SENTINEL, "sentinel_kwargs": {"path": "/x"}}, "'path' is given in 'sentinel_kwargs', but 'sentinels'"),
            ({**SENTINEL, "sentinel_kwargs": {"ssl_ciphers": "X"}}, "'ssl_ciphers' cannot be honoured"),
            (
                {"address": "redis://:a@cache", "password": lambda: SECRET},
                "'password' is a function, and the URL has a",
            ),
            ({"path": "/run/redis.sock", "host": "cache"}, "'host' is given beside a unix socket"),
            ({"address": "unix:///run/redis.sock", "port": 6380}, "'port' is given beside a unix socket"),
            ({"path": "/a", "unix_socket_path": "/b"}, "'path' and 'unix_socket_path' are given, and differ"),
            ({"ssl": True, "ssl_ciphers": "ECDHE"}, "'ssl_ciphers' cannot be honoured: ciphers and verification are"),
            ({"ssl": True, "ssl_include_verify_flags": [1]}, "'ssl_include_verify_flags' cannot be honoured"),
            ({"ssl": True, "ssl_exclude_verify_flags": [1]}, "'ssl_exclude_verify_flags' cannot be honoured"),
            ("rediss://cache?ssl_ciphers=ECDHE", "'ssl_ciphers' cannot be honoured"),
            ({"redis_connect_func": print}, "'redis_connect_func' cannot be honoured: it would not be called"),
            ({"event_dispatcher": object()}, "'event_dispatcher' cannot be honoured: it would not be called"),
            (
                {"ssl": True, "ssl_check_hostname": True, "ssl_cert_reqs": "none"},
                "'ssl_check_hostname' is True, but 'ssl_cert_reqs' verifies nothing",
            ),
            ({"master_name": "mymaster"}, "Sentinel needs both"),
            ({"sentinels": [("s1", 1)]}, "Sentinel needs both"),
            ({**SENTINEL, "sentinels": ["s1:26379"]}, "'sentinels' must be a list of pairs (host, port)"),
            ({**SENTINEL, "sentinels": "s1"}, "'sentinels' must be a list of pairs (host, port)"),
            ({**SENTINEL, "host": "cache"}, "'host' is given beside 'sentinels', who tell where the master is"),
            ({**SENTINEL, "sentinel_kwargs": 1}, "'sentinel_kwargs' must be a mapping of options"),
            ({**SENTINEL, "sentinel_kwargs": {"pasword": 1}}, "unknown option 'pasword' in 'sentinel_kwargs'; did you"),
            ({**SENTINEL, "is_master": False}, "'is_master' is False, but a replica takes no messages"),
            ({"sentinel_kwargs": {"db": 1}}, "'sentinel_kwargs' is given without 'sentinels' and 'master_name'"),
        ],
        ids=label,
    )
    def test_a_wrong_entry_is_told_what_is_wrong_and_what_to_do(self, entry: Any, fault: str) -> None:
        text = refused(lambda: parse_hosts([entry]))
        assert text.startswith("hosts[0]: ")
        assert fault in text

    def test_the_error_names_the_position(self) -> None:
        assert refused(lambda: parse_hosts(["redis://one", "two"])).startswith("hosts[1]: ")

    def test_a_coroutine_function_is_no_password(self) -> None:
        async def password() -> str:
            return SECRET

        assert "password() is a coroutine function" in refused(lambda: only({"password": password}))


class TestSecrets:
    # Whatever stands between the two marks, none of them may be seen.
    secrets = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: f"Zq1{text}Zq2")
    templates = (
        *("redis://:{}@cache/0", "redis://user:{}@cache:1/0?db=1", "redis://{}@cache", "redis://cache?password={}"),
        *("redis://user:1{}@cache", "rediss://:1/{}@cache", "rdis://user:{}@cache", "redis://:{}", "redis://user:{}"),
        *("unix://user:{}@/run/redis.sock", "unix://user:1/{}@/run/redis.sock", "redis://cache?pasword={}"),
        *("redis://cache?db=1&password={}&db=2", "user:{}@cache", "redis:user:{}@cache", "redis://cache:{}/0"),
        *("redis://user:1?{}@cache", "redis://:1?db={}@cache", "redis://:@{}@cache"),
    )

    @staticmethod
    def texts(make: Callable[[], object]) -> list[str]:
        """Return what can be read of a thing, or of the error in its place."""
        try:
            made = make()
        except ValueError as error:
            return [str(error), repr(error), "".join(traceback.format_exception(error))]
        return [str(made), repr(made), f"{made}"]

    @classmethod
    def check(cls, hosts: Any) -> None:
        for make in (lambda: parse_hosts(hosts), lambda: redis_config(hosts=hosts)):
            for text in cls.texts(make):
                assert "Zq1" not in text
                assert "Zq2" not in text

    @given(secret=secrets, template=st.sampled_from(templates), encoded=st.booleans())
    @example("Zq1@Zq2", "redis://user:{}@cache:1/0?db=1", False)
    @example("Zq1&:\u2100Zq2", "redis://user:{}", False)
    @example("Zq1&x=Zq2", "redis://cache?password={}", False)
    @example("Zq1/Zq2", "unix://user:{}@/run/redis.sock", False)
    def test_no_text_about_a_url_holds_its_password(self, secret: str, template: str, encoded: bool) -> None:
        # What is no password by its place: a user, and a host.
        secret = secret.replace(":", "").replace("@", "") if ":{}" not in template or "}@" not in template else secret
        url = template.format(quote(secret, safe="") if encoded else secret)
        for hosts in ([url], url, [url.encode()], [{"address": url}], [(url, 6379)], (url, 6379), [{"host": url}]):
            self.check(hosts)

    @given(secret=secrets)
    def test_no_text_about_options_holds_their_secrets(self, secret: str) -> None:
        class Provider:
            def __repr__(self) -> str:
                return secret

            def get_credentials(self) -> tuple[str]:
                return (secret,)

        for entry in (
            {"host": "cache", "username": "user", "password": secret},
            {"host": "cache", "password": secret.encode(), "db": "wrong"},
            {"host": "cache", "pasword": secret},
            {"host": "cache", "password": [secret]},
            {"host": "cache", "port": secret},
            {"host": "cache", "credential_provider": Provider()},
            {"host": "cache", "credential_provider": Provider(), "username": "user"},
            {"host": "cache", "ssl": True, "ssl_password": secret},
            {"host": "cache", "ssl": True, "ssl_ca_data": secret},
            {"host": "cache", "ssl": True, "ssl_ca_data": CERTIFICATE + secret},
            {**SENTINEL, "password": secret, "sentinel_kwargs": {"username": "user", "password": secret}},
            {**SENTINEL, "password": secret, "sentinel_kwargs": {"pasword": secret}},
            {**SENTINEL, "sentinel_kwargs": secret and {"password": [secret]}},
            ("cache", 6379, secret),
            ("cache", secret),
            {"host": "cache", "db": secret},
            [["cache", secret]],
        ):
            self.check([entry])

    @given(secret=secrets)
    def test_no_text_about_encryption_keys_holds_one(self, secret: str) -> None:
        for keys in (secret, secret.encode(), [secret], [secret, ""], [secret, 7], {secret}, [[secret]]):
            for text in self.texts(lambda keys=keys: redis_config(symmetric_encryption_keys=keys)):  # type: ignore[misc]
                assert "Zq1" not in text
                assert "Zq2" not in text

    @pytest.mark.parametrize(
        ("endpoint", "shown"),
        [
            (Endpoint(), "redis://localhost:6379"),
            (Endpoint("::1", 7, database=2), "redis://[::1]:7/2"),
            (Endpoint(username="user", password=SECRET), "redis://user:***@localhost:6379"),
            (Endpoint(password=SECRET, tls=Tls()), "rediss://:***@localhost:6379"),
            (Endpoint(username="user", password_source=str), "redis://user:***@localhost:6379"),
            (Endpoint("", 0, "/run/redis.sock", "user", SECRET, database=3), "unix://user:***@/run/redis.sock?db=3"),
            # Most likely a password in the wrong place.
            (Endpoint(username=SECRET, password=""), "redis://:***@localhost:6379"),
        ],
    )
    def test_an_endpoint_is_shown_as_a_url(self, endpoint: Endpoint, shown: str) -> None:
        assert str(endpoint) == shown
        assert repr(endpoint).startswith(f"Endpoint({shown}")
        assert SECRET not in repr(endpoint)

    def test_what_else_counts_is_in_the_repr(self) -> None:
        tls = Tls(verify=False, verify_hostname=False, certificate=b"", key=SECRET.encode())
        expected = "Tls(verify=False, verify_hostname=False, certificate=***, key=***)"
        assert repr(tls) == expected
        endpoint = Endpoint("cache", protocol=2, tls=tls)
        assert repr(endpoint) == f"Endpoint(rediss://cache:6379, protocol=2, tls={expected})"

    def test_a_host_of_sentinels_is_shown_by_them(self) -> None:
        (host,) = parse_hosts([{**SENTINEL, "sentinel_kwargs": {"password": SECRET}}])
        assert str(host) == "'mymaster' of redis://:***@s1:26379, redis://:***@s2:26380"


class TestOptionsWithoutEffect:
    def test_they_are_accepted_and_explained(self) -> None:
        options = {"socket_timeout": None, "retry_on_timeout": True, "max_connections": 5, "decode_responses": True}
        config = redis_config(
            hosts=[
                {"host": "one", **options},
                {"address": "redis://two", "client_name": "chat"},
                {**SENTINEL, "sentinel_kwargs": {"health_check_interval": 3}},
            ],
            random_prefix_length=12,
        )
        more = {"client_name", "health_check_interval", "random_prefix_length"}
        assert set(config.ignored) == {*options, *more}
        assert config.ignored["max_connections"] == "a process has one set of connections, which the layer owns"
        assert all(config.ignored.values())

    def test_every_option_of_redis_py_is_honoured_or_explained(self) -> None:
        """So that an upgrade of redis-py that adds one is noticed."""
        import inspect

        from redis.asyncio import connection, sentinel

        known = KNOWN_OPTIONS | MAPPING_OPTIONS
        classes = (
            *(redis.asyncio.Redis, redis.asyncio.BlockingConnectionPool, connection.AbstractConnection),
            *(connection.Connection, connection.SSLConnection, connection.UnixDomainSocketConnection),
            sentinel.SentinelManagedConnection,
        )
        named = {name for each in classes for name in inspect.signature(each).parameters} - {"kwargs"}
        # What its own parts hand to each other.
        internal = {
            *("connection_pool", "connection_kwargs", "himport_registry", "maintenance_state"),
            *("maintenance_notification_hash", "orig_host_address", "orig_socket_timeout"),
            *(
                "orig_socket_connect_timeout",
                "maint_notifications_pool_handler",
                "oss_cluster_maint_notifications_handler",
            ),
        }
        assert named - known - internal == set()
        assert set(connection.URL_QUERY_ARGUMENT_PARSERS) - known == set()

    def test_none_are_none(self) -> None:
        assert redis_config(hosts=["redis://one"]).ignored == {}


class TestSettings:
    def test_the_defaults_are_those_of_channels_redis(self) -> None:
        config = redis_config()
        assert (config.hosts, config.prefix, config.encryption_keys) == (parse_hosts(None), "asgi", ())
        local = config.local
        assert (local.expiry, local.group_expiry, local.capacity, local.channel_capacity) == (60, 86400, 100, [])
        assert (config.topology, config.wire, config.ring) == ("auto", "headrace", "rendezvous")
        assert (config.on_disconnect, config.on_reconnect, config.on_gap) == (None, None, None)

    def test_everything_may_be_given(self) -> None:
        config = redis_config(
            hosts=["redis://one", "redis://two"],
            prefix="chat:1",
            expiry=5,
            group_expiry=6,
            capacity=7,
            channel_capacity={"a.*": 8},
            on_disconnect="lost",
            on_reconnect="found",
            on_gap="gap",
            symmetric_encryption_keys=["one", b"two"],
            wire="channels_redis",
            topology="shards",
            send_timeout=1,
            connect_timeout=2,
            subscription_linger=0,
            max_message_bytes=1024,
            wake="future",
        )
        assert (config.topology, config.wire, config.ring) == ("shards", "channels_redis", "channels_redis")
        assert (config.send_timeout, config.connect_timeout, config.subscription_linger) == (1.0, 2.0, 0.0)
        assert (config.on_disconnect, config.on_reconnect, config.on_gap) == ("lost", "found", "gap")
        assert config.encryption_keys == (b"one", b"two")
        assert config.local.channel_capacity == [("a.*", 8)]
        assert not config.local.direct_wake
        assert repr(config) == (
            "RedisConfig(shards: redis://one:6379, redis://two:6379, prefix='chat:1', wire='channels_redis', encrypted)"
        )

    def test_capacities_may_be_compiled_already(self) -> None:
        compiled = BaseChannelLayer().compile_capacities({"a.*": 8})
        assert redis_config(channel_capacity=compiled).local.channel_capacity == compiled

    def test_the_options_have_no_repr_that_shows_them(self) -> None:
        assert SECRET not in repr(RedisOptions(hosts=[f"redis://:{SECRET}@cache"], symmetric_encryption_keys=[SECRET]))

    def test_nothing_of_it_can_be_changed(self) -> None:
        config = redis_config(hosts=["rediss://one"])
        (host,) = config.hosts
        for frozen in (config, host, host.endpoint, host.endpoint.tls):
            assert dataclasses.is_dataclass(frozen)
            for field in dataclasses.fields(frozen):
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(frozen, field.name, None)

    @pytest.mark.parametrize(
        ("config", "fault"),
        [
            ({"prefix": b"asgi"}, "Prefix must be unicode. Got b'asgi'"),
            ({"prefix": "\udc80"}, "prefix must be text that UTF-8 can hold, got '\\udc80' with half a surrogate pair"),
            ({"prefix": "x" * 101}, "at most 100 characters"),
            ({"serializer_format": "mine"}, "serializer_format must be 'msgpack' or 'json', got 'mine': messages are"),
            (
                {"serializer_format": "json", "wire": "channels_redis"},
                "serializer_format='json' does not go with wire='channels_redis'",
            ),
            ({"capacity": "many"}, "capacity must be a positive integer, got 'many'"),
            ({"capacity": None}, "capacity must be a positive integer, got None"),
            ({"capacity": "1.5"}, "capacity must be a positive integer, got 1.5"),
            ({"capacity": -1}, "capacity must be a positive integer, got -1"),
            ({"expiry": "-1"}, "expiry must be a positive number of seconds, got '-1'"),
            (
                {"symmetric_encryption_keys": "one"},
                "symmetric_encryption_keys must be a list of possible keys, got one",
            ),
            ({"symmetric_encryption_keys": {"one"}}, "must be a list of possible keys, got a set"),
            ({"symmetric_encryption_keys": ["one", None]}, "got a NoneType at position 1: is a variable not set?"),
            ({"symmetric_encryption_keys": [""]}, "got an empty one at position 0: is a variable not set?"),
            ({"wire": "json"}, "wire must be one of 'headrace', 'channels_redis', got 'json'"),
            ({"ring": "crc"}, "ring must be one of 'rendezvous', 'channels_redis', got 'crc'"),
            ({"ring": "crc", "wire": "channels_redis"}, "ring must be one of"),
            ({"topology": "ring"}, "topology must be one of 'auto', 'single'"),
            ({"wake": "soon"}, "wake must be one of 'direct', 'future', got 'soon'"),
            ({"expiry": 0}, "expiry must be a positive number of seconds, got 0"),
            ({"group_expiry": None}, "group_expiry must be a positive number"),
            ({"channel_capacity": {"a": -1}}, "channel_capacity['a'] must be a positive integer"),
            ({"send_timeout": 0}, "send_timeout must be a positive number"),
            ({"connect_timeout": None}, "connect_timeout must be a positive number"),
            ({"subscription_linger": -1}, "subscription_linger must be a positive number"),
            ({"subscription_linger": None}, "subscription_linger must be a positive number"),
            ({"max_message_bytes": 1023}, "max_message_bytes must be an integer from 1024 to 536870912, got 1023"),
            ({"max_message_bytes": 2**30}, "max_message_bytes must be an integer from 1024 to 536870912"),
            ({"on_disconnect": ""}, "on_disconnect must be the type of a message"),
            ({"on_reconnect": print}, "on_reconnect must be the type of a message"),
            ({"on_gap": 5}, "on_gap must be the type of a message, such as 'redis.disconnect', or None, got 5"),
            ({"hosts": ["cache"]}, "hosts[0]: a URL must begin with"),
        ],
        ids=label,
    )
    def test_a_wrong_setting_is_told_what_is_wrong(self, config: dict[str, Any], fault: str) -> None:
        assert fault in refused(lambda: redis_config(**config))


class TestPrefix:
    def test_any_text_is_taken(self) -> None:
        for prefix in ("", "my app", "gr\u00fcn", "a:b*", "%7B"):
            config = redis_config(prefix=prefix)
            assert config.prefix == config.given_prefix == prefix

    def test_braces_make_no_hash_tag(self) -> None:
        config = redis_config(prefix="{chat}")
        assert (config.prefix, config.given_prefix) == ("%7Bchat%7D", "{chat}")
        assert redis_config(prefix="{chat}", wire="channels_redis").prefix == "{chat}"


class TestTopology:
    one = ("redis://one",)
    two = ("redis://one", "redis://two")

    @pytest.mark.parametrize(
        ("hosts", "topology", "expected"),
        [
            (one, "auto", "auto"),
            (two, "auto", "auto"),
            ([SENTINEL], "auto", "sentinel"),
            ([SENTINEL, SENTINEL], "auto", "shards"),
            (one, "single", "single"),
            (one, "shards", "shards"),
            ([SENTINEL], "shards", "shards"),
            ([SENTINEL], "sentinel", "sentinel"),
            (one, "cluster", "cluster"),
            (two, "cluster", "cluster"),
            (["rediss://one"], "serverless", "serverless"),
        ],
    )
    def test_the_topology_is_what_the_hosts_are_unless_said(self, hosts: Any, topology: Any, expected: str) -> None:
        assert redis_config(hosts=hosts, topology=topology).topology == expected

    @pytest.mark.parametrize(
        ("config", "fault"),
        [
            ({"hosts": two, "topology": "single"}, "topology='single' takes one host, got 2; several are 'shards'"),
            ({"hosts": two, "topology": "sentinel"}, "topology='sentinel' takes one host, got 2"),
            ({"hosts": two, "topology": "serverless"}, "topology='serverless' takes one host, got 2"),
            (
                {"hosts": one, "topology": "sentinel"},
                "topology='sentinel' needs a host with sentinels, got redis://one",
            ),
            ({"hosts": [SENTINEL], "topology": "single"}, "topology='single' takes no sentinels, got 'mymaster' of"),
            ({"hosts": [SENTINEL], "topology": "cluster"}, "topology='cluster' takes no sentinels"),
            ({"hosts": ["redis://:s3cr3t@one/1"], "topology": "cluster"}, "has only database 0, got redis://:***@one"),
            ({"hosts": ["redis://one/1"], "topology": "serverless"}, "topology='serverless' has only database 0"),
            ({"hosts": ["unix:///r.sock"], "topology": "cluster"}, "is reached by TCP, got unix:///r.sock"),
            ({"topology": "cluster", "wire": "channels_redis"}, "does not go with topology='cluster'"),
            ({"topology": "serverless", "wire": "channels_redis"}, "does not go with topology='serverless'"),
            (
                {"hosts": two, "wire": "channels_redis", "ring": "rendezvous"},
                "ring='rendezvous' with wire='channels_redis' would send to other hosts",
            ),
        ],
        ids=label,
    )
    def test_settings_that_exclude_each_other_are_refused(self, config: dict[str, Any], fault: str) -> None:
        assert fault in refused(lambda: redis_config(**config))

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ({}, "rendezvous"),
            ({"ring": "channels_redis"}, "channels_redis"),
            ({"wire": "channels_redis"}, "channels_redis"),
            ({"wire": "channels_redis", "ring": "rendezvous", "hosts": one}, "channels_redis"),
            ({"wire": "headrace", "ring": "rendezvous"}, "rendezvous"),
        ],
    )
    def test_the_ring_follows_the_wire(self, config: dict[str, Any], expected: str) -> None:
        made: RedisConfig = redis_config(**{"hosts": self.two, **config})
        assert made.ring == expected
