"""Envelopes of headrace's wire, as docs/protocol.md describes them, for who forges some."""

import struct

_SEQUENCE = 10
"""Where the sequence begins: behind the version, the kind and the sender."""


def ahead(envelope: bytes, by: int) -> bytes:
    """Return an envelope as if its sender had sent so many more before it."""
    (sequence,) = struct.unpack_from(">Q", envelope, _SEQUENCE)
    forged = bytearray(envelope)
    struct.pack_into(">Q", forged, _SEQUENCE, sequence + by)
    return bytes(forged)
