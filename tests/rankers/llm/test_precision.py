"""Number formats, and the units that compute them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rankers.consistency import kendall_tau
from rankers.errors import ConfigError
from rankers.listwise.ranker import ListwiseRanker
from rankers.llm.precision import choose_dtype, cpu_computes_bfloat16, cpu_has_matrix_unit, use_avx512_products
from rankers.llm.transformers_engine import TransformersEngine
from rankers.types import Document, Query, Ranking

INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f avx512_bf16"
INTEL_AMX = "vendor_id\t: GenuineIntel\nflags\t\t: avx512f avx512_bf16 amx_bf16 amx_tile"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512f avx512_bf16"
AMD_AVX2 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 fma"
ARM = "Features\t: fp asimd bf16 i8mm"


@pytest.fixture
def cpuinfo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A description of two equal processors."""
    processor = f"processor\t: 0\n{request.param}\npower management:\n\n"
    (tmp_path / "cpuinfo").write_text(2 * processor)
    return tmp_path / "cpuinfo"


@pytest.fixture
def own_products() -> Iterator[None]:
    """Float32 products as they were before the test, again after it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("cpuinfo", "matrix", "fast"),
    [
        (INTEL, False, False),
        (INTEL_AMX, True, True),
        (AMD, False, True),
        (AMD_AVX2, False, False),
        (ARM, True, True),
        ("Features\t: fp asimd", False, False),
        ("model name\t: bf16 in a name only", False, False),
    ],
    indirect=["cpuinfo"],
)
def test_bfloat16_is_read_from_the_processor_flags(cpuinfo: Path, matrix: bool, fast: bool) -> None:
    assert cpu_has_matrix_unit(cpuinfo) is matrix
    assert cpu_computes_bfloat16(cpuinfo) is fast
    assert choose_dtype("auto", "cpu", cpuinfo=cpuinfo) is (torch.bfloat16 if matrix else torch.float32)
    if fast:
        assert choose_dtype("bfloat16", "cpu", cpuinfo=cpuinfo) is torch.bfloat16
    else:
        with pytest.raises(ConfigError, match="this processor has none of amx_bf16, bf16, nor avx512_bf16 of AMD"):
            choose_dtype("bfloat16", "cpu", cpuinfo=cpuinfo)


def test_a_system_that_lists_no_flags_is_taken_to_have_none(tmp_path: Path) -> None:
    assert not cpu_computes_bfloat16(tmp_path / "none")


def test_dtypes_by_name_and_by_device() -> None:
    assert choose_dtype("float32", "cuda") is torch.float32
    assert choose_dtype("auto", "cuda:1") is torch.bfloat16
    assert choose_dtype("bfloat16", "cuda") is torch.bfloat16
    with pytest.raises(ConfigError, match="dtype 'int8' is not one of auto, float32"):
        choose_dtype("int8", "cpu")


@pytest.mark.usefixtures("own_products")
@pytest.mark.parametrize("cpuinfo", [INTEL, INTEL_AMX, AMD_AVX2, ARM], indirect=True)
def test_products_are_left_alone_where_torch_chooses_well(cpuinfo: Path) -> None:
    assert not use_avx512_products(cpuinfo)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("own_products")
@pytest.mark.parametrize("cpuinfo", [AMD], indirect=True)
def test_products_stay_float32_on_whatever_processor_this_is(cpuinfo: Path) -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(300, 700)), generator.normal(size=(700, 200))
    chosen = use_avx512_products(cpuinfo)
    assert torch.get_float32_matmul_precision() == ("medium" if chosen else "highest")
    found = torch.tensor(one, dtype=torch.float32) @ torch.tensor(other, dtype=torch.float32)
    # In bfloat16 the error would be about 0.1.
    np.testing.assert_allclose(found.numpy(), one @ other, atol=1e-3)


TOPICS = {
    "how are glaciers formed": "Glaciers form where snow lies for years and is pressed into ice.",
    "why do cats purr": "Cats purr when they are calm, and sometimes when they are in pain.",
    "what does a central bank do": "A central bank issues money and sets the rate at which banks borrow.",
    "how is steel made": "Steel is made from iron by burning most of its carbon away.",
}
OTHERS = (
    "The court held that the contract was void.",
    "Snow fell on the pass for the third day.",
    "The bank of the river was steep.",
    "Iron rusts where air and water meet.",
    "Dogs were the first animals to be tamed.",
    "Interest rates rose in the spring.",
)


def test_smollm2_orders_windows_in_bfloat16_as_in_float32(smollm2: str, smollm2_engine: TransformersEngine) -> None:
    # Not loaded by the engine, which would refuse the format on some processors.
    network: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    fast = TransformersEngine(network.eval(), AutoTokenizer.from_pretrained(smollm2))
    texts = [*OTHERS[:3], *TOPICS.values(), *OTHERS[3:]]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    rankings = [Ranking.from_order(Query(query, query), documents) for query in TOPICS]
    exact, rounded = (
        ListwiseRanker(engine, template="first_small").rank(rankings) for engine in (smollm2_engine, fast)
    )
    taus = [kendall_tau(one.ids, other.ids) for one, other in zip(exact, rounded, strict=True)]
    assert np.mean(taus) > 0.9
    assert [one.ids[0] for one in exact] == [other.ids[0] for other in rounded]
