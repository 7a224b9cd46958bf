"""Which number format a model computes in, and on which of the processor's units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankers.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_INFO = Path("/proc/cpuinfo")
MATRIX_UNIT_FLAGS = frozenset({"amx_bf16", "bf16"})
"""Matrix units of x86 (AMX) and ARM (v8.6) that take bfloat16."""
VECTOR_FLAG = "avx512_bf16"
"""Products of bfloat16 on AVX-512.

On AMD (Zen 5) a prefill was twice as fast with them as in float32, on Intel (Sapphire Rapids) 1.6 times slower.
"""
AMD = "AuthenticAMD"


def cpu_features(cpuinfo: Path = CPU_INFO) -> frozenset[str]:
    """Who made the processor, and its flags, as the Linux kernel lists them; nothing on other systems."""
    features: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in {"vendor_id", "flags", "Features"}:
                features.update(value.split())
            if not line.strip() and features:
                break  # the next processor is like the first
    return frozenset(features)


def cpu_has_matrix_unit(cpuinfo: Path = CPU_INFO) -> bool:
    """Whether the processor multiplies matrices of bfloat16 in a unit of their own, several times faster."""
    return not MATRIX_UNIT_FLAGS.isdisjoint(cpu_features(cpuinfo))


def cpu_computes_bfloat16(cpuinfo: Path = CPU_INFO) -> bool:
    """Whether the processor has instructions for bfloat16 with which a model is faster than in float32."""
    return cpu_has_matrix_unit(cpuinfo) or {AMD, VECTOR_FLAG} <= cpu_features(cpuinfo)


def choose_dtype(name: str, device: str, *, cpuinfo: Path = CPU_INFO) -> torch.dtype:
    """Turn the name of a number format into a dtype.

    Parameters
    ----------
    name
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 on CUDA and on processors with a matrix unit for
        it, float32 on all others.
    device
        A torch device, ``cpu`` or ``cuda:0``.
    cpuinfo
        Where the processor is described.

    Returns
    -------
    torch.dtype
        The format.

    Raises
    ------
    ConfigError
        If there is no such format, or bfloat16 would be slower than float32 on this processor.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    on_cpu = torch.device(device).type == "cpu"
    if name == "auto":
        fast = device.startswith("cuda") or (on_cpu and cpu_has_matrix_unit(cpuinfo))
        return torch.bfloat16 if fast else torch.float32
    if name not in known:
        raise ConfigError(f"dtype {name!r} is not one of auto, {', '.join(known)}")
    if name == "bfloat16" and on_cpu and not cpu_computes_bfloat16(cpuinfo):
        raise ConfigError(
            f"dtype is bfloat16, but this processor has none of {', '.join(sorted(MATRIX_UNIT_FLAGS))}, nor "
            f"{VECTOR_FLAG} of AMD, and would be slower than in float32; set dtype to float32 or auto"
        )
    return known[name]


def use_avx512_products(cpuinfo: Path = CPU_INFO) -> bool:
    """Let this process compute float32 matrix products on AVX-512 where torch by itself would not.

    On processors of AMD torch's own library for them (MKL) keeps to AVX2, half as wide; the other one that comes with
    torch (oneDNN) does not. torch hands it float32 products once it may round them to bfloat16, which without a matrix
    unit it never does: a product that rounding would change is computed to make sure. Where there is CUDA nothing is
    changed, because the permission would count there too.

    Parameters
    ----------
    cpuinfo
        Where the processor is described.

    Returns
    -------
    bool
        Whether float32 products take AVX-512 by this function.
    """
    import torch

    features = cpu_features(cpuinfo)
    wanted = {AMD, "avx512f"} <= features and MATRIX_UNIT_FLAGS.isdisjoint(features) and not torch.cuda.is_available()
    if not wanted:
        return False
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    if _products_are_exact():
        return True
    torch.set_float32_matmul_precision(before)
    return False


def _products_are_exact() -> bool:
    import torch

    # 1 + 2^-12 and the sums of it fit float32 and are 1 and its sums in bfloat16.
    rows, columns, value = 256, 512, 1 + 2.0**-12
    found = torch.full((rows, columns), value) @ torch.ones(columns, rows)
    return bool((found == columns * value).all())
