"""The answer that Prometheus and VictoriaMetrics give alike."""

import json


def received(body: bytes, label: str, value: str) -> dict[int, float]:
    """The series of a query_range whose `label` is `value`, by the start of each bucket.

    A point stands at the end of its bucket; the step is the bucket's width.
    """
    [points] = [one["values"] for one in json.loads(body)["data"]["result"] if one["metric"][label] == value]
    width = points[1][0] - points[0][0]
    return {int(moment - width): float(octets) for moment, octets in points}
