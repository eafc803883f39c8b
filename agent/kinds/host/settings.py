"""The limits of the box. Those of heat come from the Raspberry Pi, the others are ours."""

from __future__ import annotations

from pydantic import Field

from agent.kinds import DeviceSettings


class Settings(DeviceSettings):
    """Limits of the box; percentages say how much of the whole is still free.

    A percentage is low only together with the `spare_mib` beside it: two percent of a large disk
    are plenty.
    """

    required: bool = Field(default=False, description="the room is not ready without it")
    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")
    path: str = Field(
        default="/", pattern="^/", max_length=256, description="folder whose disk must have room"
    )
    disk_warn_pct: float = Field(default=10, ge=0, le=100, description="warn with less free")
    disk_fail_pct: float = Field(default=3, ge=0, le=100, description="fail with less free")
    disk_spare_mib: int = Field(default=2048, ge=0, description="so much free is always enough")
    inodes_warn_pct: float = Field(default=10, ge=0, le=100, description="warn with less free")
    inodes_fail_pct: float = Field(default=3, ge=0, le=100, description="fail with less free")
    readonly_root: bool = Field(default=False, description="`/` is read-only on purpose")
    memory_warn_pct: float = Field(default=10, ge=0, le=100, description="warn with less free")
    memory_fail_pct: float = Field(default=4, ge=0, le=100, description="fail with less free")
    memory_spare_mib: int = Field(default=512, ge=0, description="so much free is always enough")
    temp_warn_c: float | None = Field(
        default=None, ge=0, le=150, description="unset: 10 below the sensor's own limit, else 75"
    )
    temp_fail_c: float | None = Field(
        default=None, ge=0, le=150, description="unset: the sensor's own limit, else 80"
    )
    freq_cap_pct: float = Field(
        default=50, ge=0, le=100, description="slowed when the processor may run no faster"
    )
    stuck_after_s: float = Field(
        default=30, ge=1, le=3600, description="a process that has not run for so long is stuck"
    )
    hold_s: float = Field(
        default=900, ge=0, le=86_400, description="how long a dip or a clock step stays visible"
    )
