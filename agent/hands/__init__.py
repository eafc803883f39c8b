"""The process that holds relays, lights and the button: rules, pins, and one small state file.

It outlives the agent. Pure parts (`engine`, `lights`, `press`, `news`) know no clock and no pin;
`lines`, `factory`, `boards` and `leds` know the hardware; `desk` answers, `loop` runs around it.
"""
