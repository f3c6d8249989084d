"""What this process alone holds in main memory. Knows addresses and the system's counters: no model and no device.

Pages of files (libraries, weights that were read and are not needed any more) are the system's: it takes them back
whenever another program needs memory. Of them only those count in which weights still lie.
"""

import ctypes
import platform
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

import psutil

_MAPS = Path("/proc/self/maps")


def own_bytes() -> int:
    """What the process holds without pages of files; where the system does not tell them apart, with them."""
    info = psutil.Process().memory_info()
    if hasattr(info, "shared"):
        return info.rss - info.shared
    return getattr(info, "private", info.rss)


def mapped_bytes(places: Mapping[int, int]) -> int:
    """Of the tensors that lie at these addresses with so many bytes, those of the ones that are pages of a file, and so
    are none of `own_bytes`."""
    if not _MAPS.exists():
        return 0
    # address-address permissions offset device inode path
    lines = [line.split(maxsplit=5) for line in _MAPS.read_text(errors="replace").splitlines()]
    ranges = sorted(tuple(int(end, 16) for end in words[0].split("-")) for words in lines if words[4] != "0")
    starts = [start for start, _ in ranges]

    def in_file(address: int) -> bool:
        place = bisect_right(starts, address) - 1
        return place >= 0 and address < ranges[place][1]

    return sum(size for address, size in places.items() if in_file(address))


def give_back() -> None:
    """Gives the holes of the heap back to the system; C libraries other than glibc do so by themselves."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
