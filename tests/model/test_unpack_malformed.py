"""Bytes that are no message: refused with a ``ValueError`` that tells where, in no more memory than they fill.

The reference is ``msgpack``, with what a message may not be on top: every input that one takes, the other takes too, as
the same value.
"""

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.ids import label

from headrace._core import unpack


class NoMessage(Exception):
    """msgpack takes it, but it is no message."""


def checked(value: Any, depth: int = 1) -> Any:
    """Refuse what a message may not hold."""
    if isinstance(value, msgpack.ExtType | msgpack.Timestamp) or (depth > 64 and isinstance(value, list | dict)):
        raise NoMessage
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        checked(item, depth + 1)
    return value


def by_msgpack(data: bytes) -> dict[str, Any] | None:
    """Decode with the reference; None if it is no message."""
    try:
        value = checked(msgpack.unpackb(data))
    except (NoMessage, ValueError):
        return None
    return value if isinstance(value, dict) else None


def by_headrace(data: bytes) -> dict[str, Any] | None:
    """Decode, and hold a refusal to what it promises."""
    try:
        return unpack(data)
    except ValueError as error:
        refusal = error
    assert type(refusal) is ValueError
    told = re.search(r"\(byte (\d+)\)$", str(refusal))
    assert told is not None
    assert int(told[1]) <= len(data)
    return None


def agree(data: bytes) -> None:
    """Hold both against each other; by their texts, because nan is not equal to itself."""
    assert repr(by_headrace(data)) == repr(by_msgpack(data))


