"""Controls that a camera forgets: compared, set, read back, and counted whatever happens."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_camera_v4l2 import _vivid

from agent.kinds import camera
from agent.kinds._uevents import repeated
from agent.kinds.camera import controls, v4l2

HZ = controls.IDS["power_line_frequency"]
AUTO = controls.IDS["white_balance_automatic"]
WARMTH = controls.IDS["white_balance_temperature"]


class Webcam:
    """The controls of a camera with the faults that real ones have."""

    def __init__(self, values: Mapping[int, int]) -> None:
        self.values = dict(values)
        self.error: int | None = None
        self.keeps = False
        self.calls: list[str] = []

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise OSError(self.error, "as the driver says")

    def has_control(self, number: int) -> bool:
        self._answer("has")
        return number in self.values

    def control(self, number: int) -> int:
        self._answer("get")
        return self.values[number]

    def set_control(self, number: int, value: int) -> None:
        self._answer("set")
        if number == WARMTH and self.values.get(AUTO) == 1:
            raise OSError(errno.EACCES, "the automatic has it")
        if number == HZ and value not in (1, 2):
            raise OSError(errno.ERANGE, "out of range")
        if not self.keeps:
            self.values[number] = value


def test_a_control_is_set_once_and_again_after_it_was_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    webcam = Webcam({HZ: 2})
    wanted = {"power_line_frequency": 1}
    assert controls.apply(webcam, wanted) == {"controls_set": 1}
    assert webcam.values == {HZ: 1}
    assert capsys.readouterr().err == "camera: power_line_frequency 2 -> 1\n"
    webcam.calls.clear()
    assert controls.apply(webcam, wanted) == {"controls_set": 0}
    assert "set" not in webcam.calls, "what is right is left as it is"
    assert capsys.readouterr().err == ""
    webcam.values[HZ] = 2  # plugged in again
    assert controls.apply(webcam, wanted) == {"controls_set": 1}


def test_nothing_wanted_is_nothing_asked() -> None:
    webcam = Webcam({HZ: 2})
    assert controls.apply(webcam, {}) == {}
    assert webcam.calls == []


def test_a_control_that_the_camera_does_not_have_is_data() -> None:
    webcam = Webcam({HZ: 2})
    wanted = {"zoom_absolute": 100, "power_line_frequency": 1}
    assert controls.apply(webcam, wanted) == {"controls_set": 1, "controls_missing": 1}


def test_a_value_that_is_not_taken_is_refused() -> None:
    webcam = Webcam({HZ: 2})
    assert controls.apply(webcam, {"power_line_frequency": 3}) == {
        "controls_set": 0,
        "controls_refused": 1,
    }
    webcam.keeps = True  # acknowledged, and not done
    assert controls.apply(webcam, {"power_line_frequency": 1}) == {
        "controls_set": 0,
        "controls_refused": 1,
    }
    webcam.keeps = False
    assert controls.apply(webcam, {"power_line_frequency": 1}) == {"controls_set": 1}


def test_an_automatic_is_switched_off_before_what_it_has_in_hand() -> None:
    webcam = Webcam({AUTO: 1, WARMTH: 5_000})
    wanted = {"white_balance_temperature": 4_000, "white_balance_automatic": 0}
    assert controls.apply(webcam, wanted) == {"controls_set": 2}


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ETIMEDOUT, errno.ENODEV])
def test_a_camera_that_does_not_answer_yet_is_asked_no_more_and_again_later(number: int) -> None:
    webcam = Webcam({HZ: 2, AUTO: 1})
    webcam.error = number
    wanted = {"power_line_frequency": 1, "white_balance_automatic": 0}
    assert controls.apply(webcam, wanted) == {"controls_set": 0, "controls_unanswered": 2}
    assert len(webcam.calls) == 1, "an answer that does not come may cost 5 s"
    webcam.error = None
    assert controls.apply(webcam, wanted) == {"controls_set": 2}


@given(
    st.dictionaries(st.sampled_from(sorted(controls.IDS)), st.integers(-5, 5), max_size=6),
    st.dictionaries(st.sampled_from(sorted(controls.IDS.values())), st.integers(-5, 5)),
    st.sampled_from([None, errno.EIO, errno.EINVAL, errno.EBUSY]),
)
def test_every_control_is_counted_once(
    wanted: dict[str, int], has: dict[int, int], error: int | None
) -> None:
    webcam = Webcam(has)
    webcam.error = error
    counted = controls.apply(webcam, wanted)
    as_wanted = sum(1 for n, v in wanted.items() if has.get(controls.IDS[n]) == v)
    total = sum(int(n) for n in counted.values())
    assert total == len(wanted) - (as_wanted if error is None else 0)
    assert set(counted) <= {f"controls_{k}" for k in ("set", "missing", "refused", "unanswered")}


# -- asked again after it was plugged in ----------------------------------------------------------


async def _feed(*actions: str | float | None) -> AsyncGenerator[Mapping[str, str] | None, None]:
    for action in actions:
        if isinstance(action, float):
            await asyncio.sleep(action)
        else:
            yield None if action is None else {"ACTION": action}


def _yields(*actions: str | float | None, after_s: tuple[float, ...] = (0.01, 0.02)) -> int:
    async def count() -> int:
        async with asyncio.timeout(5):
            return len([1 async for _ in repeated(_feed(*actions), after_s)])

    return asyncio.run(count())


def test_a_camera_that_came_is_asked_again_while_it_settles() -> None:
    assert _yields("add", 0.05) == 3
    assert _yields("add", 0.05, "add", 0.05) == 6
    assert _yields(None, 0.05) == 3, "events were lost: it may have come"


def test_a_camera_that_went_is_not() -> None:
    assert _yields("remove", 0.05) == 1
    assert _yields("add", "remove", 0.05) == 2, "unplugged again at once"
    assert _yields("bind", "change", 0.05) == 0


def test_without_controls_once_is_enough() -> None:
    assert _yields("add", 0.03, after_s=()) == 1
    assert _yields() == 0


def test_a_settling_camera_has_at_least_twenty_seconds() -> None:
    from agent.kinds.camera import passive

    assert max(passive.SETTLING_S) >= 20
    assert sorted(passive.SETTLING_S) == list(passive.SETTLING_S)


def test_the_stream_of_events_is_closed_when_nobody_listens() -> None:
    closed: list[int] = []

    async def events() -> AsyncGenerator[Mapping[str, str] | None, None]:
        try:
            yield {"ACTION": "add"}
            await asyncio.sleep(60)
        finally:
            closed.append(1)

    async def listen() -> None:
        stream = repeated(events(), (30.0,))
        async with asyncio.timeout(5):
            await anext(stream)
            await stream.aclose()

    asyncio.run(listen())
    assert closed == [1]


# -- a camera of the kernel's own: `modprobe vivid n_devs=1 node_types=0x1` -----------------------


@pytest.fixture
def vivid() -> Path:
    node = _vivid()
    if node is None:
        pytest.skip("vivid is not loaded")
    return node


def test_a_real_cameras_controls_are_set_before_a_look(vivid: Path) -> None:
    settings = camera.Settings(
        source=f"v4l2:{vivid}", look_s=0.5, controls={"brightness": 77, "zoom_absolute": 1}
    )
    with v4l2.Camera(vivid) as node:
        node.set_control(controls.IDS["brightness"], 128)
        assert not node.has_control(controls.IDS["zoom_absolute"])
    first = camera.Driver(settings).read("look")
    assert (first.values["controls_set"], first.values["controls_missing"]) == (1, 1)
    again = camera.Driver(settings).read("look")
    assert (again.fault, again.values["controls_set"]) == (None, 0)
    with v4l2.Camera(vivid) as node:
        assert node.control(controls.IDS["brightness"]) == 77
        node.set_control(controls.IDS["brightness"], 128)
