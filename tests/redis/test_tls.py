"""TLS: which certificates are accepted, and in which words one is refused; a port that speaks something else."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.support.certificates import Authority
from tests.support.ports import HOST
from tests.support.servers import Server
from tests.support.waiting import SECONDS

from headrace.exceptions import LayerUnavailable
from headrace.layers import RedisChannelLayer

Start = Callable[..., Server]

SELF_SIGNED = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -sha256"


def openssl(folder: Path, *commands: str) -> Path:
    """Run commands of openssl in a folder, as those who set servers up do; give the certificate they made."""
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


def self_signed(folder: Path, begin: datetime, end: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a certificate for localhost that has no extensions, and its key; write both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(key, SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def of_version_1(folder: Path) -> Path:
    """Make a self-signed certificate of version 1 for localhost. Newer releases of openssl make none any more."""
    now = datetime.now(UTC)
    certificate, key = self_signed(folder, now - timedelta(days=1), now + timedelta(days=1))
    signed = certificate.tbs_certificate_bytes
    version_3 = bytes.fromhex("a003020102")  # the first field; version 1 is said by leaving it out
    signed = der(0x30, signed[signed.index(version_3) + len(version_3) :])
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    signature = der(0x03, b"\0" + key.sign(signed, ec.ECDSA(SHA256())))
    file = folder / "cert.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(der(0x30, signed + ecdsa_with_sha256 + signature)))
    assert x509.load_pem_x509_certificate(file.read_bytes()).version is x509.Version.v1
    return file


def der(tag: int, content: bytes) -> bytes:
    """Encode a value of ASN.1."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


@pytest.fixture
def serve(start_redis_tls: Start, tmp_path: Path) -> Callable[..., Server]:
    """Start a server with the certificate in the test's folder."""

    def start(**options: str) -> Server:
        files = {"tls-cert-file": str(tmp_path / "cert.pem"), "tls-key-file": str(tmp_path / "key.pem")}
        return start_redis_tls(options={**files, **options})

    return start


async def attempt(host: Any, **options: Any) -> str:
    """Send through a layer of this host; give what went wrong, or nothing."""
    layer = RedisChannelLayer([host], send_timeout=SECONDS, **options)
    try:
        await layer.group_send("group", {"type": "number"})
    except LayerUnavailable as error:
        return str(error)
    else:
        return ""
    finally:
        await layer.close()


def at(server: Server, name: str = "localhost", **options: object) -> dict[str, object]:
    return {"host": name, "port": server.port, "ssl": True, **options}


@pytest.mark.parametrize("versions", ["TLSv1.2", "TLSv1.3"])
async def test_a_self_signed_certificate_is_its_own_authority(serve: Start, tmp_path: Path, versions: str) -> None:
    """It is CA:TRUE, as openssl makes it."""
    file = openssl(tmp_path, f"{SELF_SIGNED} -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1")
    server = serve(**{"tls-protocols": versions})
    assert await attempt(at(server, ssl_ca_certs=str(file))) == ""
    assert await attempt(at(server, HOST, ssl_ca_data=file.read_text())) == ""
    assert await attempt(f"rediss://localhost:{server.port}?ssl_ca_certs={file}") == ""


@pytest.mark.parametrize("versions", ["TLSv1.2", "TLSv1.3"])
async def test_a_certificate_of_version_1_is_accepted_by_its_common_name(
    serve: Start, tmp_path: Path, versions: str
) -> None:
    file = of_version_1(tmp_path)
    server = serve(**{"tls-protocols": versions})
    assert await attempt(at(server, ssl_ca_certs=str(file))) == ""
    said = await attempt(at(server, HOST, ssl_ca_certs=str(file)))
    assert "certificate is for localhost, and not for 127.0.0.1" in said
    assert "'ssl_check_hostname'" in said
    assert await attempt(at(server, HOST, ssl_ca_certs=str(file), ssl_check_hostname=False)) == ""


