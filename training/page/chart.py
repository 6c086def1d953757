"""Lines and points over the steps of a run, as SVG that takes its colours from the page's style."""

import math
from collections.abc import Sequence

WIDE, HIGH, LEFT, BELOW = 720, 280, 64, 30  # of a chart, and the space of its axes


def thinned(points: list[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """At most so many points, evenly spread, the last among them."""
    every = -(-len(points) // most)
    return points[::every] + ([points[-1]] if (len(points) - 1) % every else [])


class Chart:
    """Axes for some points (x, y), and what is drawn in them, as SVG."""

    def __init__(self, points: Sequence[tuple[float, float]], logarithmic: bool = False):
        self.of = math.log10 if logarithmic else float
        xs, ys = [x for x, _ in points], [self.of(y) for _, y in points]
        self.left, self.right = min(xs), max(max(xs), min(xs) + 1)
        margin = 0.06 * (max(ys) - min(ys)) or 0.05
        self.low, self.high, self.logarithmic = min(ys) - margin, max(ys) + margin, logarithmic

    def x(self, value: float) -> float:
        """The place of a step."""
        return LEFT + (WIDE - LEFT - 8) * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        """The place of a value."""
        return 8 + (HIGH - BELOW - 8) * (self.high - self.of(value)) / (self.high - self.low)

    def line(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """A line through the points."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="{kind}" points="{places}"/>' if points else ""

    def dots(self, points: Sequence[tuple[float, float]], kind: str = "dot", radius: int = 3) -> str:
        """A circle at each point."""
        return "".join(
            f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>' for x, y in points
        )

    def band(self, first: float, last: float) -> str:
        """From step to step, over the whole height."""
        begin, end = self.x(first) - 3, self.x(last) + 3
        return f'<rect class="stage" x="{begin:.1f}" y="8" width="{end - begin:.1f}" height="{HIGH - BELOW - 8}"/>'

    def ticks(self) -> list[float]:
        """Round numbers on the axis of the values: 1, 2 and 5 times powers of ten, or one step of these apart."""
        if self.logarithmic:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            return [d * 10.0**p for p in powers for d in (1, 2, 5) if self.low <= math.log10(d * 10.0**p) <= self.high]
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        apart = next(d * power for d in (1, 2, 5, 10) if (self.high - self.low) / (d * power) <= 5)
        return [i * apart for i in range(math.ceil(self.low / apart), math.floor(self.high / apart) + 1)]

    def svg(self, drawn: str, title: str) -> str:
        """The axes with numbers, and what is drawn in them."""
        axes = ""
        for value in self.ticks():
            at = self.y(value)
            axes += f'<line class="axis" x1="{LEFT}" x2="{WIDE - 8}" y1="{at:.1f}" y2="{at:.1f}"/>'
            axes += f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        for i, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
            step = self.left + (self.right - self.left) * i
            axes += f'<text x="{self.x(step):.1f}" y="{HIGH - 6}" text-anchor="{anchor}">{step:.0f}</text>'
        return f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{title}">{axes}{drawn}</svg>\n'
