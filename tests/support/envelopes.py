"""Envelopes of headrace's wire, as docs/reference/protocol.md describes them, for who forges some."""

import base64
import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

HEADER, IV, MAC = 26, 16, 32
GROUP, DIRECT, CONTROL, ENCRYPTED = 0, 1, 2, 16

_SENDER, _SEQUENCE, _DEADLINE = 2, 10, 18


def restamp(
    envelope: bytes, *, sender: int | None = None, sequence: int | None = None, deadline: int | None = None
) -> bytes:
    """Return an envelope with other numbers in its header."""
    forged = bytearray(envelope)
    for place, number in ((_SENDER, sender), (_SEQUENCE, sequence), (_DEADLINE, deadline)):
        if number is not None:
            struct.pack_into(">Q", forged, place, number)
    return bytes(forged)


def ahead(envelope: bytes, by: int) -> bytes:
    """Return an envelope as if its sender had sent so many more before it."""
    (sequence,) = struct.unpack_from(">Q", envelope, _SEQUENCE)
    return restamp(envelope, sequence=sequence + by)


def header(version: int, flags: int, sender: int, sequence: int, deadline: int) -> bytes:
    """Build what every envelope begins with."""
    return struct.pack(">BBQQQ", version, flags, sender, sequence, deadline)


def seal(key: str, destination: str, head: bytes, body: bytes, iv: bytes | None = None) -> bytes:
    """Build an envelope of version 2."""
    iv = iv or os.urandom(IV)
    padder = PKCS7(128).padder()
    padded = padder.update(body) + padder.finalize()
    encryptor = Cipher(algorithms.AES(_derived(key, "encryption")[:16]), modes.CBC(iv)).encryptor()
    text = iv + encryptor.update(padded) + encryptor.finalize()
    return head + text + _code(key, destination, head, text)


def unseal(key: str, destination: str, envelope: bytes) -> bytes:
    """Return the body of an envelope of version 2.

    Raises:
        ValueError: The key did not make it, or not for this destination.
    """
    head, text, code = envelope[:HEADER], envelope[HEADER:-MAC], envelope[-MAC:]
    if not hmac.compare_digest(code, _code(key, destination, head, text)):
        raise ValueError("it was made by another key, or for another destination, or changed")
    cipher = Cipher(algorithms.AES(_derived(key, "encryption")[:16]), modes.CBC(text[:IV]))
    decryptor, unpadder = cipher.decryptor(), PKCS7(128).unpadder()
    padded = decryptor.update(text[IV:]) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def membership(key: str, members: str, field: str, end: int) -> str:
    """Build the value of a field of the hash of memberships."""
    signed = "\0".join((members, field, str(end))).encode()
    code = hmac.digest(_derived(key, "members"), signed, "sha256")
    return f"{end} {base64.urlsafe_b64encode(code).decode().rstrip('=')}"


def _derived(key: str, purpose: str) -> bytes:
    return hmac.digest(hashlib.sha256(key.encode()).digest(), f"headrace 2 {purpose}".encode(), "sha256")


def _code(key: str, destination: str, head: bytes, text: bytes) -> bytes:
    signed = head + hashlib.sha256(text).digest() + destination.encode()
    return hmac.digest(_derived(key, "envelope"), signed, "sha256")
