"""What asyncio needs beside threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from ._agnes import Call

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Calls a function in a thread. Whoever does not wait for it any more ends it: a thread cannot be left alone, as
    a program ends only after its threads."""
    call = Call()
    try:
        return await asyncio.to_thread(lambda: call.run(function, *args, **kwargs))
    except asyncio.CancelledError:
        call.cancel()
        raise


async def next_of(iterator: Iterator[T]) -> T:
    """The next item, read in a thread."""
    end = object()
    item = await asyncio.to_thread(next, iterator, end)
    if item is end:
        raise StopAsyncIteration
    return cast("T", item)
