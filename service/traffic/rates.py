"""The rate of a bucket, as SQL: one that the line carried, however rarely or irregularly heartbeats come.

A sample counts what moved since the sample before, which may lie in an earlier bucket: divided by the width of its own
bucket alone, an hour's traffic would be a minute's. Samples that come on time cover a whole bucket but for less than an
interval, or more than it; then the rate is the mean over the time that they cover. It is never above the highest rate
between two samples: of a gap, nothing else is known.
"""

# rx_bps_max is a real: rounded, it may be below the rate that it is of.
_ROUNDING = 1.000001


def rate(direction: str, width_ms: str) -> str:
    """SQL for bits per second, to the nearest tenth, of a row of an aggregate, or of several put together.

    direction  rx or tx
    width_ms   SQL for the bucket's width in milliseconds; of the one under way, maybe what has passed of it

    The row has {direction}_bytes, {direction}_bps_max, up_ms and interval_ms.
    """
    # up_ms leaves gaps out, and the time in which the interface was down.
    covered = f"CASE WHEN up_ms > greatest({width_ms} - interval_ms, 0) THEN up_ms ELSE {width_ms} END"
    mean = f"{direction}_bytes * 8000::double precision / {covered}"
    most = f"{direction}_bps_max"
    return f"round((CASE WHEN {mean} > {most} * {_ROUNDING}::double precision THEN {most} ELSE {mean} END) * 10) / 10"


def rates(width_ms: str) -> str:
    """SQL for the columns rx_bps and tx_bps."""
    return f"{rate('rx', width_ms)} AS rx_bps, {rate('tx', width_ms)} AS tx_bps"
