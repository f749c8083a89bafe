"""SQL for the rate of a bucket: one that the line carried, however rare or irregular heartbeats are.

A sample counts the traffic since the previous sample, which may be in an earlier bucket: divided by the width of its
bucket, an hour's traffic could appear as a minute's. Samples that arrive on time cover more than the bucket, or the
bucket except for less than one interval; then the rate is the mean over the time that they cover. It is never above the
highest rate between two samples: nothing else is known about a gap.
"""

# rx_bps_max is a real: rounding may make it lower than the rate itself.
_ROUNDING = 1.000001


def rate(direction: str, width_ms: str) -> str:
    """SQL for bits per second, rounded to a tenth, of a row of an aggregate, or of several combined.

    direction  rx or tx
    width_ms   SQL for the bucket's width in milliseconds, or for the elapsed part of the current bucket

    The row has {direction}_bytes, {direction}_bps_max, up_ms and interval_ms.
    """
    # up_ms excludes gaps and the time in which the interface was down.
    covered = f"CASE WHEN up_ms > greatest({width_ms} - interval_ms, 0) THEN up_ms ELSE {width_ms} END"
    mean = f"{direction}_bytes * 8000::double precision / {covered}"
    most = f"{direction}_bps_max"
    return f"round((CASE WHEN {mean} > {most} * {_ROUNDING}::double precision THEN {most} ELSE {mean} END) * 10) / 10"


def rates(width_ms: str) -> str:
    """SQL for the columns rx_bps and tx_bps."""
    return f"{rate('rx', width_ms)} AS rx_bps, {rate('tx', width_ms)} AS tx_bps"
