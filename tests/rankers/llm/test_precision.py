"""Number formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankers.errors import ConfigError
from rankers.llm.precision import choose_dtype, cpu_computes_bfloat16


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu sse avx2 fma", False),
        ("flags\t\t: fpu avx512f avx512_bf16", False),
        ("flags\t\t: amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("Features\t: fp asimd", False),
        ("model name\t: bf16 in a name only", False),
    ],
)
def test_bfloat16_is_read_from_the_processor_flags(tmp_path: Path, line: str, fast: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\npower management:\n")
    assert cpu_computes_bfloat16(cpuinfo) is fast


def test_a_system_that_lists_no_flags_is_taken_to_have_none(tmp_path: Path) -> None:
    assert not cpu_computes_bfloat16(tmp_path / "none")


def test_dtypes_by_name_and_by_device() -> None:
    assert choose_dtype("float32", "cuda") is torch.float32
    assert choose_dtype("bfloat16", "cpu") is torch.bfloat16
    assert choose_dtype("auto", "cuda:1") is torch.bfloat16
    assert choose_dtype("auto", "cpu") is (torch.bfloat16 if cpu_computes_bfloat16() else torch.float32)
    with pytest.raises(ConfigError, match="dtype 'int8' is not one of auto, float32"):
        choose_dtype("int8", "cpu")