async def test_a_given_certificate_counts_for_its_own_names_alone(serve: Start, tmp_path: Path) -> None:
    """The common name is none of them where others are listed."""
    file = openssl(tmp_path, f"{SELF_SIGNED} -subj /CN=localhost -addext subjectAltName=DNS:redis.example")
    server = serve()
    said = await attempt(at(server, ssl_ca_certs=str(file)))
    assert "certificate is for redis.example, and not for localhost" in said
    assert await attempt(at(server, ssl_ca_certs=str(file), ssl_check_hostname=False)) == ""


async def test_another_certificate_of_the_same_name_is_refused(serve: Start, tmp_path: Path) -> None:
    """Who pretends to be the server can copy all of its certificate but the key."""
    mine = tmp_path / "mine"
    mine.mkdir()
    command = f"{SELF_SIGNED} -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    openssl(tmp_path, command)
    other = openssl(mine, command)
    said = await attempt(at(serve(), ssl_ca_certs=str(other)))
    assert "is one of an authority (CA:TRUE), which is for servers only if it is among those given" in said
    assert "'ssl_ca_certs'" in said


async def test_an_expired_certificate_is_refused_with_its_date(serve: Start, tmp_path: Path) -> None:
    """Of one that was given the dates count too."""
    self_signed(tmp_path, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
    said = await attempt(at(serve(), ssl_ca_certs=str(tmp_path / "cert.pem")))
    assert "valid until 2020-02-01T00:00:00Z only: renew it" in said


async def test_a_self_signed_certificate_that_was_not_given_is_refused_in_words(serve: Start, tmp_path: Path) -> None:
    openssl(tmp_path, f"{SELF_SIGNED} -subj /CN=localhost -addext subjectAltName=DNS:localhost")
    said = await attempt(at(serve(), ssl_ca_data=Authority().certificate.decode()))
    assert "give the certificate itself as 'ssl_ca_certs'" in said
    for debug in ("CaUsedAsEndEntity", "UnknownIssuer", "InvalidCertificate", "Other("):
        assert debug not in said


async def test_a_certificate_of_version_1_that_was_not_given_is_refused_in_words(serve: Start, tmp_path: Path) -> None:
    of_version_1(tmp_path)
    said = await attempt(at(serve(), ssl_ca_data=Authority().certificate.decode()))
    assert "X.509 version 1" in said
    assert "'ssl_ca_certs'" in said


async def test_a_server_that_asks_for_a_certificate_is_told_of(start_redis_tls: Start) -> None:
    server = start_redis_tls(options={"tls-auth-clients": "yes"})
    said = await attempt(at(server, ssl_ca_certs=str(server.ca)))
    assert "'ssl_certfile' and 'ssl_keyfile'" in said
    other = Authority().issue("client")
    files = [server.folder / "other.pem", server.folder / "other.key"]
    for file, content in zip(files, other, strict=True):
        file.write_bytes(content)
    ours = {"ssl_certfile": str(files[0]), "ssl_keyfile": str(files[1])}
    said = await attempt(at(server, ssl_ca_certs=str(server.ca), **ours))
    assert "does not accept the certificate of this side" in said


async def test_a_key_of_another_certificate_is_told_of(start_redis_tls: Start) -> None:
    server = start_redis_tls(options={"tls-auth-clients": "yes"})
    key = server.folder / "other.key"
    key.write_bytes(Authority().issue("client")[1])
    ours = {"ssl_certfile": str(server.folder / "client.pem"), "ssl_keyfile": str(key)}
    said = await attempt(at(server, ssl_ca_certs=str(server.ca), **ours))
    assert "the key in 'ssl_keyfile' is not that of the certificate in 'ssl_certfile'" in said


async def test_plain_to_a_port_of_tls_names_the_scheme(start_redis_tls: Start) -> None:
    server = start_redis_tls()
    said = await attempt(f"redis://{HOST}:{server.port}")
    assert "this port speaks TLS: use rediss://" in said
    assert str(server.port) in said


async def test_tls_to_a_plain_port_names_the_scheme(redis_server: Server) -> None:
    said = await attempt(f"rediss://{HOST}:{redis_server.port}?ssl_cert_reqs=none")
    assert "this port speaks plain Redis and no TLS: use redis://" in said


async def test_what_is_no_redis_is_told_of() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "does not speak the protocol of Redis" in await attempt(f"redis://{HOST}:{port}")
