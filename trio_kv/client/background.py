"""A task that runs beside the body of a context, which knows nothing of it: what the body raises comes out as it is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def running_beside(task: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run a task until the body ends; a task that raises cancels the body, and its error comes out instead.

    Args:
        task: an asynchronous function.

    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            try:
                yield
            except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below
                # Out of the nursery it would come in a group.
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Cancelled from outside, both are, and that is the body's to say.
        _, errors = group.split(trio.Cancelled)
        if errors is not None:
            failure = _without_cancelled(failure)
            if failure is None:
                raise _first(errors) from None
        if failure is None:
            raise _first(group) from None
    if failure is not None:
        raise failure


def _without_cancelled(error: BaseException | None) -> BaseException | None:
    """Return what is left of an error: a nursery in the body makes a group of what its tasks raise."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


def _first(group: "BaseExceptionGroup[BaseException]") -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
