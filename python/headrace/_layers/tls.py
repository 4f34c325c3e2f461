"""How a connection to a server is encrypted, and the options of redis-py that say so."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from headrace._layers.options import HIDDEN, TLS_OPTIONS, Refused, quoted, read_flag, read_number, read_text

__all__ = ["Tls", "TlsFiles", "tls_of"]

_REVOCATION = ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN


@dataclass(frozen=True, repr=False)
class Tls:
    """How to encrypt a connection. Certificates and the key are PEM.

    Without ``ca`` the system's authorities count. What is in files is read from ``files`` again for each connection,
    because certificates are renewed.
    """

    verify: bool = True
    verify_hostname: bool = True
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    files: "TlsFiles | None" = None

    def __repr__(self) -> str:
        given = [name for name in ("ca", "certificate", "key") if getattr(self, name) is not None]
        shown = "".join(f", {name}={HIDDEN}" for name in given)
        return f"Tls(verify={self.verify}, verify_hostname={self.verify_hostname}{shown})"


@dataclass(frozen=True, repr=False)
class TlsFiles:
    """Where certificates and the key are."""

    ca_certs: Any = None
    ca_data: Any = None
    ca_path: Any = None
    certificate: Any = None
    key: Any = None

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Read the authorities, the certificate and its key.

        Raises:
            Refused: One cannot be read, or is not what it has to be.
        """
        certificate = _pem("ssl_certfile", self.certificate)
        # As in redis-py, the key may be in the certificate's file.
        key = _pem("ssl_keyfile", self.key, "PRIVATE KEY") if self.key else certificate
        if key is not None and (certificate is None or b"PRIVATE KEY-----" not in key):
            raise Refused("'ssl_certfile' and 'ssl_keyfile' must both be given, or one file have both")
        if key is not None and b"ENCRYPTED" in key:
            raise Refused("the key is encrypted; decrypt its file with 'openssl pkey', and guard it by its permissions")
        return self._authorities(), certificate, key

    def _authorities(self) -> bytes | None:
        parts = [_pem("ssl_ca_certs", self.ca_certs)]
        if self.ca_data:
            text = read_text("ssl_ca_data", self.ca_data) or ""
            if "-----BEGIN CERTIFICATE-----" not in text:
                raise Refused("'ssl_ca_data' must be the text of certificates in PEM")
            parts.append(text.encode())
        if self.ca_path:
            parts += _folder_of_pem("ssl_ca_path", self.ca_path)
        found = [part for part in parts if part is not None]
        return b"\n".join(found) if found else None


