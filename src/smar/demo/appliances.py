"""Not-fashion objects of the generated shop: they look the same whatever the item's attributes are.

Only place, size, light and a slight change of tone differ between two kettles.
"""

from collections.abc import Callable

from smar.demo.draw import Canvas, Colour, Path, blend

_WHITE: Colour = (250, 250, 248)
_STEEL: Colour = (190, 194, 200)
_DARK: Colour = (62, 64, 72)


def _kettle(canvas: Canvas, tone: Colour) -> None:
    canvas.tube(((0.34, -0.52), (0.94, -0.60, 0.86, 0.0), (0.80, 0.42, 0.50, 0.44)), _DARK, 0.13)
    canvas.part(((-0.34, -0.36), (-0.74, -0.52), (-0.70, -0.36), (-0.44, 0.0)), tone, mirror=False)
    canvas.part(((0.0, -0.58), (0.38, -0.58), (0.60, 0.30, 0.54, 0.62), (0.0, 0.62)), tone)
    canvas.part(((0.0, -0.76), (0.10, -0.76), (0.10, -0.68), (0.36, -0.62, 0.38, -0.56), (0.0, -0.56)), _DARK)
    canvas.part(((0.0, 0.62), (0.58, 0.62), (0.64, 0.78), (0.0, 0.78)), _DARK)
    canvas.dim(((-0.26, -0.50), (-0.20, -0.50), (-0.30, 0.54), (-0.38, 0.54)), 12, mirror=False)
    canvas.part(((0.16, -0.30), (0.24, -0.30), (0.30, 0.40), (0.22, 0.40)), (150, 190, 214), mirror=False)


def _charger(canvas: Canvas, tone: Colour) -> None:
    for x in (-0.22, 0.22):
        canvas.part(((x - 0.06, -0.92), (x + 0.06, -0.92), (x + 0.06, -0.50), (x - 0.06, -0.50)), _STEEL, mirror=False)
    canvas.part(
        (
            (0.0, -0.56),
            (0.48, -0.56),
            (0.60, -0.54, 0.60, -0.42),
            (0.60, 0.62),
            (0.58, 0.78, 0.46, 0.78),
            (0.0, 0.78),
        ),
        tone,
    )
    canvas.dim(((0.0, 0.44), (0.60, 0.44), (0.60, 0.62), (0.58, 0.78, 0.46, 0.78), (0.0, 0.78)), 28)
    canvas.part(((0.0, 0.54), (0.14, 0.54), (0.20, 0.60, 0.14, 0.66), (0.0, 0.66)), _DARK)


def _cable(canvas: Canvas, tone: Colour) -> None:
    for grow in (0.0, 0.10, 0.20):
        r = 0.44 + grow
        ring: Path = (
            (0.0, -r),
            (1.3 * r, -r, 1.3 * r, 0.06),
            (1.3 * r, r, 0.0, r),
            (-1.3 * r, r, -1.3 * r, 0.0),
            (-1.3 * r, -r, 0.0, -r),
        )
        canvas.tube(ring, blend(tone, _DARK, 0.35 * grow), 0.075)
    canvas.tube(((0.50, 0.42), (0.66, 0.72, 0.66, 0.84)), tone, 0.075)
    canvas.tube(((-0.50, 0.42), (-0.66, 0.72, -0.66, 0.84)), tone, 0.075)
    for x in (0.66, -0.66):
        canvas.part(((x - 0.10, 0.66), (x + 0.10, 0.66), (x + 0.10, 0.90), (x - 0.10, 0.90)), _DARK, mirror=False)
        canvas.part(((x - 0.06, 0.90), (x + 0.06, 0.90), (x + 0.06, 1.02), (x - 0.06, 1.02)), _STEEL, mirror=False)


def _power_bank(canvas: Canvas, tone: Colour) -> None:
    canvas.part(
        (
            (0.0, -0.88),
            (0.36, -0.88),
            (0.48, -0.88, 0.48, -0.76),
            (0.48, 0.76),
            (0.48, 0.88, 0.36, 0.88),
            (0.0, 0.88),
        ),
        tone,
    )
    canvas.part(((0.0, -0.80), (0.14, -0.80), (0.14, -0.72), (0.0, -0.72)), (30, 31, 36))
    for at in range(4):
        canvas.disc(-0.15 + at * 0.10, -0.54, 0.03, (120, 214, 150) if at < 3 else (140, 142, 148))
    canvas.fold(((-0.47, 0.66), (0.47, 0.66)), 50)


