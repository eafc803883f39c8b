"""The scenarios of the virtual box need QEMU and minutes: `tests/bench/run` runs them."""

collect_ignore = ["bench/scenarios"]
