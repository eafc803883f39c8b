"""What there is to bring a device back with: /sys, the profiles, the relays of room.toml."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from agent import kinds, known_boxes, known_models, usb_tree
from agent.judge.recipe import Cure, Facts, Step, Switch, Thing
from agent.known_models import Known
from agent.lanes.watch import Watched
from agent.model import Device, Fault
from agent.settings import Room

if TYPE_CHECKING:
    from agent.hands.layout import Layout

WINDOW_S = 20.0
"""How long a device may be away after a step, where its profile says nothing: some webcams answer
nobody for 20 s after they were plugged in."""
_ON_USB = ("hid", "serial")


class Means:
    """Looks at the room each time it is asked; opens nothing."""

    def __init__(self, room: Room, root: Path) -> None:
        self._root = root
        self._devices = {d.id: d for d in room.devices if kinds.recoverable(d.kind)}
        self._parts = {
            name: kinds.passive_of(d.kind, d.settings, root) for name, d in self._devices.items()
        }
        self._switches = tuple(
            Switch(d.id, d.settings.powered, d.settings.pulse_s)
            for d in room.devices
            if d.kind == "relay" and d.settings.powered
        )
        self._hubs = known_boxes.usb_hubs(root)
        self._known: dict[str, tuple[str, Known | None]] = {}
        self._ports: dict[str, str] = {}

    def recoverable(self, device: str) -> bool:
        """Whether a device is of a kind that can be brought back."""
        return device in self._devices

    async def facts(
        self,
        watched: dict[str, Watched],
        layout: Layout | None,
        measuring: Collection[str],
    ) -> Facts:
        """The room as it is now. `layout` is what hands holds, None where there is no hands;
        `measuring` are the devices that are in use because the agent itself looks at them; one that
        a stuck worker clings to is in use by nobody else."""
        things = {}
        for name, device in self._devices.items():
            port, lane = self.port(name), watched[name].lane
            ours = name in measuring or (lane is not None and lane.clings)
            things[name] = Thing(
                id=name,
                kind=device.kind,
                required=device.required,
                port=port,
                worker=lane is not None,
                in_use=not ours and await self._in_use(name),
                updating=self._updating(name, port),
            )
        return Facts(
            things=things,
            hands=layout is not None,
            switches=self._switches,
            hubs=self._hubs,
            on_usb=_on_usb(layout) if layout is not None else (),
        )

    def port(self, device: str) -> str:
        """Where on the USB it sits now, empty for nowhere. Virtual devices sit nowhere."""
        found = self._devices[device]
        if found.virtual:
            return ""
        if port := kinds.usb_port_of(found.kind, found.settings, self._root):
            self._ports[device] = port
        return port

    def usb_id(self, port: str) -> str:
        """Who sits at a port, empty for nobody."""
        device = usb_tree.at(port, self._root) if port else None
        return device.usb_id if device is not None else ""

    def cures(self, device: str) -> tuple[Cure, ...]:
        """What its profile knows to help."""
        known = self._model(device)
        told = known.facts.get("recovery", ()) if known is not None else ()
        return tuple(Cure(Step(one["step"]), frozenset(one.get("codes", ()))) for one in told)

    def window_s(self, device: str) -> float:
        """How long it may be away after a step."""
        known = self._model(device)
        told = known.facts.get("reenumeration_s") if known is not None else None
        return float(told["value"]) if told else WINDOW_S

    def within_reach(self, device: str) -> bool:
        """Whether anything here could act on it: it sits on the USB, or hangs on a relay."""
        return bool(self.port(device)) or any(device in s.powers for s in self._switches)

    async def there(self, device: str) -> bool:
        """Whether the kernel has it, with its driver; of what is no such device nothing is said."""
        part = self._parts.get(device)
        return part is None or (await part.read()).fault is None

    async def _in_use(self, device: str) -> bool:
        part = self._parts[device]
        if part is None:
            return False
        reading = await part.read()
        return reading.fault is Fault.BUSY or reading.values.get("in_use") is True

    def _updating(self, device: str, port: str) -> bool:
        """Whether it is in its boot loader: it shows itself under another id then, at its own
        port where that is known, else anywhere."""
        if port:
            found = usb_tree.at(port, self._root)
            return found is not None and found.updating
        known = self._model(device)
        modes = set(getattr(self._devices[device].settings, "modes", ()))
        modes |= {m["usb"] for m in known.facts.get("modes", ())} if known is not None else set()
        place = self._ports.get(device, "")
        here = usb_tree.at(place, self._root) if place else None
        if here is not None and (here.updating or here.usb_id in modes):
            return True
        return bool(modes) and any(d.usb_id in modes for d in usb_tree.every(self._root))

    def _model(self, device: str) -> Known | None:
        """The model of a device: as room.toml names it, else by its USB id."""
        found = self._devices[device]
        usb_id = _told_id(found) or self.usb_id(self.port(device))
        if device in self._known and self._known[device][0] == usb_id:
            return self._known[device][1]
        known = known_models.by_id(found.profile) if found.profile else None
        if known is None and usb_id and not found.profile:
            known = known_models.by_usb(usb_id)
        self._known[device] = (usb_id, known)
        return known


def _told_id(device: Device) -> str:
    """The USB id in its `source`, empty where that names a node or a card."""
    source = str(getattr(device.settings, "source", ""))
    return source.removeprefix("usb:")[:9].lower() if source.startswith("usb:") else ""


def _on_usb(layout: Layout) -> tuple[str, ...]:
    """Relays and lights whose board hangs on the USB."""
    boards = {r.id for r in layout.relays if r.place.spec.get("bus") in _ON_USB}
    boards |= {
        light.id
        for light in layout.lights
        if any(place.spec.get("bus") in _ON_USB for place in light.lamps.values())
    }
    return tuple(sorted(boards))
