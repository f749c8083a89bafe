"""A deadline shared by thousands of waits: what takes longer is ended, what does not is left alone."""

import asyncio

import pytest

from service.http.deadlines import Deadlines
from tests.helpers.virtual_time import in_virtual_time


async def wait(deadlines: Deadlines, seconds: float) -> str:
    with deadlines:
        await asyncio.sleep(seconds)
    return "in time"


@in_virtual_time
async def test_a_wait_in_time_is_left_alone() -> None:
    assert await wait(Deadlines(0.2), 0.01) == "in time"


@in_virtual_time
async def test_what_takes_longer_raises_timeout_error() -> None:
    started = asyncio.get_running_loop().time()

    with pytest.raises(TimeoutError):
        await wait(Deadlines(0.1), 10)

    assert 0.1 <= asyncio.get_running_loop().time() - started <= 0.126, "within a quarter more"


@in_virtual_time
async def test_each_wait_has_its_own_deadline() -> None:
    deadlines = Deadlines(0.2)

    found = await asyncio.gather(*(wait(deadlines, n) for n in (0.01, 5, 0.05, 6)), return_exceptions=True)

    assert [type(one) for one in found] == [str, TimeoutError, str, TimeoutError]


@in_virtual_time
async def test_a_task_goes_on_after_its_deadline() -> None:
    deadlines = Deadlines(0.05)
    with pytest.raises(TimeoutError):
        await wait(deadlines, 1)

    assert await wait(deadlines, 0.001) == "in time"
    assert await asyncio.create_task(wait(deadlines, 0.001)) == "in time"


@in_virtual_time
async def test_a_cancelled_task_is_cancelled_and_not_out_of_time() -> None:
    task = asyncio.create_task(wait(Deadlines(5), 5))
    await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_wait_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="as it is"), Deadlines(1):
        raise ValueError("as it is")
