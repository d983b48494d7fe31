"""Tests as root, for whom the system checks no permission: here it does."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h)
_VERSION = 0x20080522


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Within the block this thread reads and writes only what the mode of a file allows to it, root or not."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, had = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, had) == 0
    effective, *others = had
    assert libc.capset(header, (ctypes.c_uint32 * 6)(effective & ~_OVERRIDES, *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, had) == 0
