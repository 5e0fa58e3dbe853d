"""The ways in which transformers loads kernels by name, through the mirror, with a tiny model.

Without the shim: what unmodified clients do, also with a kernel that they may not have. The version
is that of the test environment (5.22 when this was written).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from kgate_core.kernel import KernelRef
from tests.clients import run_ungated
from tests.mirrorkit import make_mirror, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.matrix

METADATA: Final = (
    b'{"name":"%b","id":"_acme_%b","version":1,"license":"Apache-2.0",'
    b'"python-depends":[],"backend":{"type":"cpu"}}'
)
ATTENTION: Final = b"""
import torch

calls = []


def flash_attn_func(q, k, v, *args, causal=False, **more):
    calls.append(1)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return found.transpose(1, 2)


def flash_attn_varlen_func(*args, **more):
    raise NotImplementedError
"""
NORM: Final = b"""
import torch

calls = []


class RMSNorm(torch.nn.Module):
    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, hidden_states):
        calls.append(1)
        wide = hidden_states.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(hidden_states.dtype)
"""
HEAD: Final = """
import json, sys, torch
from kernels import LayerRepository, Mode, register_kernel_mapping
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations import hub_kernels

def model(attention="eager"):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=attention).eval()

def same(changed):
    ids = torch.arange(8)[None]
    return torch.allclose(model()(ids).logits, changed(ids).logits, atol=1e-4)

def calls(name):
    found = (module for key, module in list(sys.modules.items()) if name in key)
    return sum(len(m.calls) for m in found if isinstance(getattr(m, "calls", None), list))

def kernelized(repo):
    layer = LayerRepository(repo_id=repo, layer_name="RMSNorm", version=1)
    mapping = {"RMSNorm": {"cpu": {Mode.INFERENCE: layer}}}
    register_kernel_mapping(mapping, inherit_mapping=False)
    changed = model()
    hub_kernels.kernelize(changed)
    return changed
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    kit = make_mirror(tmp_path_factory.mktemp("mirror"))
    for name, files in (
        (b"attention", {"__init__.py": ATTENTION}),
        (b"norm", {"__init__.py": b"from . import layers\n", "layers.py": NORM}),
    ):
        repo = KernelRef("acme", name.decode())
        metadata = {"metadata.json": METADATA % (name, name)}
        kit.publish(kit.variant({**metadata, **files}, repo=repo), repo=repo)
    kit.deny()
    with served(kit.settings) as address:
        yield address


def said(program: str, home: Path, address: str) -> Any:
    return run_ungated(HEAD + program, home, endpoint=address)


def test_attention_by_the_name_of_a_kernel(tmp_path: Path, address: str) -> None:
    program = 'print(json.dumps([same(model("acme/attention@v1")), calls("attention") > 0]))'
    assert said(program, tmp_path, address) == [True, True]


def test_attention_by_the_name_of_a_refused_kernel_is_an_error_that_names_it(
    tmp_path: Path, address: str
) -> None:
    """Whoever asks for an attention kernel by name gets no other: transformers itself refuses."""
    program = """
try:
    model("acme/evil@v1")
except ValueError as exc:
    print(json.dumps("acme/evil" in str(exc)))
"""
    assert said(program, tmp_path, address) is True


def test_kernelize_takes_a_layer_from_the_mirror(tmp_path: Path, address: str) -> None:
    program = 'print(json.dumps([same(kernelized("acme/norm")), calls("norm") > 0]))'
    assert said(program, tmp_path, address) == [True, True]


@pytest.mark.parametrize("repo", ["acme/evil", "acme/unheard-of"])
def test_kernelize_with_a_refused_kernel_runs_the_models_own_layer(
    tmp_path: Path, address: str, repo: str
) -> None:
    program = f'print(json.dumps([same(kernelized("{repo}")), calls("norm")]))'
    assert said(program, tmp_path, address) == [True, 0]


def test_a_lazily_loaded_kernel_that_is_refused_is_none(tmp_path: Path, address: str) -> None:
    program = """
hub_kernels._HUB_KERNEL_MAPPING["evil"] = {"repo_id": "acme/evil", "version": 1}
print(json.dumps(hub_kernels.lazy_load_kernel("evil") is None))
"""
    assert said(program, tmp_path, address) is True
