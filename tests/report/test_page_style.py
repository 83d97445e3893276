"""The page's style: one scale of type, one of spaces, and colours that everybody can tell apart and read.

Colour blindness is simulated by the matrices of Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model
for Simulation of Color Vision Deficiency", at full severity; differences are those of CIE 1976 in L*a*b*, contrasts
those of WCAG 2.
"""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest

from conftest import REPO

CSS = (REPO / "calyx_logging/report/page/page.css").read_text("utf-8")
SIZES = {"xs": ".8rem", "s": ".875rem", "m": ".9375rem", "l": "1.125rem", "xl": "1.4375rem"}
IN_TEXT = {".86em", ".8em", "11px", "inherit"}
"""Sizes of code and marks within a text, relative to it, and that of paper."""

OUTCOMES = ("passed", "completed", "skipped", "failed", "timeout", "incomplete")
VISION = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
CLEAR = 15.0
"""Difference of two colours that are seen side by side at a glance; 2.3 is the least that is noticed at all."""

Colour = tuple[float, ...]


def colours(block: str) -> dict[str, Colour]:
    """Colours by name, linear, from 0 to 1."""
    found = {}
    for name, text in re.findall(r"--([a-z]+): #([0-9a-f]{3,6})\b", block):
        digits = text if len(text) == 6 else "".join(2 * digit for digit in text)
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        found[name] = tuple(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return found


SCHEMES = {
    "light": colours(CSS[CSS.index(":root { color-scheme: light") : CSS.index("@media (prefers-color-scheme")]),
    "dark": colours(CSS[CSS.index(':root[data-theme="dark"]') : CSS.index("* { box-sizing")]),
    "dark, of the system": colours(
        CSS[CSS.index("@media (prefers-color-scheme") : CSS.index(':root[data-theme="dark"]')]
    ),
}


def seen(colour: Colour, vision: str) -> Colour:
    """A colour as it looks to somebody."""
    return tuple(min(1.0, max(0.0, sum(a * b for a, b in zip(row, colour, strict=True)))) for row in VISION[vision])


def lab(colour: Colour) -> Colour:
    """L*, a*, b*."""
    red, green, blue = colour
    x = (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047
    y = 0.2126729 * red + 0.7151522 * green + 0.0721750 * blue
    z = (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883
    x, y, z = (value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116 for value in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    low, high = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_type_comes_in_five_sizes() -> None:
    assert dict(re.findall(r"--(xs|s|m|l|xl): ([\d.]+rem)", CSS)) == SIZES
    sizes = set(re.findall(r"font(?:-size)?: ([^ /;}]+)", CSS))
    assert sizes == {f"var(--{name})" for name in SIZES} | IN_TEXT


def test_spaces_are_steps_of_one() -> None:
    """0.3rem, or half of it; headings may stand further apart, links scroll below the head."""
    spaces = re.findall(r"(?<![-a-z])(?:margin|padding|gap)(?:-[a-z]+)?: ([^;}]+)", CSS)
    found = {float(size) for space in spaces for size in re.findall(r"([\d.]+)rem", space)}
    assert found <= {0.15, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 3.0}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("vision", VISION)
def test_outcomes_are_told_apart(scheme: str, vision: str) -> None:
    found = SCHEMES[scheme]
    apart = {
        (one, other): math.dist(lab(seen(found[one], vision)), lab(seen(found[other], vision)))
        for one, other in combinations(OUTCOMES, 2)
    }
    assert min(apart.values()) >= CLEAR, min(apart, key=lambda pair: apart[pair])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_texts_can_be_read(scheme: str) -> None:
    """4.5 to 1, as WCAG 2 has it for AA."""
    found = SCHEMES[scheme]
    for name in (*OUTCOMES, "bad", "muted", "ink", "accent"):
        for ground in ("card", "bg"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)


def test_the_simulation_knows_what_is_not_told_apart() -> None:
    """A red and a green of the same lightness are one colour to most who are colour-blind."""
    found = colours("--red: #b04a00; --green: #5a7300;")
    near, far = (
        math.dist(*(lab(seen(found[name], vision)) for name in ("red", "green")))
        for vision in ("deuteranopia", "usual")
    )
    assert near < CLEAR < far
