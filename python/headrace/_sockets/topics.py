"""Topics: what users call them, and the group of the layer that each one stands for.

A topic is text of any length and any characters; the name of a group is neither. A topic that could be one, and is not
too long, is readable in the name of its group, and any other is there as a digest. The two kinds begin differently, so
no topic of one can be taken for one of the other. A message carries its topic, so that a handler gets the very text.
"""

import re
import reprlib
from functools import lru_cache
from hashlib import sha256
from uuid import UUID

from headrace._layers.group_names import text_of

__all__ = ["Topic", "group_of", "topic_of", "topics_of"]

Topic = str | int | UUID
"""What a topic may be given as; 1 and "1" are one topic, as a UUID and its text are."""

_KEPT = 200
"""Characters of a topic whose group is remembered."""

_READABLE = re.compile(r"[a-zA-Z0-9\-_.]{1,80}")


def topic_of(topic: object) -> str:
    """Return a topic as text.

    Raises:
        TypeError: It is no text, no integer and no UUID.
        ValueError: It holds half of a surrogate pair, which nothing can carry.
    """
    text = text_of(topic)
    if text is None:
        raise TypeError(
            f"channel: a topic must be a str, an int or a UUID, got {reprlib.repr(topic)}, which is of type "
            f"{type(topic).__name__}"
        )
    group_of(text)
    return text


def topics_of(topics: object) -> list[str]:
    """Return one topic, or those of a list, tuple or set, as text.

    Raises:
        TypeError, ValueError: As ``topic_of``; nothing else is looked at then.
    """
    if isinstance(topics, list | tuple | set | frozenset):
        return [topic_of(topic) for topic in topics]
    return [topic_of(topics)]


def group_of(topic: str) -> str:
    """Return the group of a topic.

    Raises:
        ValueError: The topic holds half of a surrogate pair.
    """
    # A long one may be the client's, and be as long as it likes: it is not kept.
    return _group_of(topic) if len(topic) <= _KEPT else _group_of.__wrapped__(topic)


@lru_cache(maxsize=4096)
def _group_of(topic: str) -> str:
    if _READABLE.fullmatch(topic):
        return f"socket.t.{topic}"
    try:
        encoded = topic.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"channel: a topic must be text that UTF-8 can hold, got {reprlib.repr(topic)} with half of a surrogate "
            f"pair at position {error.start}"
        ) from None
    return f"socket.d.{sha256(encoded).hexdigest()}"
