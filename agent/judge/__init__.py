"""Pure functions of facts and `now`: no clock, no input or output."""
