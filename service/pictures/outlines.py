"""Lines through the buckets of a series: without what nobody would see, and in few characters."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

_TOLERANCE = 0.2  # of a pixel: what a line may leave its points by

Point = tuple[float, float]


def runs(values: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    """Buckets that follow each other without a gap, as places and values: from the first one's start to the last one's
    end, through the middle of each. A single bucket is as wide as it is."""
    places = ((place, value) for place, value in enumerate(values))
    for is_gap, run in groupby(places, key=lambda one: one[1] is None):
        if not is_gap:
            known = [(place, value) for place, value in run if value is not None]
            (first, begun), (last, ended) = known[0], known[-1]
            yield [(first, begun), *((place + 0.5, value) for place, value in known), (last + 1, ended)]


def thinned(points: list[Point]) -> list[Point]:
    """Of more than two points in one column of pixels the lowest and the highest: no spike is lost. A run keeps its
    ends."""
    kept = [points[0]]
    for _, column in groupby(points[1:-1], key=lambda one: int(one[0])):
        found = list(column)
        if len(found) > 2:
            found = sorted({min(found, key=lambda one: one[1]), max(found, key=lambda one: one[1])})
        kept += found
    return [*kept, points[-1]]


def simplified(points: list[Point]) -> list[Point]:
    """Without those that lie on the way, to _TOLERANCE: from each point, all that can be reached in one line."""
    kept = [points[0]]
    candidate = points[0]
    low, high = float("-inf"), float("inf")
    for point in points[1:]:
        x, y = kept[-1]
        ahead = point[0] - x
        slope = (point[1] - y) / ahead
        if not low <= slope <= high:
            kept.append(candidate)
            x, y = candidate
            ahead = point[0] - x
            low, high = float("-inf"), float("inf")
        near, far = (point[1] - _TOLERANCE - y) / ahead, (point[1] + _TOLERANCE - y) / ahead
        low, high = near if near > low else low, far if far < high else high
        candidate = point
    return [*kept, candidate]


def paths(runs: list[list[Point]], base: float) -> tuple[str, str]:
    """The line through each run, and the area between it and the base, in tenths of a pixel without drift."""
    line: list[str] = []
    area: list[str] = []
    for run in runs:
        whole = [(round(x * 10), round(y * 10)) for x, y in run]
        x, y = whole[0]
        steps = [f"M{tenths(x)} {tenths(y)}"]
        for to_x, to_y in whole[1:]:
            across, along = tenths(to_x - x), tenths(to_y - y)
            # A sign, too, parts two numbers.
            steps.append(f"h{across}" if to_y == y else f"l{across}{'' if along[0] == '-' else ' '}{along}")
            x, y = to_x, to_y
        outline = "".join(steps)
        line.append(outline)
        area.append(f"{outline}V{tenths(round(base * 10))}H{tenths(whole[0][0])}z")
    return "".join(line), "".join(area)


@lru_cache(maxsize=20_000)
def tenths(number: int) -> str:
    """So many tenths, in as few characters as that takes."""
    whole, rest = divmod(abs(number), 10)
    sign = "-" if number < 0 else ""
    return f"{sign}{whole}" if not rest else f"{sign}{whole or ''}.{rest}"