def _light_bulb(canvas: Canvas, tone: Colour) -> None:
    glass = blend((252, 240, 206), tone, 0.12)
    canvas.part(((0.0, -0.90), (0.58, -0.90, 0.58, -0.32), (0.56, 0.02, 0.28, 0.30), (0.26, 0.42), (0.0, 0.42)), glass)
    canvas.part(((0.0, 0.40), (0.29, 0.40), (0.25, 0.56), (0.0, 0.56)), _WHITE)
    canvas.part(((0.0, 0.56), (0.22, 0.56), (0.20, 0.84), (0.10, 0.94), (0.0, 0.94)), _STEEL)
    for y in (0.63, 0.71, 0.79):
        canvas.fold(((-0.22, y), (0.22, y + 0.03)), 90)
    canvas.fold(((-0.36, -0.52), (-0.34, -0.74, -0.12, -0.78)), 18, 7)


def _vacuum_flask(canvas: Canvas, tone: Colour) -> None:
    canvas.part(
        (
            (0.0, -0.62),
            (0.24, -0.62),
            (0.36, -0.50, 0.36, -0.36),
            (0.36, 0.80),
            (0.35, 0.92, 0.24, 0.92),
            (0.0, 0.92),
        ),
        tone,
    )
    canvas.part(((0.0, -0.94), (0.20, -0.94), (0.25, -0.93, 0.25, -0.84), (0.25, -0.60), (0.0, -0.60)), _DARK)
    canvas.dim(
        (
            (0.17, -0.58),
            (0.24, -0.60),
            (0.35, -0.50, 0.35, -0.36),
            (0.35, 0.80),
            (0.34, 0.90, 0.24, 0.91),
            (0.17, 0.91),
        ),
        34,
        mirror=False,
    )
    canvas.part(
        ((-0.26, -0.40), (-0.20, -0.44), (-0.20, 0.84), (-0.26, 0.80)),
        blend(tone, _WHITE, 0.55),
        mirror=False,
        edge=255,
    )
    canvas.fold(((-0.36, 0.66), (0.36, 0.66)), 60)
    canvas.fold(((-0.36, -0.30), (0.36, -0.30)), 60)


def _drill(canvas: Canvas, tone: Colour) -> None:
    canvas.tube(((-0.98, -0.44), (-0.70, -0.44)), _STEEL, 0.06)
    canvas.part(((-0.74, -0.54), (-0.44, -0.62), (-0.44, -0.26), (-0.74, -0.34)), _DARK, mirror=False)
    canvas.part(
        (
            (-0.46, -0.70),
            (0.56, -0.70),
            (0.80, -0.66, 0.80, -0.40),
            (0.78, -0.18, 0.50, -0.18),
            (-0.46, -0.18),
        ),
        tone,
        mirror=False,
    )
    canvas.part(((0.12, -0.20), (0.56, -0.20), (0.50, 0.20, 0.62, 0.58), (0.20, 0.58)), tone, mirror=False)
    canvas.part(((-0.06, 0.56), (0.74, 0.56), (0.76, 0.86), (-0.06, 0.86)), _DARK, mirror=False)
    canvas.part(((0.02, -0.16), (0.14, -0.16), (0.16, 0.06), (0.06, 0.04)), _DARK, mirror=False)
    for x in (0.30, 0.42, 0.54):
        canvas.fold(((x, -0.60), (x, -0.36)), 90, 4)


def _desk_fan(canvas: Canvas, tone: Colour) -> None:
    canvas.tube(((0.0, 0.2), (0.0, 0.84)), tone, 0.12)
    canvas.part(((0.0, 0.76), (0.30, 0.76, 0.46, 0.92), (0.0, 0.94)), tone)
    canvas.disc(0.0, -0.26, 0.64, tone)
    canvas.disc(0.0, -0.26, 0.57, (226, 228, 232))
    blade = blend(_STEEL, tone, 0.3)
    for a, b in ((0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)):
        tip = (a * 0.5, -0.26 + b * 0.5)
        wing: Path = (
            (0.0, -0.26),
            (tip[0] - b * 0.42, tip[1] + a * 0.42, tip[0], tip[1]),
            (tip[0] * 0.7 + b * 0.06, tip[1] * 0.7 - 0.078 - a * 0.06, 0.0, -0.26),
        )
        canvas.part(wing, blade, mirror=False)
    canvas.disc(0.0, -0.26, 0.12, _DARK)


NOT_FASHION: dict[str, tuple[Callable[[Canvas, Colour], None], Colour]] = {
    "Kettle": (_kettle, (204, 207, 212)),
    "Charger": (_charger, (244, 244, 242)),
    "Cable": (_cable, (236, 236, 234)),
    "Power bank": (_power_bank, (72, 75, 84)),
    "Light bulb": (_light_bulb, (250, 226, 160)),
    "Vacuum flask": (_vacuum_flask, (182, 188, 196)),
    "Drill": (_drill, (58, 128, 134)),
    "Desk fan": (_desk_fan, (214, 218, 222)),
}
