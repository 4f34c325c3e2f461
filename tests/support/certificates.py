"""A certificate authority of the tests."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOSTS = ("localhost", "127.0.0.1", "::1")


_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Authority:
    """Issues certificates. Each is another one, so that a client can be shown a certificate that it must not trust.

    Attributes:
        certificate: Its own, as PEM.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = self._sign(
            x509.CertificateBuilder()
            .subject_name(_name("headrace tests"))
            .public_key(self._key.public_key())
            # Without these two, Python 3.13 and later trust no authority.
            .add_extension(_SIGNS, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False),
            x509.BasicConstraints(ca=True, path_length=0),
        )
        self.certificate = self._own.public_bytes(Encoding.PEM)

    def issue(self, *hosts: str) -> tuple[bytes, bytes]:
        """Issue a certificate for these names and addresses; give it and its key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.CertificateBuilder()
            .subject_name(_name(hosts[0]))
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([_san(host) for host in hosts]), critical=False),
            x509.BasicConstraints(ca=False, path_length=None),
        )
        return (
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def context(self) -> ssl.SSLContext:
        """Give what a client needs to trust its certificates, and no others."""
        return ssl.create_default_context(cadata=self.certificate.decode())

    def _sign(self, builder: x509.CertificateBuilder, constraints: x509.BasicConstraints) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = self._key.public_key()
        return (
            builder.issuer_name(_name("headrace tests"))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(constraints, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .sign(self._key, SHA256())
        )
