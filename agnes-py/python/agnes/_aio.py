"""What asyncio needs beside threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TypeVar, cast

T = TypeVar("T")


async def next_of(iterator: Iterator[T]) -> T:
    """The next item, read in a thread."""
    end = object()
    item = await asyncio.to_thread(next, iterator, end)
    if item is end:
        raise StopAsyncIteration
    return cast("T", item)
