"""room.toml -> what hands has to hold.

    python -m agent.hands.plan FILE

prints the layout as one line of JSON, or the mistakes on standard error. hands runs it as a child
at its start: the checks need libraries that hands shall not carry for years.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import settings
from agent.hands import layout
from agent.hands.boards import i2c
from agent.hands.layout import Layout, Place
from agent.kinds import indicator
from agent.model import ConfigError, Device
from agent.usb_tree import PORT

if TYPE_CHECKING:
    from agent import profiles


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the layout of a file; 78 for a wrong one."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    try:
        print(layout.dump(of(_room(Path(path)))))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 78
    return 0


def _room(path: Path) -> settings.Room:
    """The room of a file; where there is no file, that of a box that waits for one."""
    if not path.exists():
        return settings.uncommissioned(path)
    return settings.load(path)


def of(room: settings.Room) -> Layout:
    """The layout of a room; empty where it has no relay, light or button. Raises `ConfigError`
    with every board, channel or pin that cannot be."""
    planner = _Planner()
    made = Layout(
        relays=tuple(planner.relay(d) for d in room.devices if d.kind == "relay"),
        lights=tuple(planner.light(d) for d in room.devices if d.kind == "indicator"),
        buttons=tuple(planner.button(d) for d in room.devices if d.kind == "button"),
    )
    planner.check_groups(made)
    if planner.mistakes:
        head = f"{room.path or 'room.toml'}: {len(planner.mistakes)} mistakes in relays and lights"
        raise ConfigError("\n  ".join([head, *planner.mistakes]))
    return made


class _Planner:
    """Resolves boards to pins and channels, and gathers mistakes."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self._pins: dict[int, str] = {}
        self._ats: dict[str, tuple[str, str]] = {}

    def relay(self, device: Device) -> layout.Relay:
        s, where = device.settings, f"relay.{device.id}"
        place = self._place(where, s.pin, s.board, s.at, s.channel, s.active_low)
        if s.feedback_pin is not None:
            self._take(where, s.feedback_pin)
        return layout.Relay(
            id=device.id,
            place=place,
            group=s.group or "",
            power_on=s.power_on,
            on_stop=s.on_stop,
            wait_s=s.wait_ms / 1000,
            min_on_s=s.min_on_s,
            min_off_s=s.min_off_s,
            max_per_h=s.max_per_h,
            pulse_s=s.pulse_s,
            max_on_s=s.max_on_s,
            session_lock=s.session_lock,
            feedback_pin=s.feedback_pin,
            feedback_active_low=s.feedback_active_low,
        )

    def light(self, device: Device) -> layout.Light:
        s, where = device.settings, f"indicator.{device.id}"
        lamps: dict[str, Place] = {}
        for key, at in s.lamps.items():
            colour = "white" if key in ("pin", "led") else key
            if isinstance(at, int):
                lamps[colour] = self._place(where, at, None, "", None, s.active_low)
            elif at.startswith("led:"):
                lamps[colour] = Place(led=at.removeprefix("led:"))
            else:
                board, port, channel = indicator.split(at)
                lamps[colour] = self._place(where, None, board, port, channel, s.active_low)
        return layout.Light(device.id, s.role, lamps, s.quiet_in_session)

    def button(self, device: Device) -> layout.Button:
        s = device.settings
        self._take(f"button.{device.id}", s.pin)
        return layout.Button(
            id=device.id,
            pin=s.pin,
            pull_up=s.pull_up,
            debounce_s=s.debounce_s,
            check_s=s.check_s,
            maintenance_s=s.maintenance_s,
            stuck_s=s.stuck_s,
        )

    def check_groups(self, made: Layout) -> None:
        """Of a group only one relay may be on, also after power comes back."""
        starting: dict[str, str] = {}
        for relay in made.relays:
            if relay.group and relay.power_on == "on":
                if other := starting.get(relay.group):
                    self.mistakes.append(
                        f"relay.{relay.id}.power_on: {other} of group {relay.group!r} is on after"
                        " power comes back already; only one may be"
                    )
                starting.setdefault(relay.group, relay.id)

    def _place(
        self,
        where: str,
        pin: int | None,
        board: str | None,
        at: str,
        channel: int | None,
        active_low: bool | None,
    ) -> Place:
        if board is None or channel is None:
            if pin is not None:
                self._take(where, pin)
            return Place(pin=pin, active_low=bool(active_low))
        from agent import profiles  # 2 MiB that a room without boards does not pay

        profile = profiles.all_relay_boards().get(board)
        if profile is None:
            known = ", ".join(sorted(profiles.all_relay_boards()))
            self.mistakes.append(f"{where}: no board {board!r}; known are {known}")
            return Place()
        self.mistakes += [f"{where}: {m}" for m in _unfit(profile, at, channel)]
        low = profile.polarity.active_low if profile.polarity and active_low is None else active_low
        pins = profile.relays.pins if profile.relays else ()
        if profile.bus == "gpio":
            found = pins[channel - 1] if channel <= len(pins) else None
            if found is not None:
                self._take(where, found)
            return Place(pin=found, active_low=bool(low))
        self._tell_apart(where, board, at)
        return Place(board=board, spec=_spec(profile), at=at, channel=channel, active_low=bool(low))

    def _tell_apart(self, where: str, board: str, at: str) -> None:
        """With two boards of a kind "the only one there is" would be either of them."""
        first, named = self._ats.setdefault(board, (where, at))
        if at != named and not (at and named):
            self.mistakes.append(
                f'{where}: board {board} with at = "{at}", in {first} with at = "{named}":'
                " say in both which one it is"
            )

    def _take(self, where: str, pin: int) -> None:
        """A pin has one user, whatever it was called."""
        if holder := self._pins.get(pin):
            self.mistakes.append(f"{where}: GPIO {pin} is taken by {holder}")
        self._pins.setdefault(pin, where)


