"""The most memory this process had resident, in MiB."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What Linux takes for "the peak is what is resident now" (man 5 proc, clear_refs)."""


def reset_peak_memory() -> None:
    """Forget the peak so far; where the system cannot, the peak stays that of the whole process."""
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def peak_memory_mib() -> float:
    """Peak resident memory since the last reset."""
    # Not ru_maxrss where it can be helped: on Linux that starts at the peak of the process which started this one.
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