names = st.one_of(st.text(max_size=10), st.binary(max_size=10))
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=40),
        st.binary(max_size=40),
        st.builds(lambda length: "x" * length, st.integers(250, 300)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(names, inner, max_size=5)),
    max_leaves=8,
)
messages = st.dictionaries(names, values, max_size=5).map(msgpack.packb)
# Bytes that begin something, more often than chance has them.
markers = st.sampled_from([*range(0xC0, 0xE0), 0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xA1, 0xBF, 0xFF])
likely = st.lists(st.one_of(markers, st.integers(0, 255)), max_size=40).map(bytes)
lengths = st.sampled_from([b"\0", b"\1", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1\0\0"])
hostile = st.builds(
    lambda marker, length, rest: b"\x81\xa1a" + bytes([marker]) + length + rest,
    markers,
    lengths,
    st.binary(max_size=20),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Change some bytes of a message: replaced, left out, put in."""
    data = bytearray(draw(messages))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = bytes(
            draw(st.lists(st.one_of(markers, st.integers(0, 255)), max_size=2))
        )
    return bytes(data)


@given(messages)
def test_a_message_is_read_as_msgpack_reads_it(data: bytes) -> None:
    assert by_headrace(data) is not None
    agree(data)


@given(st.one_of(st.binary(max_size=60), likely, likely.map(lambda rest: b"\x81\xa1a" + rest), hostile))
@example(b"")
@example(b"\xc1")
@example(b"\x81\xc4\x01a\x01")
@example(b"\x81\x01\x01")
@example(b"\x81\xa1a\xa2\xc3\x28")
@example(b"\x81\xa1a\xa3\xed\xa0\x80")
@example(b"\x81\xa1\xff\x01")
@example(b"\x81\xa1a\xd6\xff\0\0\0\0")
@example(b"\x81\xa1a\xc7\x00\x05")
@example(b"\xdf\0\0\0\1\xdb\0\0\0\1a\xdd\0\0\0\1\xc6\0\0\0\1x")
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    agree(data)


@given(mutated())
def test_nor_does_a_message_with_other_bytes_in_it(data: bytes) -> None:
    agree(data)


@given(messages)
def test_no_part_of_a_message_is_one(data: bytes) -> None:
    for end in range(len(data)):
        assert by_headrace(data[:end]) is None
    assert by_headrace(data + b"\0") is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the message ends within a value (byte 0)"),
        (b"\x93\1\2\3", "the message is not a map (byte 0)"),
        (b"\x81\x01\x02", "a key of a map is neither a string nor a binary (byte 1)"),
        (b"\x82\xa1a\1\x90\1", "a key of a map is neither a string nor a binary (byte 4)"),
        (b"\x81\xa1a\xa2\xc3\x28", "a string is not valid UTF-8 (byte 3)"),
        (b"\x81\xa2\xc3\x28\1", "a string is not valid UTF-8 (byte 1)"),
        (b"\x81\xa1a\x92\1\xd4\1\1", "the message holds an extension type (byte 5)"),
        (b"\x81\xa1a\xc1", "the message holds the byte 0xc1, which msgpack does not use (byte 3)"),
        (b"\x81\xa1a\xdb\xff\xff\xff\xff", "the message ends within a value (byte 3)"),
        (b"\x81\xa1a\xcf\1", "the message ends within a value (byte 3)"),
        (b"\x80\x80", "more bytes follow the message (byte 1)"),
    ],
)
def test_a_refusal_tells_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        unpack(data)


@pytest.mark.parametrize("inner", [b"\x91", b"\x81\xa1a", b"\xdc\0\1", b"\xdf\0\0\0\1\xa0"])
def test_containers_may_stand_in_each_other_64_deep(inner: bytes) -> None:
    assert by_headrace(b"\x81\xa1a" + inner * 63 + b"\1") is not None
    for depth in (64, 1_000, 1_000_000):
        with pytest.raises(ValueError, match="more than 64 containers in each other"):
            unpack(b"\x81\xa1a" + inner * depth + b"\1")


def claims() -> Iterator[bytes]:
    """Make messages that claim more than there is."""
    for marker in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF):
        claim = bytes([marker]) + b"\xff\xff\xff\xff"
        yield claim
        yield b"\x81\xa1a" + claim
        yield b"\x81" + claim
        # Each list claims all that is behind it.
        yield b"\x81\xa1a" + b"".join(b"\xdd" + left.to_bytes(4, "big") for left in range(100_000 + 300, 100_000, -5))
        yield b"\x81\xa1a" + (b"\xdd\x00\x01\x00\x00" * 63) + bytes(60_000)
        yield b"\x81\xa1a" + (b"\xdd\x00\x01\x00\x00" * 62) + bytes(60_000)


def test_what_is_claimed_takes_no_memory() -> None:
    for data in claims():
        tracemalloc.start()
        assert by_headrace(data) is None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100_000 + 3 * len(data)


PROGRAM = """
import resource, sys
from headrace._core import unpack

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

parts = [b"\\x80", b"\\x90", b"\\xc4\\x00", b"\\xdd\\x00\\x0f\\xff\\xff", b"\\xcb" + bytes(8), b"\\xa2xy"]
lists = [b"\\x81\\xa1a\\xdd" + length.to_bytes(4, "big") for length in (300_000, 2**32 - 1)]
messages = [opening + part * 300_000 for part in parts for opening in lists]
before = peak()
for message in messages:
    try:
        unpack(message)
    except ValueError:
        pass
print((peak() - before) // 1024)
"""


def test_the_worst_message_takes_dozens_of_bytes_for_each_of_its_own() -> None:
    """Of all memory, not of Python's alone: empty dicts of a byte each are the worst that there is."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=True)
    assert int(run.stdout) < 60


@pytest.mark.usefixtures("uncollected")
def test_the_containers_are_counted() -> None:
    count = (2**22 - 1).to_bytes(4, "big")
    with pytest.raises(ValueError, match=rf"more than 4194304 containers \(byte {8 + 2**22 - 2}\)"):
        unpack(b"\x81\xa1a\xdd" + count + b"\x90" * (2**22 - 1))


@pytest.mark.parametrize("data", ["text", None, 1, [b"\x80"], bytearray(b"\x80"), memoryview(b"\x80")], ids=label)
def test_only_bytes_are_read(data: Any) -> None:
    with pytest.raises(TypeError):
        unpack(data)
