"""The process that holds relays, lights and the button: rules, pins, and one small state file.

It outlives the agent. Pure parts (`engine`, `lights`, `press`) know no clock and no pin; `lines`,
`factory` and `boards` know the hardware; `main` is the loop around them.
"""
