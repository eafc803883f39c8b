"""The box itself: power, heat, disk, memory, clock, processes that hang. Kernel facts only.

Facts that only some boxes have (a Raspberry Pi's supply alarm, a sensor's own limit) are absent
elsewhere, and then nothing is said of them.
"""

from agent.kinds.host.facts import box_model
from agent.kinds.host.judging import CODES, WORDS, judge
from agent.kinds.host.passive import Passive, changes
from agent.kinds.host.settings import Settings

__all__ = ["CODES", "WORDS", "Passive", "Settings", "box_model", "changes", "judge"]
