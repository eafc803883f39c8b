"""What the agent's own process costs, with a camera configured and the default periods.

    python tests/benchmarks/footprint.py [--seconds 300] [--warm 90]

Starts a mosquitto, the real agent and, through it, a real worker; measures the agent's process from
outside: RSS and PSS (smaps_rollup), CPU seconds (schedstat, nanoseconds, all threads that live),
wake-ups (voluntary context switches of all threads), and what is mapped. Run by hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

from e2e_stage import Agent, Broker, Listener, running, wait_for

HEAVY = ("cv2", "numpy", "gpiozero", "gpiod", "typer", "rich")


def tasks(pid: int) -> tuple[float, int, int]:
    """CPU seconds, wake-ups and threads of a process."""
    cpu_ns = wakes = threads = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        threads += 1
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        status = (task / "status").read_text()
        wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return cpu_ns / 1e9, wakes, threads


def memory_mib(pid: int) -> tuple[float, float]:
    """RSS and PSS in MiB."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split()[:2]
        fields[key] = int(value) / 1024
    return fields["Rss:"], fields["Pss:"]


def written(pid: int) -> int:
    """Bytes that the process sent to the disk."""
    text = Path(f"/proc/{pid}/io").read_text()
    return int(text.partition("\nwrite_bytes:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--warm", type=float, default=90)
    parser.add_argument("--camera", default="", help="a clip; default: the virtual room's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = Path(options.camera).absolute() if options.camera else folder / "virtual/camera.avi"
        if not options.camera:
            command = [sys.executable, "-m", "agent.simulator", str(folder / "virtual")]
            subprocess.run(command, check=True)
        broker = Broker(folder)
        listener = Listener(broker.port)
        agent = Agent(folder, f'\n[camera.cam]\nsource = "file:{clip}"\n', broker.port)
        try:
            with running(agent):
                wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
                assert agent.process is not None
                pid = agent.process.pid
                time.sleep(options.warm)
                cpu, wakes, _ = tasks(pid)
                disk, began, heard = written(pid), time.monotonic(), len(listener.messages)
                time.sleep(options.seconds)
                took = time.monotonic() - began
                cpu_after, wakes_after, threads = tasks(pid)
                rss, pss = memory_mib(pid)
                maps = Path(f"/proc/{pid}/maps").read_text()
                result = {
                    "seconds": round(took),
                    "rss_mib": round(rss, 1),
                    "pss_mib": round(pss, 1),
                    "threads": threads,
                    "cpu_s_per_h": round((cpu_after - cpu) / took * 3600, 2),
                    "wakeups_per_s": round((wakes_after - wakes) / took, 2),
                    "disk_kb_per_h": round((written(pid) - disk) / took * 3.6),
                    "messages_per_min": round((len(listener.messages) - heard) / took * 60, 1),
                    "heavy_mapped": [h for h in HEAVY if f"/{h}/" in maps],
                }
                print(json.dumps(result, indent=2))
        finally:
            listener.close()
            broker.stop()


if __name__ == "__main__":
    main()
