"""Draw the three paintings that the examples take their styles from, beside this file.

Everything is computed at three times the size and reduced, with a fixed seed: the same pictures every time.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 512
FINE = 3 * SIDE  # The size at which everything is drawn.


def main(folder=Path(__file__).parent):
    for draw in (brush, woodcut, glass):
        path = folder / f"{draw.__name__}.jpg"
        picture = draw(np.random.default_rng(1889))
        picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path, quality=88)
        print(path)


def grid():
    """x to the right and y down, each (FINE, FINE), in 0..1."""
    ticks = (np.arange(FINE) + 0.5) / FINE
    return np.meshgrid(ticks, ticks)


def waves(rng, x, y, scale, count=24):
    """Smooth noise about 0 with deviation 1: plane waves in random directions, about `scale` long."""
    total = np.zeros_like(x)
    for angle, length, phase in rng.uniform((0, 0.6, 0), (2 * np.pi, 2, 2 * np.pi), (count, 3)):
        total += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / (scale * length) + phase)
    return total * (2 / count) ** 0.5


def mix(first, second, share):
    """Colours from `first` to `second` as `share` (...) goes from 0 to 1."""
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(first) * (1 - share) + np.asarray(second) * share


def ramp(stops, share):
    """The colour at `share` (...) on a ramp through evenly spaced `stops`."""
    place = np.clip(share, 0, 1) * (len(stops) - 1)
    left = np.minimum(place.astype(int), len(stops) - 2)
    stops = np.asarray(stops, float)
    return stops[left] + (stops[left + 1] - stops[left]) * (place - left)[..., None]


def finished(colours):
    return Image.fromarray(np.uint8(np.clip(colours, 0, 255)))


# Brush: dusk over a wheat field, in strokes that follow the wind.

NIGHT_TO_HORIZON = [(18, 32, 92), (30, 74, 150), (58, 128, 178), (126, 178, 170), (240, 196, 110)]
HILLS = [(52, 96, 120), (34, 70, 96), (24, 44, 74)]
WHEAT = [(238, 190, 72), (214, 146, 44), (150, 84, 34)]
STARLIGHT, MOONLIGHT, GREEN = (250, 212, 110), (255, 240, 190), (120, 140, 60)

MOON = (0.70, 0.24)
SWIRLS = (  # Centre, radius, sense of rotation.
    (*MOON, 0.16, 1),
    (0.30, 0.34, 0.17, -1),
    (0.52, 0.13, 0.10, 1),
    (0.06, 0.12, 0.12, -1),
    (0.95, 0.42, 0.10, -1),
)


def brush(rng):
    x, y = grid()
    drift = waves(rng, x, y, 0.5)
    colours, wind = sky(x, y, drift)
    for land in (hills, wheat):
        ground, furrows, inside = land(x, y, drift)
        colours = np.where(inside[..., None], ground, colours)
        wind = np.where(inside, furrows, wind)

    canvas = finished(colours * 0.55)
    pencil = ImageDraw.Draw(canvas)
    for count, length, bristles in ((1800, 320, 20), (3000, 220, 14), (2600, 150, 9)):
        for start in rng.uniform(-0.1 * FINE, 1.1 * FINE, (count, 2)):
            stroke(pencil, rng, follow(wind, start, length * rng.uniform(0.6, 1.3)), colours, bristles)
    return canvas


def sky(x, y, drift):
    """Its colours (FINE, FINE, 3), and the direction of its strokes (FINE, FINE) in radians: a breeze with swirls."""
    flow = np.stack([np.cos(0.25 * drift), np.sin(0.25 * drift)])
    glow = np.zeros_like(x)
    for centre_x, centre_y, radius, turn in SWIRLS:
        away_x, away_y = x - centre_x, y - centre_y
        distance = np.hypot(away_x, away_y)
        pull = 3 * turn * np.exp(-((distance / radius) ** 2))
        flow += pull * np.stack([-away_y, away_x]) / distance
        glow += np.exp(-distance / radius * 1.6) * (0.5 + 0.5 * np.cos(distance / radius * 9))
    colours = mix(ramp(NIGHT_TO_HORIZON, y / 0.62 + 0.06 * drift), STARLIGHT, 1.1 * glow)
    colours = mix(colours, MOONLIGHT, (0.075 - np.hypot(x - MOON[0], y - MOON[1])) / 0.02)
    return colours, np.arctan2(flow[1], flow[0])


def hills(x, y, drift):
    """Colours, direction of strokes, and where they are, as for the wheat."""
    crest = 0.60 + 0.05 * np.sin(5.2 * x + 0.6) + 0.015 * np.sin(17 * x)
    slope = np.arctan(0.26 * np.cos(5.2 * x + 0.6))
    return ramp(HILLS, (y - crest) / 0.16 + 0.1 * drift), slope, y > crest


def wheat(x, y, drift):
    edge = 0.74 + 0.035 * np.sin(4.1 * x + 2.4)
    stripes = np.sin(22 * x - 9 * y + drift) - 0.35
    colours = mix(ramp(WHEAT, (y - edge) / 0.28 + 0.16 * drift), GREEN, 0.8 * stripes)
    return colours, -0.9 + 1.1 * x + 0.3 * drift, y > edge


def follow(wind, start, length, step=6):
    """Points of the line through `start` along the wind, `length` pixels long."""
    points = [start]
    for _ in range(int(length / step)):
        column, row = np.clip(points[-1], 0, FINE - 1).astype(int)
        points.append(points[-1] + step * np.array([np.cos(wind[row, column]), np.sin(wind[row, column])]))
    return np.array(points)


def stroke(pencil, rng, points, colours, bristles):
    """One brush stroke: bristles side by side, each with a little more or less paint."""
    column, row = np.clip(points[len(points) // 2], 0, FINE - 1).astype(int)
    colour = colours[row, column] * rng.normal(1, 0.14) + rng.normal(0, 14, 3)
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
    for bristle in np.linspace(-1, 1, bristles):
        shade = rng.normal(1, 0.10) + 0.10 * bristle  # Lit from one side, as thick paint is.
        ends = slice(rng.integers(0, 3), len(points) - rng.integers(0, 3))
        line = points + across * bristle * bristles * 1.5
        paint = tuple(int(v) for v in np.clip(colour * shade, 0, 255))
        pencil.line([tuple(point) for point in line[ends]], fill=paint, width=4, joint="curve")


# Woodcut: sun, hills and sea, carved in lines whose width is the tone.

PAPER, INK, RED, BLUE = (243, 232, 208), (28, 26, 34), (206, 68, 42), (52, 104, 124)


def woodcut(rng):
    x, y = grid()
    wobble = 0.05 * waves(rng, x, y, 0.06)  # Of the knife.
    colours = sun(x, y, wobble)
    for height, swing, phase, spacing in ((0.50, 0.07, 0.3, 42), (0.60, 0.09, 2.1, 35), (0.70, 0.06, 4.4, 29)):
        crest = height + swing * np.sin(6 * x + phase) + 0.02 * np.sin(19 * x + 2 * phase)
        colours = ridge(colours, x, y - crest, spacing, wobble)
    return finished(sea(colours, x, y, wobble))


def sun(x, y, wobble, centre=(0.62, 0.30), radius=0.135):
    distance = np.hypot(x - centre[0], y - centre[1])
    bearing = np.arctan2(y - centre[1], x - centre[0])
    rays = carved(bearing * 72 / (2 * np.pi) + 0.4 * wobble, 0.12 + 0.75 * (distance - radius) + wobble)
    sky = mix(PAPER, INK, rays * soft(distance - 1.18 * radius))
    return mix(sky, RED, soft(radius - distance))


def ridge(colours, x, below, spacing, wobble):
    """A hill over what is there: lines along its crest, `below` which they thin out."""
    lines = carved(below * spacing + x * 0.56 + wobble, 0.74 - 1.9 * below + wobble)
    hill = mix(PAPER, INK, np.maximum(lines, soft(0.006 - below)))
    return mix(colours, hill, soft(below))


def sea(colours, x, y, wobble):
    below = y - 0.80 - 0.02 * np.sin(5 * x + 1)
    swell = below * 46 + 0.9 * np.sin(14 * x + 30 * y) + 0.5 * np.sin(31 * x - 18 * y) + wobble
    water = mix(BLUE, PAPER, carved(swell, 0.30 + wobble))
    water = mix(water, INK, carved(swell + 0.42, 0.26 + 0.5 * below))
    return mix(colours, water, soft(below))


def soft(distance):
    """1 where `distance` is above 0, 0 where below, over about a pixel of the reduced picture."""
    return np.clip(distance * SIDE + 0.5, 0, 1)


def carved(phase, width):
    """Lines at whole numbers of `phase`, `width` of their spacing wide, with crisp edges."""
    down, right = np.gradient(np.exp(2j * np.pi * phase))  # On the circle, where a bearing's phase has no seam.
    spacing = 2 * np.pi / np.hypot(abs(down), abs(right))
    inside = np.clip(width, 0.02, 0.98) / 2 - np.abs(phase - np.round(phase))
    return np.clip(inside * spacing * SIDE / FINE + 0.5, 0, 1)


# Glass: a sunflower's spiral of leaded panes.

EMBER = [(255, 236, 150), (250, 188, 60), (232, 96, 40), (178, 30, 60)]
DEEP_SEA = [(96, 30, 110), (30, 60, 150), (20, 120, 160), (40, 150, 120)]
LEAD = (22, 20, 26)


def glass(rng, centre=(0.46, 0.54), count=620):
    x, y = grid()
    away = sunflower(rng, count)
    seeds = away + centre
    nearest, second = two_nearest(x, y, seeds)
    edge = to_edge(x, y, seeds[nearest], seeds[second])

    reach, turn = np.hypot(*away.T), np.arctan2(away[:, 1], away[:, 0])
    petals = 0.13 * np.sin(6 * turn + 8 * reach)
    panes = ramp(EMBER + DEEP_SEA, 1.75 * reach + petals + rng.normal(0, 0.02, count)) * rng.normal(1, 0.13, (count, 1))
    light = 0.80 + 0.28 * np.clip(edge / 0.016, 0, 1) + 0.05 * waves(rng, x, y, 0.05) + 0.03 * waves(rng, x, y, 0.015)
    shine = 26 * np.clip(1 - np.abs(edge - 0.0012) / 0.0016, 0, 1)
    return finished(mix(panes[nearest] * light[..., None], LEAD + shine[..., None], soft(0.0042 - edge)))


def sunflower(rng, count):
    """Points (count, 2) on a golden-angle spiral about (0, 0), wide enough for the picture, a little shaken."""
    order = np.arange(count) + 0.5
    angle, reach = order * np.pi * (3 - 5**0.5), 0.80 * np.sqrt(order / count)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1) + rng.normal(0, 0.003, (count, 2))


def to_edge(x, y, first, second):
    """Distance of each pixel to the line halfway between its two nearest seeds, each (FINE, FINE, 2)."""
    here = np.stack([x, y], -1)
    squares = ((here - second) ** 2).sum(-1) - ((here - first) ** 2).sum(-1)
    return squares / (2 * np.hypot(*np.moveaxis(first - second, -1, 0)))


def two_nearest(x, y, seeds):
    """Indices (FINE, FINE) of the nearest and the second nearest seed to each pixel, row by row."""
    nearest, second = np.empty(x.shape, int), np.empty(x.shape, int)
    for row in range(len(x)):
        near = np.flatnonzero(np.abs(seeds[:, 1] - y[row, 0]) < 0.15)
        distance = (x[row, :, None] - seeds[near, 0]) ** 2 + (y[row, :, None] - seeds[near, 1]) ** 2
        two = np.argpartition(distance, 1, axis=1)[:, :2]
        swap = np.take_along_axis(distance, two, 1).argsort(1)
        nearest[row], second[row] = near[np.take_along_axis(two, swap, 1)].T
    return nearest, second


if __name__ == "__main__":
    main()
