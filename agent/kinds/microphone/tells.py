"""What a microphone's worker may tell: statistics over a whole look, none of them in its order."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kinds._alsa import STATES
from agent.kinds._tells import Tell, flag, word

SWITCH = frozenset({"on", "off"})


def _level(says: str) -> Tell:
    return Tell(says, "dBFS", -120, 6, 0.5)


TELLS: Mapping[str, Tell] = {
    "heard_s": Tell("length of what was heard", "s", 0, 4, 0.1),
    "rate_hz": Tell("sampling rate", "Hz", 4_000, 384_000),
    "channels": Tell("channels", "", 1, 32),
    "level_dbfs": _level("level of the loudest channel over the whole look"),
    "peak_dbfs": _level("highest peak of the look"),
    "floor_dbfs": _level("level of the quietest tenth"),
    "speech_dbfs": _level("level of the louder parts, where somebody speaks"),
    "hiss_dbfs": _level("steady noise above 250 Hz"),
    "snr_db": Tell("how far the loudest tenth stands out of it", "dB", 0, 120, 0.5),
    "hum_dbfs": _level("lines at the mains frequency"),
    "clip_pct": Tell("samples that were cut flat", "%", 0, 100, 0.01),
    "breaks": Tell("times that the sound broke off", "", 0, 255),
    "dead_pct": Tell("share without any input", "%", 0, 100, 0.1),
    "dead_tail_s": Tell("length of that at the end", "s", 0, 4, 0.1),
    "broke_off": flag("it began abruptly"),
    "dead_channels": Tell("channels without input", "", 0, 32),
    "xruns": Tell("times that samples were lost on the way", "", 0, 255),
    "switch": word("capture switch of the mixer", SWITCH),
    "state": word("state of the stream, where a program has it", STATES),
}
