"""The frames of the demo's chat: what a browser may send, and how a room becomes a group.

Pure functions of their input: no socket, no layer.
Every frame is one JSON object in a text frame, told apart by `type`.

From the browser: `join` (room, name, optional secret), `say` (text, optional ref), `leave`, `load` (members, layer),
`unload`. To the browser: `hello`, `joined`, `presence`, `message`, `sent`, `left`, `load`, `unloaded`, `error`; and
`resumed` and `caught_up`, where rooms have a history. What is said in a room has the `position` of the browser then.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any

from headrace._demo.load import LAYERS, MOST, LayerName

MAX_NAME = 40
MAX_ROOM = 60
MAX_TEXT = 2000
MAX_REF = 64
MAX_SECRET = 64


class BadFrame(ValueError):
    """A frame that the chat does not understand or cannot act on now; its text is fit to be shown to the sender."""


@dataclass(frozen=True, slots=True)
class Join:
    """Enter `room` under `name`; who comes again with the same `secret` is the same visitor."""

    room: str
    name: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Say:
    """Send `text` to the room; `ref` comes back with it, so that the sender knows its own."""

    text: str
    ref: str | None


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave the room and keep the socket."""


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Simulate `members` on a layer, in the place of a load of this browser's that may be running."""

    members: int
    layer: LayerName


@dataclass(frozen=True, slots=True)
class StopLoad:
    """End the load."""


Frame = Join | Say | Leave | StartLoad | StopLoad


def parse(text: str | None) -> Frame:
    """Read one frame from a browser; `None` stands for a binary frame.

    Raises:
        BadFrame: The frame is not one of those named above; the error says what was expected.
    """
    content = _decode(text)
    kind = content.get("type")
    if kind == "join":
        room, name = _tidy(content, "room", MAX_ROOM), _tidy(content, "name", MAX_NAME)
        return Join(room, name, _optional(content, "secret", MAX_SECRET))
    if kind == "say":
        return Say(_field(content, "text", MAX_TEXT), _optional(content, "ref", MAX_REF))
    if kind == "load":
        return StartLoad(_members(content), _layer(content))
    if isinstance(kind, str) and kind in _BARE:
        return _BARE[kind]
    raise BadFrame(f"type must be join, say, leave, load or unload, got {_shown(kind)}")


_BARE: dict[str, Leave | StopLoad] = {"leave": Leave(), "unload": StopLoad()}


def _members(content: dict[str, Any]) -> int:
    members = content.get("members")
    if type(members) is not int or not 1 <= members <= MOST:
        raise BadFrame(f"members must be a number from 1 to {MOST}, got {_shown(members)}")
    return members


def _layer(content: dict[str, Any]) -> LayerName:
    name = content.get("layer")
    for known in LAYERS:
        if name == known:
            return known
    raise BadFrame(f"layer must be {' or '.join(LAYERS)}, got {_shown(name)}")


def group_name(room: str) -> str:
    """Return the group of a room: one group per room name, whatever characters it holds.

    A digest and not an escape, because a group name has at most 100 characters from a small
    alphabet, and a room's name may need more than that once escaped.
    """
    digest = hashlib.sha256(room.encode()).hexdigest()
    return f"demo.room.{digest}"


def visitor_id(secret: str | None) -> str:
    """Return the id that others see: a digest, so that nobody can come as somebody else; a new one without a secret."""
    return secrets.token_hex(8) if secret is None else hashlib.sha256(secret.encode()).hexdigest()[:16]


def with_position(text: str, position: str | None) -> str:
    """Add where the browser is to a frame, without encoding it again."""
    return text if position is None else f'{text[:-1]}, "position": "{position}"}}'


def _decode(text: str | None) -> dict[str, Any]:
    if text is None:
        raise BadFrame("expected a text frame with a JSON object, got a binary frame")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFrame(f"expected a JSON object, got {_shown(text)}") from None
    if not isinstance(content, dict):
        raise BadFrame(f"expected a JSON object, got {_shown(content)}")
    return content


def _field(content: dict[str, Any], key: str, longest: int) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise BadFrame(f"{key} must be a string, got {_shown(value)}")
    length = len(value) if value.strip() else 0
    if not 1 <= length <= longest:
        raise BadFrame(f"{key} must have 1 to {longest} characters, got {length}")
    # JSON can spell half of a surrogate pair, which no UTF-8 text can hold.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadFrame(f"{key} must be valid Unicode text, got an unpaired surrogate")
    return value


def _optional(content: dict[str, Any], key: str, longest: int) -> str | None:
    return None if content.get(key) is None else _field(content, key, longest)


def _tidy(content: dict[str, Any], key: str, longest: int) -> str:
    """Return a field in one spelling, so that two people who type a room alike meet in it."""
    return unicodedata.normalize("NFC", _field(content, key, longest).strip())


def _shown(value: object) -> str:
    """Return a repr short enough for an error message."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
