"""One worker of the demo by itself, which drains when it is told to end."""

import os

from headrace import RedisChannelLayer, drain_on_sigterm
from headrace._demo import make_app
from headrace._demo.app import HISTORY, PRESENCE

linger = float(os.environ["HEADRACE_TEST_LINGER"])
layer = RedisChannelLayer(
    [os.environ["HEADRACE_TEST_REDIS"]],
    os.environ["HEADRACE_TEST_PREFIX"],
    history=HISTORY,
    presence={rooms: {**options, "linger": linger} for rooms, options in PRESENCE.items()},
)
application = drain_on_sigterm(make_app(layer), seconds=60, spread=1)