def _unfit(profile: profiles.RelayBoard, at: str, channel: int) -> Iterator[str]:
    relays = profile.relays
    if profile.bus == "gpio" and not (relays and relays.pins):
        yield f"board {profile.id} is wired freely: give pin (and active_low) in place of it"
    elif relays and relays.pins and channel > len(relays.pins):
        yield f"board {profile.id} has {len(relays.pins)} relays, no channel {channel}"
    elif relays and relays.count and channel > max(relays.count):
        yield f"board {profile.id} has {max(relays.count)} relays at most, no channel {channel}"
    if profile.bus == "gpio" and at:
        yield f"board {profile.id} sits on the header: leave `at` out"
    elif profile.bus != "gpio" and not profile.protocol:
        yield f"board {profile.id}: its profile names no protocol, so nothing can be sent to it"
    if profile.match and profile.match.ambiguous and not at:
        yield f"board {profile.id} looks like many another: say where it is plugged in, at = ..."
    if profile.i2c:
        try:
            i2c.where(at, profile.i2c.addresses)
        except ValueError as error:
            yield f"board {profile.id}: {error}"
    if profile.bus == "serial" and at and not (at.startswith("/dev/") or PORT.fullmatch(at)):
        yield f'board {profile.id}: at = "{at}" is neither a USB port (1-1.2) nor a path (/dev/...)'


def _spec(profile: profiles.RelayBoard) -> dict[str, Any]:
    """How a board is spoken to, as flat JSON for hands."""
    spec: dict[str, Any] = {"bus": profile.bus}
    if profile.protocol:
        spec["protocol"] = profile.protocol.value
    if profile.relays and profile.relays.count:
        spec["relays"] = max(profile.relays.count)
    if profile.match:
        spec["usb"] = list(profile.match.usb)
        spec["product"] = profile.match.product
    if profile.i2c:
        spec |= profile.i2c.model_dump(mode="json", exclude={"source"})
    if profile.serial:
        spec |= profile.serial.model_dump(mode="json", exclude={"source"})
    spec["reads_back"] = bool(profile.reads_back and profile.reads_back.value)
    return spec


if __name__ == "__main__":
    sys.exit(main())
