"""What a camera's worker may tell: statistics over whole pictures of a whole look."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kinds._tells import Tell, flag


def _share(says: str, step: float = 0.01) -> Tell:
    return Tell(says, "share", 0, 1, step)


def _grey(says: str, step: float) -> Tell:
    return Tell(says, "grey levels", 0, 255, step)


def _seconds(says: str) -> Tell:
    return Tell(says, "s", 0, 4, 0.1)


def _rate(says: str) -> Tell:
    return Tell(says, "1/s", 0, 1_000, 0.1)


TELLS: Mapping[str, Tell] = {
    "frames": Tell("pictures of the look", "", 0, 4_000),
    "width": Tell("width", "pixels", 0, 16_384),
    "height": Tell("height", "pixels", 0, 16_384),
    "intra_only": flag("each picture comes whole"),
    "span_s": _seconds("from the first picture to the last"),
    "fps": _rate("pictures"),
    "fps_declared": _rate("pictures that the source promises"),
    "fps_different": _rate("new pictures, where each is repeated"),
    "unchanged_s": _seconds("longest time with one and the same picture"),
    "stopped_s": _seconds("how long it has stood at the end, after movement"),
    "damaged_share": _share("pictures that came damaged"),
    "flicker_pct": Tell("swing of the light", "% of the mean", 0, 1_000, 0.1),
    "luma_mean": _grey("mean", 1),
    "luma_high": _grey("98th percentile", 1),
    "luma_spread": _grey("spread between tiles", 0.1),
    "bright_share": _share("points at 245 and above"),
    "edge_contrast": _grey("contrast of the edges, a point", 0.1),
    "edge_width": Tell("width of the sharpest edges", "points of 320", 0, 100, 0.01),
    "edge_axis_width": Tell("the same across a smear", "points of 320", 0, 100, 0.01),
    "plain_share": _share("tiles without detail"),
    "plain_softness": Tell("detail at their border over detail elsewhere", "", 0, 100, 0.01),
    "flat_share": _share("tiles of exactly one colour"),
    "flat_colours": Tell("how many colours those have", "", 0, 1_000),
    "one_level_share": _share("largest share within one grey level"),
    "lost_channel_share": _share("points that lack a colour"),
    "tint": _grey("colour that every point has", 1),
    "colour_shift": Tell("outlines of colour that fit better elsewhere", "", -2, 2, 0.01),
    "noise": _grey("noise", 0.1),
    "speckle_share": _share("single wrong pixels", 0.0001),
    "tear": Tell("match of neighbouring lines, but shifted", "", -2, 2, 0.01),
    "stuck_share": _share("equal lines in one run"),
    "block_steps": Tell("steps on the block grid", "per mille of it", 0, 1_000, 0.1),
    "view_distance": Tell("distance from the view at commissioning", "", 0, 4, 0.01),
    "controls_set": Tell("picture controls that were set", "", 0, 16),
    "controls_missing": Tell("controls that the camera has not", "", 0, 16),
    "controls_refused": Tell("controls that it did not take", "", 0, 16),
    "controls_unanswered": Tell("controls of which it said nothing", "", 0, 16),
}
