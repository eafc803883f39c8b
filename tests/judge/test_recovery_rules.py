"""When a device may be brought back: the rules one by one, and that none is ever broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.judge import recovery
from agent.judge.recovery import History, Refusal, Try, Wish
from agent.model import Clock, Mode, Moment

NOW = Moment(100_000.0, 1_800_000_000.0, boot="0000000a")
AGENT, PERSON = Wish("cam", by_agent=True), Wish("cam", by_agent=False)
GLASS = Wish("cam", by_agent=False, glass=True)


def may(history: History, wish: Wish, now: Moment = NOW, **room: object) -> str:
    facts: dict[str, object] = {"mode": Mode.IDLE, "session_in_s": None, **room}
    refusal = recovery.may_begin(history, wish, now=now, **facts)  # type: ignore[arg-type]
    return refusal.code if refusal else ""


def tried(
    *seconds_ago: float, healed: bool | None = False, wish: Wish = AGENT, now: Moment = NOW
) -> History:
    history = History()
    for ago in seconds_ago:
        history = recovery.claimed(history, wish.device)
        history = recovery.ended(recovery.begun(history, wish, now.after(-ago)), healed)
    return history


def test_a_quiet_room_may_be_helped() -> None:
    assert may(History(), AGENT) == may(History(), PERSON) == ""


@pytest.mark.parametrize("mode", [Mode.IN_SESSION, Mode.RECESS, Mode.MAINTENANCE])
def test_nothing_happens_in_a_hearing_nor_under_the_hands_of_a_technician(mode: Mode) -> None:
    assert may(History(), AGENT, mode=mode) == mode.value
    assert may(History(), PERSON, mode=mode) == mode.value
    broken = "" if mode is not Mode.MAINTENANCE else mode.value
    assert may(History(), GLASS, mode=mode) == broken
    assert may(History(), replace(AGENT, glass=True), mode=mode) == mode.value, "only people"


@pytest.mark.parametrize(
    ("left_s", "agent", "person"),
    [
        (None, "", ""),
        (3_600, "", ""),
        (901, "", ""),
        (900, "too_close", ""),
        (61, "too_close", ""),
        (60, "too_close", "too_close"),
        (0, "too_close", "too_close"),
    ],
)
def test_the_last_quarter_of_an_hour_belongs_to_people(
    left_s: float | None, agent: str, person: str
) -> None:
    room = {"mode": Mode.PREPARING, "session_in_s": left_s}
    assert may(History(), AGENT, **room) == agent
    assert may(History(), PERSON, **room) == person
    assert may(History(), GLASS, **room) == ""


def test_one_at_a_time_in_a_room() -> None:
    history = recovery.claimed(History(), "mic")
    assert may(history, AGENT) == may(history, GLASS) == "running"
    assert may(history, Wish("mic", by_agent=False)) == "running", "also of the same device"
    with pytest.raises(ValueError, match="mic"):
        recovery.claimed(history, "cam")
    assert may(recovery.released(history), AGENT) == ""


@pytest.mark.parametrize(
    ("tries", "pause_s"), [(1, 60), (2, 300), (3, 1_800)], ids=["first", "second", "third"]
)
def test_the_pauses_grow_with_the_tries_of_the_day(tries: int, pause_s: float) -> None:
    early = [50_000.0 + n for n in range(tries - 1)]
    assert may(tried(*early, pause_s - 1, healed=True), AGENT) == "paused"
    assert may(tried(*early, pause_s, healed=True), AGENT) == ""
    assert may(tried(*early, 0, healed=True), PERSON) == "", "a person need not wait"
    refusal = recovery.may_begin(
        tried(*early, 10, healed=True), AGENT, mode=Mode.IDLE, session_in_s=None, now=NOW
    )
    assert refusal == Refusal("paused", pause_s - 10)


def test_after_two_failures_a_person_is_called_and_the_agent_stops() -> None:
    once = tried(50_000)
    assert may(once, AGENT) == ""
    assert recovery.stopped(once) == {}
    twice = tried(60_000, 50_000)
    assert may(twice, AGENT) == "stopped"
    assert recovery.stopped(twice) == {"cam": 2}
    assert may(twice, replace(AGENT, device="mic")) == "", "another device is another matter"
    assert may(twice, PERSON) == ""


def test_success_and_a_person_and_a_fault_that_is_over_end_the_stop() -> None:
    twice = tried(60_000, 50_000)
    assert may(recovery.cleared(twice, "cam"), AGENT) == ""
    later = NOW.after(10_000)
    asked = recovery.begun(recovery.claimed(twice, "cam"), PERSON, NOW)
    assert recovery.stopped(asked) == {}, "it is at work"
    healed = recovery.ended(asked, True)
    assert healed.of("cam").failures == 0
    assert may(healed, AGENT, later) == ""
    not_healed = recovery.ended(asked, False)
    assert not_healed.of("cam").failures == 1, "the person knew of the two before"
    assert may(not_healed, AGENT, later) == ""


def test_what_came_to_nothing_is_a_try_but_no_failure() -> None:
    history = tried(50_000, healed=None)
    assert history.of("cam").failures == 0
    assert len(history.of("cam").tries) == 1


def test_the_budget_of_a_day() -> None:
    four = tried(80_000, 60_000, 40_000, 20_000, healed=True)
    assert may(four, AGENT) == "over_budget"
    refusal = recovery.may_begin(four, AGENT, mode=Mode.IDLE, session_in_s=None, now=NOW)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(86_400 - 80_000)
    assert may(four, AGENT, NOW.after(6_400)) == ""
    assert may(four, PERSON) == ""
    twelve = tried(*range(12), wish=PERSON)
    assert may(twelve, PERSON) == may(twelve, GLASS) == may(twelve, AGENT) == "over_budget"
    assert may(twelve, PERSON, NOW.after(86_400)) == ""


def test_a_restart_in_the_midst_is_a_failure() -> None:
    once = tried(50_000)
    begun = recovery.begun(recovery.claimed(once, "cam"), AGENT, NOW)
    again, broken_off = recovery.load(recovery.dump(begun))
    assert broken_off == "cam"
    assert again.running == ""
    assert recovery.stopped(again) == {"cam": 2}
    assert recovery.load(recovery.dump(once)) == (once, "")


@pytest.mark.parametrize(
    "saved",
    [
        None,
        b"",
        b"nonsense",
        b"[]",
        b'{"records":3}',
        b'{"records":{"cam":[]}}',
        b'{"records":{"cam":{"tries":[[1]],"failures":0}}}',
        b'{"records":{"cam":{"tries":[],"failures":"x"}}}',
        b'{"running":"cam"}',
    ],
)
def test_a_record_that_cannot_be_read_is_none(saved: bytes | None) -> None:
    assert recovery.load(saved) == (History(), "")


def test_the_age_of_a_try_over_a_boot() -> None:
    before = Moment(90_000, 1_800_000_000, Clock.SYNCED, "0000000a")
    after = Moment(500, 1_800_040_000, Clock.SYNCED, "0000000b")
    assert recovery.age_s(before, after) == 40_000
    # Without a clock that can be trusted, it was at least before this boot.
    assert recovery.age_s(before, replace(after, clock=Clock.UNSYNCED)) == 500
    assert recovery.age_s(replace(before, clock=Clock.HOLDOVER), after) == 500
    assert recovery.age_s(before, replace(after, utc_s=0)) == 500, "never less than this boot"
    assert recovery.age_s(before, replace(before, utc_s=0, up_s=90_010)) == 10, "one boot"
    assert recovery.age_s(before, replace(before, up_s=80_000)) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 61.0, 301.0, 1_801.0, 7_201.0, 30_000.0]),
        st.sampled_from(["agent", "agent", "person", "boot", "clock"]),
    ),
    min_size=10,
    max_size=40,
)


@given(STEPS)
def test_no_budget_and_no_pause_is_ever_overdrawn(steps: list[tuple[float, str]]) -> None:
    """A quiet room in which everything heals for a moment, boots and clocks that jump included."""
    history, true_s, up_s, boot = History(), 0.0, 0.0, 1
    synced, made = True, list[tuple[float, bool]]()
    for pause_s, what in steps:
        true_s, up_s = true_s + pause_s, up_s + pause_s
        if what == "boot":
            boot, up_s, synced = boot + 1, 0.0, False
            history, _ = recovery.load(recovery.dump(history))
        elif what == "clock":
            synced = not synced
        else:
            clock = Clock.SYNCED if synced else Clock.UNSYNCED
            utc_s = 1_800_000_000 + true_s if synced else 4e9
            now, wish = Moment(up_s, utc_s, clock, f"{boot:08x}"), Wish("cam", what == "agent")
            if not may(history, wish, now):
                history = recovery.begun(recovery.claimed(history, "cam"), wish, now)
                history = recovery.ended(history, True)
                made.append((true_s, wish.by_agent))
    for index, (at_s, by_agent) in enumerate(made):
        day = [m for m in made[:index] if at_s - m[0] < 86_400]
        assert len(day) < recovery.A_DAY
        if by_agent:
            assert sum(m[1] for m in day) < recovery.BY_AGENT_A_DAY
            pauses = recovery.PAUSES_S
            assert not day or at_s - day[-1][0] >= pauses[min(len(day), len(pauses)) - 1]


class Room(RuleBasedStateMachine):
    """Anything may happen in any order; what the agent knows is held against what is true."""

    devices = st.sampled_from(["cam", "mic"])

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.true_s = 0.0  # what a perfect clock would say
        self.up_s, self.boot, self.clock, self.skew_s = 0.0, 1, Clock.UNSYNCED, -1e9
        self.mode, self.session_in_s = Mode.IDLE, None
        self.wish: Wish | None = None
        self.begun: dict[str, list[tuple[float, bool]]] = {"cam": [], "mic": []}
        self.failures = {"cam": 0, "mic": 0}

    @property
    def now(self) -> Moment:
        skew_s = 0.0 if self.clock is Clock.SYNCED else self.skew_s
        utc_s = 1_800_000_000 + self.true_s + skew_s
        return Moment(self.up_s, utc_s, self.clock, f"{self.boot:08x}")

    @rule(seconds=st.one_of(st.sampled_from([61.0, 301.0, 1_801.0, 7_201.0]), st.floats(0, 1e5)))
    def time_passes(self, seconds: float) -> None:
        self.true_s += seconds
        self.up_s += seconds

    @rule(clock=st.sampled_from(Clock), skew_s=st.sampled_from([-2e8, -3_600.0, 1e5, 2e8]))
    def the_clock_jumps(self, clock: Clock, skew_s: float) -> None:
        self.clock, self.skew_s = clock, skew_s

    @rule(
        mode=st.sampled_from([Mode.IDLE] * 5 + list(Mode)),
        left_s=st.sampled_from([None, None, None, 50.0, 60.0, 900.0, 900.1]),
    )
    def the_room_changes(self, mode: Mode, left_s: float | None) -> None:
        self.mode, self.session_in_s = mode, left_s

    @rule(reboot=st.booleans())
    def the_agent_starts_again(self, reboot: bool) -> None:
        if self.wish is not None and self.history.running:
            self._failed(self.wish, False)
        self.history, _ = recovery.load(recovery.dump(self.history))
        self.wish = None
        if reboot:
            self.boot, self.up_s, self.clock = self.boot + 1, 0.0, Clock.UNSYNCED
            self.true_s += 20

    @rule(
        device=st.sampled_from(["cam", "cam", "mic"]),
        by_agent=st.sampled_from([True, True, False]),
        glass=st.booleans(),
    )
    def somebody_wants_it(self, device: str, by_agent: bool, glass: bool) -> None:
        wish = Wish(device, by_agent, glass)
        refusal = recovery.may_begin(
            self.history, wish, mode=self.mode, session_in_s=self.session_in_s, now=self.now
        )
        if refusal is not None:
            assert refusal.wait_s is None or refusal.wait_s > 0
            return
        assert self.wish is None, "two at once"
        self._was_right(wish)
        self.history = recovery.begun(recovery.claimed(self.history, device), wish, self.now)
        self.wish = wish
        self.begun[device].append((self.true_s, by_agent))

    def _was_right(self, wish: Wish) -> None:
        broken = wish.glass and not wish.by_agent
        assert self.mode is not Mode.MAINTENANCE
        assert broken or self.mode in (Mode.IDLE, Mode.PREPARING)
        if self.session_in_s is not None and not broken:
            assert self.session_in_s > (900 if wish.by_agent else 60)
        day = [b for b in self.begun[wish.device] if self.true_s - b[0] < 86_400]
        assert len(day) < recovery.A_DAY
        if wish.by_agent:
            assert sum(by_agent for _, by_agent in day) < recovery.BY_AGENT_A_DAY
            assert self.failures[wish.device] < recovery.MAX_FAILURES
            if day:
                pause_s = recovery.PAUSES_S[min(len(day), len(recovery.PAUSES_S)) - 1]
                assert self.true_s - day[-1][0] >= pause_s - 1e-3

    @precondition(lambda self: self.wish is not None)
    @rule(healed=st.sampled_from([True, False, False, None]))
    def it_ends(self, healed: bool | None) -> None:
        assert self.wish is not None
        self._failed(self.wish, healed)
        self.history = recovery.ended(self.history, healed)
        self.wish = None

    def _failed(self, wish: Wish, healed: bool | None) -> None:
        before = self.failures[wish.device] if wish.by_agent else 0
        self.failures[wish.device] = 0 if healed else before + (healed is False)

    @rule(device=devices)
    def the_fault_is_over(self, device: str) -> None:
        if self.history.running != device:
            self.failures[device] = 0
        self.history = recovery.cleared(self.history, device)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.history.running == (self.wish.device if self.wish else "")
        for device, record in self.history.records.items():
            assert all(isinstance(t, Try) for t in record.tries)
            if device != self.history.running:
                assert record.failures == self.failures[device]


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
