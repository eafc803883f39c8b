"""The network from inside: a bad line, and devices of the room with addresses of their own."""

from __future__ import annotations

from bench_hands import Wrong, run

_ADDRESS = "192.168.50.20"


def network(words: list[str]) -> None:
    """`shape` (words of netem), `clear`, `device`."""
    what, rest = words[0], words[1:]
    if what == "clear":
        run("tc", "qdisc", "del", "dev", "eth0", "root")
    elif what == "shape":
        if run("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", *rest):
            raise Wrong(f"netem does not know {' '.join(rest)}")
    elif what == "device":
        _device(*rest)
    else:
        raise Wrong("shape, clear or device")


def _device(act: str, name: str, address: str = _ADDRESS) -> None:
    """A device of the room is a network namespace at the end of a wire; `ip netns exec NAME`
    runs whatever it serves."""
    if act == "add":
        wire = f"rd-{name}"
        for command in (
            f"netns add {name}",
            f"link add {wire} type veth peer name eth0 netns {name}",
            f"addr add {address.rpartition('.')[0]}.1/24 dev {wire}",
            f"link set {wire} up",
            f"-n {name} addr add {address}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        ):
            if run("ip", *command.split()):
                raise Wrong(f"ip {command}")
    elif act == "del":
        run("ip", "netns", "del", name)
    elif act in ("up", "down"):
        run("ip", "-n", name, "link", "set", "eth0", act)
    else:
        raise Wrong("device add, del, up or down")
