"""Waiting for what another process does."""

import time


def wait_until(condition, seconds=300):
    """Ask until the answer is true, and return it; fail if it never is, on a slow machine either.

    Args:
        condition (callable): takes nothing.
        seconds (float): after which it never will be.

    Raises:
        AssertionError: the time is over.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"in {seconds} s it never was"
        time.sleep(0.02)
    return found
