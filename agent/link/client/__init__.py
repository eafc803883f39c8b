"""The MQTT client of the agent: `Link`, and what it asks of a store (`Outbox`).

link        connect, serve, connect again
connection  one connection: the only door to paho
feed        what goes out on a connection, and in which order
dial        what may block on the way to a broker
timing      how fast to try again, how fast to speak
"""

from agent.link.client.dial import Word
from agent.link.client.feed import Outbox
from agent.link.client.link import Link
from agent.link.client.timing import Pace

__all__ = ["Link", "Outbox", "Pace", "Word"]
