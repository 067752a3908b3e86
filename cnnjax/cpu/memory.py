"""Whether the C library keeps memory that was freed. XLA asks for the memory of a program anew at each run.

glibc takes a large block from the system and gives it back when it is freed; the system clears each page of it at its
first touch. For a training step of 35 MB that was a third of its time. Two settings keep blocks; they hold for the heap
of the main thread only. Other threads have heaps of their own (arenas) of at most 64 MB, and take what is larger from
the system whatever is set: so the threads that start from now on, those of XLA among them, share the main one.
"""

import ctypes
import os
import platform

# From malloc.h: the parameters of mallopt, and what they are by default.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_DEFAULTS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024, _ARENA_MAX: 8 * (os.cpu_count() or 1)}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}


def keep(on: bool) -> bool:
    """Keep freed memory from now on, or do as glibc does by default; whether it is kept now."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = {name: mallopt(name, value) for name, value in (_KEEPING if on else _DEFAULTS).items()}
    return on and all(taken.values())
