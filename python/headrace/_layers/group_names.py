"""Names of groups, made from any text: of a user, a room, whatever a project groups its connections by."""

import re
from hashlib import sha256
from uuid import UUID

from headrace._layers.base import BaseChannelLayer

__all__ = ["group_name", "text_of"]

# What stays as it is in a name. The dot separates the parts, and the underscore begins what was replaced.
_REPLACED = re.compile(rb"[^a-zA-Z0-9\-]")


def group_name(*parts: str | int | UUID) -> str:
    """Make the name of a group from any text.

    The same parts give the same name in every process and release, and other parts another name. Letters, digits
    and hyphens of ASCII are kept, so a name can be read: ``group_name("user", "ada@example.org")`` is
    ``"user.ada_40example_2Eorg"``. Where that is longer than a name may be, the name is a digest of it.

    Args:
        parts: One or several; 1 and "1" are the same part, as a UUID and its text are.

    Returns:
        A name of at most 100 characters, which every channel layer takes.

    Raises:
        TypeError: There are no parts, or one is no text, no integer and no UUID.
        ValueError: A part holds half of a surrogate pair, which UTF-8 cannot hold.
    """
    if not parts:
        raise TypeError('group_name() needs at least one part, such as group_name("user", email)')
    name = ".".join(map(_kept, parts))
    if len(name) <= BaseChannelLayer.MAX_NAME_LENGTH:
        return name
    # Two underscores begin no other name: behind one there are two hexadecimal digits, or a dot, or nothing.
    return f"__{sha256(name.encode()).hexdigest()}"


def text_of(value: object) -> str | None:
    """Return what names something as text: a str, an int or a UUID. None for anything else."""
    if isinstance(value, str):
        # What a subclass says of itself, an enumeration say, is not what it holds.
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    return str(value) if isinstance(value, UUID) else None


def _kept(part: object) -> str:
    text = text_of(part)
    if text is None:
        raise TypeError(f"a part of a group's name must be a str, an int or a UUID, got a {type(part).__name__}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a part of a group's name must be text that UTF-8 can hold, got half of a surrogate pair at position "
            f"{error.start}"
        ) from None
    replaced = _REPLACED.sub(lambda byte: b"_%02X" % byte[0][0], encoded)
    # An empty part is an underscore alone, so that ("a", "") is not ("a",).
    return replaced.decode() or "_"
