"""One process of the fleet: it sends to the group, to the others and to the queue, and writes down what comes of it.

It is told what to do on its standard input, one JSON object a line, and answers each on its standard output. What
happens goes into a file, one JSON list a line, so that nothing of it is lost when the process is killed.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from tests.chaos.model import CLIENTS, COMPLETE, INCOMPLETE

from headrace.exceptions import ChannelFull, LayerUnavailable
from headrace.layers import RedisChannelLayer

GROUP = "room"
PRESENT = "present"
PRESENCE = {PRESENT: {"type": "chaos.presence", "interval": 0.1, "linger": 0, "max": 1000}}
# Seconds: a process that was killed or stands still for longer has left.
PRESENCE_TIMEOUT = 2.0
QUEUE = "work"
MEMBERS = 2
# Of a send; an outage that is longer makes some fail.
SEND_TIMEOUT = 1.0
# Between two messages of one kind: enough to be many, and few enough for a small machine.
PACE = 0.004
BIG = 300_000
POSITION = "__headrace_position__"


class Worker:
    """A layer, its receivers and its senders."""

    def __init__(self, url: str, name: str, log: TextIO, *, history: bool) -> None:
        self._name = name
        self._log = log
        self._random = random.Random(name)
        self._sending: list[asyncio.Task[None]] = []
        self._receiving: list[asyncio.Task[None]] = []
        self._history = history
        # The clients are to stay where they are, or to come back.
        self._stays = asyncio.Event()
        self._url = url
        self._layer = self._make_layer()

    def _make_layer(self) -> RedisChannelLayer:
        return RedisChannelLayer(
            [self._url],
            prefix="chaos",
            capacity=100_000,
            capacity_bytes=1 << 30,
            send_timeout=SEND_TIMEOUT,
            on_disconnect="chaos.lost",
            on_reconnect="chaos.back",
            on_gap="chaos.gap",
            presence=PRESENCE,
            presence_timeout=PRESENCE_TIMEOUT,
            history={GROUP: {"size": 10_000, "ttl": 300}} if self._history else None,
        )

    def _write(self, *event: Any) -> None:
        self._log.write(json.dumps([*event, time.monotonic()]) + "\n")

    async def start(self) -> str:
        """Join the group and wait at the channels; return the name of the one that is for this process alone."""
        for number in range(MEMBERS):
            channel = await self._layer.new_channel()
            await self._layer.group_add(GROUP, channel)
            self._receive(f"member-{number}", channel)
        direct = await self._layer.new_channel()
        self._receive("direct", direct)
        present = await self._layer.new_channel()
        await self._layer.presence_add(PRESENT, present, key=self._name, meta={})
        self._receive("queue", QUEUE)
        if self._history:
            for client, layer in zip(CLIENTS, (self._layer, self._make_layer()), strict=True):
                channel = await layer.new_channel()
                await layer.group_add(GROUP, channel)
                self._receiving.append(asyncio.create_task(self._come_and_go(client, layer, channel)))
        self._write("joined")
        return direct

    def _receive(self, receiver: str, channel: str) -> None:
        self._receiving.append(asyncio.create_task(self._keep_receiving(receiver, channel)))

    async def _keep_receiving(self, receiver: str, channel: str) -> None:
        while True:
            self._note(receiver, await self._layer.receive(channel))

    def _note(self, receiver: str, message: dict[str, Any]) -> None:
        if message["type"] == "chaos.message":
            self._write("got", receiver, message["id"])
        elif message["type"] != "chaos.big":
            self._write("told", receiver, message["type"])

    async def _come_and_go(self, client: str, layer: RedisChannelLayer, channel: str) -> None:
        """Be away now and then, and ask behind the last position for what was missed."""
        position = ""

        async def receive() -> None:
            nonlocal position
            while True:
                message = await layer.receive(channel)
                self._note(client, message)
                position = message.get(POSITION, position)

        while True:
            receiving = asyncio.create_task(receive())
            await asyncio.sleep(self._random.uniform(0.2, 1.0))
            while not position or self._stays.is_set():
                await asyncio.sleep(0.05)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            layer.close_channel(channel)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stays.wait(), self._random.uniform(0.0, 0.5))
            channel, complete = await self._resume(client, layer, position)
            # Else it begins anew, with the next message that comes.
            position = position if complete else ""

    async def _resume(self, client: str, layer: RedisChannelLayer, position: str) -> tuple[str, bool]:
        while True:
            with suppress(LayerUnavailable):
                channel = await layer.new_channel()
                complete = await layer.group_add(GROUP, channel, since=position)
                self._write("told", client, COMPLETE if complete else INCOMPLETE)
                return channel, bool(complete)
            await asyncio.sleep(0.05)

    async def obey(self, order: dict[str, Any]) -> Any:
        """Do what is said, and return what to answer."""
        for ended in filter(asyncio.Task.done, self._receiving):
            ended.result()
        match order["do"]:
            case "send":
                self._stays.clear()
                kinds = ("group", "direct", "queue")
                self._sending = [
                    asyncio.create_task(self._send(kind, order["round"], order["peers"])) for kind in kinds
                ]
            case "quiet":
                for task in self._sending:
                    task.cancel()
                await asyncio.gather(*self._sending, return_exceptions=True)
                self._stays.set()
            case "block":
                time.sleep(order["seconds"])  # it is the loop that is to stand still
            case "list":
                found = await self._layer.presence(PRESENT)
                return {key: len(metas) for key, metas in found.entries.items()}
            case "burst":
                for _ in range(order["count"]):
                    await self._try(self._layer.group_send(GROUP, {"type": "chaos.big", "text": "x" * BIG}))
        return self._layer.stats().connection.state

    async def _send(self, kind: str, turn: int, peers: dict[str, str]) -> None:
        for number in itertools.count():
            to = self._random.choice(sorted(peers)) if kind == "direct" else ""
            message = {"type": "chaos.message", "id": [turn, kind, self._name, number, to]}
            began = time.monotonic()
            # A cancel would leave it unknown what became of it.
            sending = asyncio.ensure_future(self._try(self._carry(kind, peers.get(to, ""), message)))
            try:
                await asyncio.shield(sending)
            finally:
                self._write("sent", await sending, message["id"], began)
            await asyncio.sleep(PACE)

    async def _carry(self, kind: str, channel: str, message: dict[str, Any]) -> None:
        match kind:
            case "group":
                await self._layer.group_send(GROUP, message)
            case "direct":
                await self._layer.send(channel, message)
            case _:
                await self._layer.send(QUEUE, message)

    async def _try(self, sending: Any) -> str:
        try:
            await sending
        except LayerUnavailable:
            return "failed"
        except ChannelFull:
            return "full"
        return "taken"


async def main(url: str, name: str, path: str, history: str = "") -> None:
    """Work until there are no more orders."""
    with open(path, "a", buffering=1) as log:
        worker = Worker(url, name, log, history=bool(history))
        answer: Any = await worker.start()
        while True:
            print(json.dumps(answer), flush=True)
            line = await asyncio.to_thread(sys.stdin.readline)
            if not line:
                return
            answer = await worker.obey(json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
