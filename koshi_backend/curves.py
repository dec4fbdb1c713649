# SPDX-License-Identifier: GPL-3.0-or-later
"""Curves through keys, one value for every whole frame: step, linear, quadratic, cubic, bezier.

quadratic and cubic are the interpolating splines that pandas' and scipy's methods of the same names draw (scipy's
make_interp_spline of degree 2 and 3): smooth, and free to overshoot. bezier never overshoots.

Standard library only: Blender imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

KINDS = ("linear", "step", "quadratic", "cubic", "bezier")
FEWEST = {"quadratic": 3, "cubic": 4}  # keys; with fewer the next simpler kind is drawn, as in Deforum

Points = Sequence[tuple[int, float]]


def drawn_as(kind: str, keys: int) -> str:
    """The kind that `keys` keys are enough for: cubic, else quadratic, else linear."""
    if kind == "cubic" and keys < FEWEST["cubic"]:
        kind = "quadratic"
    if kind == "quadratic" and keys < FEWEST["quadratic"]:
        kind = "linear"
    return kind


def draw(points: Points, kind: str) -> list[float]:
    """The value at every frame from the first point's to the last one's, both included.

    points: (frame, value), frames rising. kind: one of KINDS; see `drawn_as` for what few points give.
    """
    shape = _SHAPES[drawn_as(kind, len(points))](points) if len(points) > 1 else None
    values: list[float] = []
    for k in range(len(points) - 1):
        assert shape is not None
        (first, value), (last, _) = points[k], points[k + 1]
        values.append(value)
        values.extend(shape(k, frame) for frame in range(first + 1, last))
    values.append(points[-1][1])
    return values


def joints(points: Points, kind: str) -> list[tuple[float, float, float]]:
    """The smooth curve that `draw` follows, as cubic pieces: (frame, value, slope a frame) wherever one ends.

    points: two at least. kind: "quadratic", "cubic" or "bezier"; of the first, whose pieces meet half-way between two
    points, joints lie there too.
    """
    kind = drawn_as(kind, len(points))
    if kind != "quadratic":
        slopes = _cubic_slopes(points) if kind == "cubic" else _bezier_slopes(points)
        return [(float(frame), value, slope) for (frame, value), slope in zip(points, slopes, strict=True)]
    inner, bends = _quadratic_pieces(points)
    last = len(inner)
    found: list[tuple[float, float, float]] = []
    for k, (frame, value) in enumerate(points):
        near = min(max(k, 1), last)
        slope, bend = inner[near - 1], bends[near - 1]
        found.append((float(frame), value, slope + 2 * (frame - points[near][0]) * bend))
        if 0 < k < last:
            half = (points[k + 1][0] - frame) / 2
            found.append((frame + half, value + half * (slope + half * bend), slope + 2 * half * bend))
    return found


Shape = Callable[[int, int], float]  # (index of the gap, frame inside it) -> value


def _step(points: Points) -> Shape:
    return lambda k, frame: points[k][1]


def _linear(points: Points) -> Shape:
    def value(k: int, frame: int) -> float:
        (first, low), (last, high) = points[k], points[k + 1]
        if low == high:  # the sum below may be off by a rounding error
            return low
        share = (frame - first) / (last - first)
        return low * (1 - share) + high * share

    return value


def _cubic(points: Points) -> Shape:
    return _hermite(points, _cubic_slopes(points))


def _cubic_slopes(points: Points) -> list[float]:
    """Cubic spline with the not-a-knot end condition: its slopes at the points.

    Equations as in de Boor, A Practical Guide to Splines (1978), ch. IV, with the first and last row eliminated into
    their neighbours, which leaves a diagonally dominant system.
    """
    gaps, rises = _gaps(points)
    inner = len(points) - 2
    ends = gaps[0] + gaps[1], gaps[-1] + gaps[-2]
    first = ((gaps[0] + 2 * ends[0]) * gaps[1] * rises[0] + gaps[0] ** 2 * rises[1]) / ends[0]
    last = ((gaps[-1] + 2 * ends[1]) * gaps[-2] * rises[-1] + gaps[-1] ** 2 * rises[-2]) / ends[1]
    below = [gaps[k + 1] for k in range(inner)]
    diagonal = [2 * (gaps[k] + gaps[k + 1]) for k in range(inner)]
    above = [gaps[k] for k in range(inner)]
    right = [3 * (gaps[k + 1] * rises[k] + gaps[k] * rises[k + 1]) for k in range(inner)]
    diagonal[0] -= ends[0]
    right[0] -= first
    diagonal[-1] -= ends[1]
    right[-1] -= last
    slopes = _solve(below, diagonal, above, right)
    start = (first - ends[0] * slopes[0]) / gaps[1]
    stop = (last - ends[1] * slopes[-1]) / gaps[-2]
    return [start, *slopes, stop]


def _bezier(points: Points) -> Shape:
    curve = _hermite(points, _bezier_slopes(points))

    def value(k: int, frame: int) -> float:
        low, high = sorted((points[k][1], points[k + 1][1]))
        return min(max(curve(k, frame), low), high)  # against rounding

    return value


def _bezier_slopes(points: Points) -> list[float]:
    """Eased in and out, like Blender's auto-clamped handles: no overshoot, and flat at peaks and at both ends.

    The same as Blender 4.5 and 5.2 draw between flat keys (0.0000 apart); through keys on a slope, whose handles
    Blender solves for all together, up to 6 % of the curve's range away.

    Each handle reaches a third of the gap towards the next key, at the slope of its key: 0 at the first and the last
    key and where the curve turns round; elsewhere the harmonic mean of the rises on both sides, a to the left over
    a gap g, b to the right over h: 3(g+h) / ((2h+g)/a + (h+2g)/b) (Fritsch and Butland 1984; scipy's
    PchipInterpolator has it too). Between two keys alone this is 3u^2 - 2u^3, u running from 0 to 1.
    """
    gaps, rises = _gaps(points)
    slopes = [0.0] * len(points)
    for k in range(1, len(points) - 1):
        a, b, g, h = rises[k - 1], rises[k], gaps[k - 1], gaps[k]
        if (a > 0) == (b > 0) and a != 0 != b:
            slopes[k] = 3 * (g + h) / ((2 * h + g) / a + (h + 2 * g) / b)
    return slopes


def _quadratic(points: Points) -> Shape:
    slopes, bends = _quadratic_pieces(points)

    def value(k: int, frame: int) -> float:
        near = k if 2 * frame < points[k][0] + points[k + 1][0] else k + 1  # the piece of the nearer point
        near = min(max(near, 1), len(points) - 2)
        away = frame - points[near][0]
        return points[near][1] + away * (slopes[near - 1] + away * bends[near - 1])

    return value


def _quadratic_pieces(points: Points) -> tuple[list[float], list[float]]:
    """Of each inner point the slope s and the bend c of the quadratic spline whose pieces meet half-way between the
    points (the outermost pieces hold two points each).

    These are the knots of scipy's make_interp_spline(k=2). Each inner point i carries y + s d + c d^2, d being the
    distance from it; that value and slope agree half-way to the next point gives both c from the slopes s, and
    equating the two c of one point gives the system solved here (it is diagonally dominant).
    """
    gaps, rises = _gaps(points)
    inner = len(points) - 2
    below, diagonal, above, right = [0.0] * inner, [0.0] * inner, [0.0] * inner, [0.0] * inner
    for k in range(inner):  # at point k + 1: gap k lies to its left, gap k + 1 to its right
        for gap, is_end in ((k, k == 0), (k + 1, k == inner - 1)):
            if is_end:  # the piece goes through the outermost point itself
                diagonal[k] += 1 / gaps[gap]
                right[k] += rises[gap] / gaps[gap]
                continue
            diagonal[k] += 1.5 / gaps[gap]
            right[k] += 2 * rises[gap] / gaps[gap]
            (below if gap == k else above)[k] = 0.5 / gaps[gap]
    slopes = _solve(below, diagonal, above, right)
    bends = [(slopes[0] - rises[0]) / gaps[0]]
    bends += [(slopes[k - 1] + 3 * slopes[k] - 4 * rises[k]) / (2 * gaps[k]) for k in range(1, inner)]
    return slopes, bends


def _hermite(points: Points, slopes: Sequence[float]) -> Shape:
    """The cubic with these values and slopes at both ends of each gap."""

    def value(k: int, frame: int) -> float:
        (first, low), (last, high) = points[k], points[k + 1]
        gap = last - first
        u = (frame - first) / gap
        rise, leave, arrive = high - low, slopes[k] * gap, slopes[k + 1] * gap
        return low + u * (leave + u * (3 * rise - 2 * leave - arrive + u * (leave + arrive - 2 * rise)))

    return value


def _gaps(points: Points) -> tuple[list[int], list[float]]:
    """Between neighbours: the frames from one to the next, and the rise per frame."""
    gaps = [points[k + 1][0] - points[k][0] for k in range(len(points) - 1)]
    return gaps, [(points[k + 1][1] - points[k][1]) / gap for k, gap in enumerate(gaps)]


def _solve(
    below: Sequence[float], diagonal: Sequence[float], above: Sequence[float], right: Sequence[float]
) -> list[float]:
    """A tridiagonal system (Thomas' algorithm: needs no pivots where the diagonal dominates)."""
    diagonal, right = list(diagonal), list(right)
    for k in range(1, len(right)):
        factor = below[k] / diagonal[k - 1]
        diagonal[k] -= factor * above[k - 1]
        right[k] -= factor * right[k - 1]
    for k in reversed(range(len(right))):
        after = above[k] * right[k + 1] if k + 1 < len(right) else 0.0
        right[k] = (right[k] - after) / diagonal[k]
    return right


_SHAPES: dict[str, Callable[[Points], Shape]] = {
    "step": _step,
    "linear": _linear,
    "quadratic": _quadratic,
    "cubic": _cubic,
    "bezier": _bezier,
}
