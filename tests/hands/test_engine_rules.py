"""No sequence of wishes, times, restarts and reboots breaks a rule of a relay."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.hands.engine import BOOT_S, HOUR_S, RETRY_S, Act, Dropped, Engine
from agent.hands.layout import Relay

RELAYS = (
    Relay("a", group="g", wait_s=0.5, min_on_s=2, max_per_h=5, pulse_s=3),
    Relay("b", group="g", wait_s=4, min_off_s=3, max_on_s=30, pulse_s=3),
    Relay("c", power_on="on", max_per_h=4, min_on_s=1, min_off_s=1, pulse_s=1.5),
    Relay("d", power_on="last", max_on_s=10, session_lock=False, pulse_s=2),
    Relay("e", group="g", wait_s=1, power_on="last", on_stop="safe", max_per_h=6),
)
RULES = {r.id: r for r in RELAYS}
IDS = st.sampled_from(sorted(RULES))


class Relays(RuleBasedStateMachine):
    """Holds the engine against a record of its acts; knows the rules, not the engine's insides."""

    @initialize(up_s=st.floats(0, 100))
    def boot(self, up_s: float) -> None:
        self.now_s = up_s
        self.engine = Engine(RELAYS)
        self.on: dict[str, bool] = defaultdict(bool)
        self.changed_s: dict[str, float] = defaultdict(lambda: -math.inf)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.in_session = True
        self.session_at_s = math.inf
        self.glass: dict[str, bool] = {}
        self.stiff: set[str] = set()
        self.booted_s = up_s
        self.take(self.engine.power_on({}, self.now_s))

    def take(self, acts: Any, *, glass: bool | None = None) -> bool:
        """Acts of a wish with or without broken glass; None: of what was promised before. True
        when all of them could be done."""
        well = True
        for act in acts:
            if isinstance(act, Dropped):
                continue
            assert isinstance(act, Act)
            assert self.on[act.relay] is not act.on, "switched to what it was"
            if act.on and not self.engine.alone(act.relay):  # the other one did not let go
                self.engine.failed(act, self.now_s)
                self.times[act.relay].append(self.now_s)
                well = False
                continue
            self.check(act, self.glass.get(act.relay, False) if glass is None else glass)
            if act.relay in self.stiff:
                self.engine.failed(act, self.now_s)
                if act.cause in ("command", "pulse", "interlock", "stop"):
                    self.times[act.relay].append(self.now_s)
                well = False
                continue
            self.on[act.relay] = act.on
            self.changed_s[act.relay] = self.now_s
            self.times[act.relay].append(self.now_s)
        return well

    def check(self, act: Act, glass: bool) -> None:
        rules, held_s = RULES[act.relay], self.now_s - self.changed_s[act.relay]
        forced = act.cause in ("max_on", "stop", "restore")
        if act.on:
            others = [r for r in RELAYS if rules.group and r.group == rules.group and r != rules]
            assert not any(self.on[r.id] for r in others), "two of a group"
            if act.cause != "power_on":
                free_s = max((self.changed_s[r.id] for r in others), default=-math.inf)
                assert self.now_s >= free_s + rules.wait_s, "no pause between two of a group"
                assert held_s >= rules.min_off_s, "on too soon"
                recent = [t for t in self.times[act.relay] if t > self.now_s - HOUR_S]
                assert len(recent) < rules.max_per_h, "over budget"
        elif not forced:
            assert held_s >= rules.min_on_s, "off too soon"
        if rules.session_lock and self.locked() and not glass:
            assert act.cause in ("max_on", "pulse_end", "power_on", "restore", "stop"), act
            if act.cause == "power_on":
                assert self.now_s < self.booted_s + BOOT_S, "a late surprise"

    def locked(self) -> bool:
        return self.in_session or self.now_s >= self.session_at_s

    @rule(relay=IDS, on=st.booleans(), glass=st.booleans())
    def wish(self, relay: str, on: bool, glass: bool) -> None:
        self.take(self.engine.tick(self.now_s))
        answer = self.engine.set(relay, on, self.now_s, by="somebody", glass=glass)
        well = self.take(answer.acts, glass=glass)
        if answer.code == "ok" and well:
            assert self.on[relay] is on
        if answer.code == "pending":
            self.glass[relay] = glass
            assert answer.due_s is not None
            assert answer.due_s > self.now_s

    @rule(relay=IDS, glass=st.booleans())
    def pulse(self, relay: str, glass: bool) -> None:
        self.take(self.engine.tick(self.now_s))
        self.take(self.engine.pulse(relay, self.now_s, glass=glass).acts, glass=glass)

    @rule(seconds=st.one_of(st.floats(0, 6), st.floats(0, 4000)), on_time=st.booleans())
    def wait(self, seconds: float, on_time: bool) -> None:
        """Time passes; the loop wakes when something is due, or late and only once."""
        end_s = self.now_s + seconds
        while on_time and (due_s := self.engine.due_s()) <= end_s:
            self.now_s = max(self.now_s, due_s)
            self.take(self.engine.tick(self.now_s))
        self.now_s = end_s
        self.take(self.engine.tick(self.now_s))

    @rule(relay=IDS)
    def a_relay_sticks_or_obeys_again(self, relay: str) -> None:
        self.stiff ^= {relay}

    @rule(locked=st.booleans(), within_s=st.sampled_from([None, 0.3, 3.0, 20.0]))
    def the_agent_says(self, locked: bool, within_s: float | None) -> None:
        self.in_session = self.engine.locked = locked
        self.session_at_s = math.inf if within_s is None else self.now_s + within_s
        self.engine.lock_at_s = self.session_at_s

    @rule(held=st.booleans(), away_s=st.floats(0, 20))
    def hands_restarts(self, held: bool, away_s: float) -> None:
        """Killed and started again; the lines were held, or at least nobody moved them."""
        saved = self.engine.save()
        self.now_s += away_s
        self.engine = Engine(RELAYS)
        self.in_session, self.session_at_s = True, math.inf
        seen = dict(self.on) if held else None
        acts = self.engine.restore(saved, self.now_s, same_boot=True, seen=seen)
        assert acts == [], "nothing was wrong with the lines"
        self.take(self.engine.tick(self.now_s))

    @rule()
    def hands_stops_and_starts(self) -> None:
        self.take(self.engine.stop(self.now_s))
        self.hands_restarts(held=True, away_s=1.0)

    @rule(up_s=st.floats(5, 60))
    def power_cut(self, up_s: float) -> None:
        saved = self.engine.save()
        last = dict(self.on)
        # The clock begins anew; what was switched in the last hour may have been just now.
        self.times = defaultdict(
            list, {k: [0.0 for t in v if t > self.now_s - HOUR_S] for k, v in self.times.items()}
        )
        self.changed_s = defaultdict(
            lambda: -math.inf, {k: 0.0 for k, v in self.changed_s.items() if v > -math.inf}
        )
        self.on = defaultdict(bool)
        self.now_s = self.booted_s = up_s
        self.engine = Engine(RELAYS)
        self.in_session, self.session_at_s = True, math.inf
        assert self.engine.restore(saved, up_s, same_boot=False) == []
        self.take(self.engine.power_on(last, up_s))

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def nothing_stays_on_too_long(self) -> None:
        for name, rules in RULES.items():
            assert self.engine.on(name) is self.on[name]
            if rules.max_on_s is not None and self.on[name]:
                end_s = self.changed_s[name] + rules.max_on_s
                again_s = self.now_s + RETRY_S if name in self.stiff or self.tried(name) else end_s
                assert self.engine.due_s() <= max(end_s, again_s), "nothing is planned that ends it"

    def tried(self, name: str) -> bool:
        """Whether it is tried again and again to end it."""
        return self.engine.owes(name)


Relays.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestRelays = Relays.TestCase
