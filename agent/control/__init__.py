"""The same commands as over MQTT, over a Unix socket; the status file; and where both are."""

from agent.control.client import NoAgentError, request
from agent.control.places import (
    Folders,
    folders,
    make,
    read_status,
    remove_status,
    runtime_to_ask,
    write_status,
)
from agent.control.protocol import GROUP, parse_request
from agent.control.server import ControlServer, Dispatch, Peer

__all__ = [
    "GROUP",
    "ControlServer",
    "Dispatch",
    "Folders",
    "NoAgentError",
    "Peer",
    "folders",
    "make",
    "parse_request",
    "read_status",
    "remove_status",
    "request",
    "runtime_to_ask",
    "write_status",
]
