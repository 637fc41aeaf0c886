"""Keeps freed memory in the process, so that two measurements find the allocator in one state.

glibc gives large blocks back to the system when they are freed, and the kernel maps (and clears)
their pages anew at the next call: a copy of 6 MB then takes five times as long. Whether it does
depends on what the process allocated before. Servers preload allocators that keep memory; here
glibc is told to.
"""

from __future__ import annotations

import ctypes

# malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST, _PAD = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory until the process ends; False where the library is another."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _LARGEST), mallopt(_TOP_PAD, _PAD)])
