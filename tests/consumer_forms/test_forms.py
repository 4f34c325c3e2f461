"""Each form of consumers, routes and helpers works over a real server with a real client."""

import json
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus

if TYPE_CHECKING:
    from tests.consumer_forms.conftest import Forms

# One server; each process reads the notes of its own.
pytestmark = pytest.mark.xdist_group("forms")


@pytest.mark.parametrize(("path", "who"), [("/parrot/", "parrot"), ("/parrot/async/", "async parrot")])
async def test_a_plain_consumer_answers_and_hears_of_the_end(forms: "Forms", path: str, who: str) -> None:
    socket = await forms.open(path)
    await socket.send("hello")
    assert await forms.hear(socket) == "squawk hello"
    await socket.close(4000)
    assert await forms.note_of(who) == f"{who} left with 4000"


async def test_a_json_consumer_sends_in_connect_and_takes_content_alone(forms: "Forms") -> None:
    socket = await forms.open("/counter/")
    assert await forms.hear_json(socket) == {"type": "greeting", "count": 0}
    await socket.send(json.dumps({"type": "count.up", "by": 4}))
    assert await forms.hear_json(socket) == {"type": "counted", "count": 5}
    await socket.close()
    assert await forms.note_of("counter") == "counter left with 1000"


async def test_a_channel_that_the_consumer_names_itself_is_listened_to(forms: "Forms") -> None:
    one, other = [await forms.open("/board/") for _ in range(2)]
    names = [(await forms.hear_json(socket))["channel"] for socket in (one, other)]
    assert [name.startswith("board.") for name in names] == [True, True]
    assert len(set(names)) == 2
    await one.send(json.dumps({"note": "lost: a cat"}))
    for socket in (one, other):
        assert await forms.hear_json(socket) == {"type": "pinned", "note": "lost: a cat"}
    await one.close()
    assert await forms.note_of("board") == "board left with 1000, 1 remain"
    await other.send(json.dumps({"note": "found"}))
    assert await forms.hear_json(other) == {"type": "pinned", "note": "found"}
    await other.close()
    assert await forms.note_of("board") == "board left with 1000, 0 remain"


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize(("path", "word"), [("/texts", "text"), ("/texts/other", "other text")])
async def test_routes_are_pairs_of_a_path_and_a_class(forms: "Forms", path: str, word: str, slash: str) -> None:
    socket = await forms.open(path + slash)
    await socket.send("hello")
    assert await forms.hear(socket) == f"{word} hello"


async def test_a_router_by_protocol_leads_to_a_router_by_path(forms: "Forms") -> None:
    socket = await forms.open("/greeter/")
    await socket.send("nobody answers")
    await (await socket.ping())


async def test_a_path_that_no_pair_has_is_refused(forms: "Forms") -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await forms.open("/greeter/else/")
    assert refusal.value.response.status_code == 404


async def test_a_method_decorated_with_database_sync_to_async_runs_without_django(forms: "Forms") -> None:
    socket = await forms.open("/customer/")
    assert await forms.hear_json(socket) == {"type": "customer", "customer": {"number": 7, "name": "ada"}}


async def test_a_whole_chat(forms: "Forms") -> None:
    came, left = {"type": "came", "guest": "somebody"}, {"type": "left", "guest": "somebody"}
    ada = await forms.open("/pub/")
    assert await forms.hear_json(ada) == came
    bob = await forms.open("/pub/")
    assert [await forms.hear_json(ada), await forms.hear_json(bob)] == [came, came]
    await ada.send(json.dumps({"type": "speech", "guest": "ada", "text": "cheers"}))
    for guest in (ada, bob):
        # The scope has no room, so the default named the group.
        assert await forms.hear_json(guest) == {"type": "speech", "guest": "ada", "text": "cheers", "pub": "pub_snug"}
    await bob.send(json.dumps({"type": "shrug"}))
    await bob.send(json.dumps({"type": "speech"}))
    assert await forms.hear_json(ada) == {"type": "speech", "guest": "somebody", "text": "", "pub": "pub_snug"}
    await bob.close()
    assert await forms.hear_json(ada) == left
