"""Which number format a model computes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankers.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_FLAGS = Path("/proc/cpuinfo")
FAST_BFLOAT16_FLAGS = frozenset({"amx_bf16", "bf16"})
"""Matrix units of x86 (AMX) and ARM (v8.6) that take bfloat16.

AVX-512 has bfloat16 too, but there a prefill was 1.6 times slower in bfloat16 than in float32.
"""


def cpu_computes_bfloat16(cpuinfo: Path = CPU_FLAGS) -> bool:
    """Whether the processor has a matrix unit for bfloat16; without one it is slower than float32.

    Read from the processor flags the Linux kernel lists; on other systems the answer is no.
    """
    if not cpuinfo.is_file():
        return False
    for line in cpuinfo.read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return not FAST_BFLOAT16_FLAGS.isdisjoint(flags.split())
    return False


def choose_dtype(name: str, device: str) -> torch.dtype:
    """Turn the name of a number format into a dtype.

    Parameters
    ----------
    name
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 on CUDA and on processors with a matrix unit for
        it, float32 on all others.
    device
        A torch device, ``cpu`` or ``cuda:0``.

    Returns
    -------
    torch.dtype
        The format.

    Raises
    ------
    ConfigError
        If there is no such format.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        fast = device.startswith("cuda") or (device == "cpu" and cpu_computes_bfloat16())
        return torch.bfloat16 if fast else torch.float32
    if name not in known:
        raise ConfigError(f"dtype {name!r} is not one of auto, {', '.join(known)}")
    return known[name]