def tls_of(options: Mapping[str, Any], by_class: bool) -> Tls | None:
    """Read the options of TLS; certificates are read from their files, to see that they can be. None is plain TCP.

    Args:
        options: The options of a server.
        by_class: Whether its class of connections asks for TLS.

    Raises:
        Refused: One of them is wrong, or cannot be honoured.
    """
    options, wanted = _with_context(options)
    given = {name for name in options if name in TLS_OPTIONS and options[name] is not None}
    if not (wanted or by_class):
        if given and wanted is None:
            raise Refused(f"{quoted(given)} is given, but the connection is not TLS; write rediss:// or 'ssl': True")
        return None
    _refuse_tls_options(options)
    required = _verified(options.get("ssl_cert_reqs", "required"))
    hostname = read_flag("ssl_check_hostname", options.get("ssl_check_hostname"))
    if hostname and not required:
        raise Refused("'ssl_check_hostname' is True, but 'ssl_cert_reqs' verifies nothing; leave one of them out")
    names = ("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
    files = TlsFiles(*(options.get(name) for name in names))
    read = files.read()
    return Tls(required, required and hostname is not False, *read, _one_of_equal(files) if any(read) else None)


@lru_cache
def _one_of_equal(files: TlsFiles) -> TlsFiles:
    """Give the same object for the same files, so that layers which use them share connections to sentinels."""
    return files


def _with_context(options: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool | None]:
    """Put options in the place of an ``SSLContext``, and read whether TLS is asked for."""
    switch, context = options.get("ssl"), options.get("ssl_context")
    if isinstance(switch, ssl.SSLContext):
        switch, context = True, switch
    wanted = read_flag("ssl", switch)
    if context is None:
        return options, wanted
    if not isinstance(context, ssl.SSLContext):
        raise Refused("'ssl_context' must be an ssl.SSLContext")
    if given := {name for name in options if name in TLS_OPTIONS and options[name] is not None}:
        raise Refused(f"{quoted(given)} is given beside an SSLContext; give one of them")
    return {**options, **_options_of(context)}, True if wanted is None else wanted


def _options_of(context: ssl.SSLContext) -> dict[str, Any]:
    """Read what a native connection can do as a context does it; a certificate of one's own in it cannot be seen.

    Raises:
        Refused: It asks for what cannot be done, so that the connection would be weaker.
    """
    instead = "give True, and 'ssl_...' options for what is in it"
    if context.get_ciphers() != ssl.SSLContext(context.protocol).get_ciphers():
        raise Refused(f"an SSLContext with ciphers of its own cannot be honoured; {instead}")
    if context.minimum_version > ssl.TLSVersion.TLSv1_2:
        raise Refused(f"an SSLContext that asks for more than TLS 1.2 cannot be honoured; {instead}")
    if context.verify_flags & _REVOCATION:
        raise Refused(f"an SSLContext that looks at revocation lists cannot be honoured; {instead}")
    if context.verify_mode is ssl.CERT_NONE:
        return {"ssl_cert_reqs": "none"}
    stats = context.cert_store_stats()
    if stats["x509"] != stats["x509_ca"]:
        raise Refused(f"an SSLContext that trusts a certificate of no authority cannot be read; {instead}")
    authorities = map(ssl.DER_cert_to_PEM_cert, context.get_ca_certs(binary_form=True))
    # One without any looks into the system's folder when it has to.
    return {"ssl_check_hostname": context.check_hostname, "ssl_ca_data": "".join(authorities) or None}


def _refuse_tls_options(options: Mapping[str, Any]) -> None:
    if options.get("ssl_password"):
        raise Refused("'ssl_password' is not supported; decrypt the key with 'openssl pkey', and guard its file")
    oldest = options.get("ssl_min_version")
    if oldest is not None and read_number("ssl_min_version", oldest, -2, 0xFFFF) > ssl.TLSVersion.TLSv1_2:
        raise Refused("'ssl_min_version' asks for more than TLS 1.2; let the server refuse it, by 'tls-protocols'")


def _verified(value: object) -> bool:
    if value is None or isinstance(value, int):
        return value not in (None, ssl.CERT_NONE)
    if value not in ("none", "optional", "required"):
        raise Refused("'ssl_cert_reqs' must be 'required', 'optional', 'none' or one of ssl.VerifyMode")
    return value != "none"


def _folder_of_pem(option: str, folder: Any) -> list[bytes]:
    try:
        # Each certificate is usually there twice, by name and as a link by its hash.
        files = {file.resolve() for file in Path(folder).iterdir() if file.is_file()}
        found = [content for file in sorted(files) if b"-----BEGIN CERTIFICATE-----" in (content := file.read_bytes())]
    except (OSError, TypeError) as error:
        raise Refused(f"{option!r} cannot be read: {_why(error)}") from None
    if not found:
        raise Refused(f"{option!r} names a folder without certificates in PEM")
    return found


def _pem(option: str, file: Any, kind: str = "CERTIFICATE") -> bytes | None:
    if not file:
        return None
    try:
        content = Path(file).read_bytes()
    except (OSError, TypeError) as error:
        raise Refused(f"{option!r} cannot be read: {_why(error)}; check the path and its permissions") from None
    if f"{kind}-----".encode() not in content:
        raise Refused(f"{option!r} names a file without a {kind.lower()} in PEM")
    return content


def _why(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is no path"
