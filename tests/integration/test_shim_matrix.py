"""Each way to fail against each way to load: always the fallback, quickly, with a reason.

The rows are what can go wrong with a kernel, the columns how programs ask for one: layers through
`kernelize`, transformers' own loader and a transformers model, plain code, a decorated function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kgate_signer.trustchanges import revoke_digest
from tests.integration.test_shim_fallback import (
    _gated,
    _Hub,
    _no_build,
    _no_version,
    _online,
    _other_build,
    _unknown_repo,
    _untrusted,
    hub,
)
from tests.podkit import FILES, REPO, Pod
from tests.trustkit import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["hub"]

# RMSNorm in a tiny Llama is what kernels replace in practice.
NORM = b"""
import torch
from torch import nn

class LlamaRMSNorm(nn.Module):
    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, hidden_states):
        wide = hidden_states.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(hidden_states.dtype)

class Double(nn.Module):
    def forward(self, x):
        return x * 2
"""
KERNEL = FILES | {"layers.py": NORM}

WAYS = f"""
import json, time
import torch
from torch import nn
import kgate_client
from kernels import (LayerRepository, Mode, get_kernel, kernelize, register_kernel_mapping,
                     use_kernel_forward_from_hub, use_kernel_mapping)
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations import hub_kernels

@use_kernel_forward_from_hub("Double")
class Double(nn.Module):
    def forward(self, x):
        return x + x

def layer(use_fallback):
    model = nn.Sequential(Double())
    mapping = {{"Double": {{"cpu": LayerRepository({REPO!r}, layer_name="Double", version=1)}}}}
    with use_kernel_mapping(mapping, inherit_mapping=False):
        kernelize(model, mode=Mode.INFERENCE, device="cpu", use_fallback=use_fallback)
    value = model(torch.ones(1)).item()
    return ["fallback" if model[0].forward.__func__ is Double.forward else "loaded", value]

def llama():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32,
                         num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
    model = LlamaForCausalLM(config).eval()
    norm = model.model.norm
    own = norm.forward.__func__
    repo = LayerRepository({REPO!r}, layer_name="LlamaRMSNorm", version=1)
    with use_kernel_mapping({{"RMSNorm": {{"cpu": repo}}}}, inherit_mapping=False):
        hub_kernels.kernelize(model)
    with torch.no_grad():
        logits = model(torch.arange(8).unsqueeze(0)).logits
    outcome = "fallback" if norm.forward.__func__ is own else "loaded"
    return [outcome, round(logits.double().sum().item(), 4)]

def lazily():
    hub_kernels._HUB_KERNEL_MAPPING["double"] = {{"repo_id": {REPO!r}, "version": 1}}
    module = hub_kernels.lazy_load_kernel("double", mapping={{}})
    return ["fallback", 6] if module is None else ["loaded", module.double(3)]

@kgate_client.fallback({REPO!r}, "double", version=1)
def decorated(x):
    return -x

def bare():
    try:
        return ["loaded", get_kernel({REPO!r}, version=1).double(3)]
    except kgate_client.KgateBlocked as exc:
        return ["blocked", exc.reason]

def strictly():
    try:
        return layer(False)
    except kgate_client.KgateBlocked as exc:
        return ["blocked", exc.reason]

start = time.monotonic()
outcomes = {{
    "kernelize": layer(True),
    "kernelize without fallback": strictly(),
    "transformers model": llama(),
    "transformers loader": lazily(),
    "plain": "own" if kgate_client.load({REPO!r}, version=1, fallback="own") == "own" else "loaded",
    "decorated": decorated(3),
    "get_kernel": bare(),
}}
print(json.dumps([outcomes, time.monotonic() - start]))
"""

Row = tuple[Pod, dict[str, str | None]]


def _revoked(pod: Pod) -> Row:
    pod.run("import json; print(json.dumps(0))")
    trust = revoke_digest(
        pod.trust.trust, manifest_of(KERNEL).digest, "CVE-1", pod.trust.offline, now=pod.trust.now
    )
    return pod.with_trust(trust), {}


def _changed(pod: Pod) -> Row:
    (pod.variant() / "added.py").write_text("")
    return pod, {}


def _dead(pod: Pod) -> Row:
    return pod, {"HF_HUB_OFFLINE": None, "HF_ENDPOINT": "http://127.0.0.1:9"}


def _readmitted(pod: Pod, files: dict[str, bytes]) -> Row:
    for path in pod.variant().iterdir():
        path.unlink()
    pod.cache_kernel(files)
    pod.admit(files)
    return pod, {}


def _abi(pod: Pod) -> Row:
    """A library that this machine's loader does not take."""
    broken = b"import ctypes, os\nctypes.CDLL('libtorch_of_another_abi.so.7')\n"
    return _readmitted(pod, KERNEL | {"__init__.py": broken + KERNEL["__init__.py"]})


def _import(pod: Pod) -> Row:
    text = b"raise ImportError('undefined symbol: _ZN3c10')\n"
    return _readmitted(pod, KERNEL | {"__init__.py": text})


ROWS: dict[str, tuple[Callable[[Pod], Row], str]] = {
    "revoked": (_revoked, "revoked"),
    "changed": (_changed, "integrity"),
    "dead endpoint": (_dead, "unreachable"),
    "ABI mismatch": (_abi, "import-error"),
    "import error": (_import, "import-error"),
}
AT_THE_HUB: dict[str, tuple[Callable[[_Hub], None], str]] = {
    "untrusted": (_untrusted, "untrusted-publisher"),
    "404": (_unknown_repo, "not-found"),
    "gated": (_gated, "gated"),
    "version missing": (_no_version, "version-not-found"),
    "no build": (_no_build, "no-build"),
    "other build": (_other_build, "no-build"),
}


def _expected(reason: str, llama: float) -> dict[str, Any]:
    return {
        "kernelize": ["fallback", 2.0],
        "kernelize without fallback": ["blocked", reason],
        "transformers model": ["fallback", llama],
        "transformers loader": ["fallback", 6],
        "plain": "own",
        "decorated": -3,
        "get_kernel": ["blocked", reason],
    }


@pytest.fixture(scope="module")
def admitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what all ways give with the kernel."""
    pod = Pod.make(tmp_path_factory.mktemp("admitted"), files=KERNEL)
    found: dict[str, Any] = pod.run(WAYS).value[0]
    return found


def test_an_admitted_kernel_loads_in_every_way(admitted: dict[str, Any]) -> None:
    logits = admitted.pop("transformers model")

    assert admitted == {
        "kernelize": ["loaded", 2.0],
        "kernelize without fallback": ["loaded", 2.0],
        "transformers loader": ["loaded", 6],
        "plain": "loaded",
        "decorated": 6,
        "get_kernel": ["loaded", 6],
    }
    assert logits[0] == "loaded"
    admitted["transformers model"] = logits


@pytest.mark.parametrize("row", ROWS)
def test_a_kernel_that_fails_here_falls_back_in_every_way(
    tmp_path: Path, row: str, admitted: dict[str, Any]
) -> None:
    fault, reason = ROWS[row]
    pod, variables = fault(Pod.make(tmp_path, files=KERNEL))

    outcomes, seconds = pod.run(WAYS, **variables).value

    # The same numbers as with the kernel: the model's own layers compute the same.
    assert outcomes == _expected(reason, admitted["transformers model"][1])
    assert seconds < 20  # one request of the stock client to a dead endpoint takes 23


@pytest.mark.parametrize("row", AT_THE_HUB)
def test_a_kernel_that_the_hub_does_not_give_falls_back_in_every_way(
    tmp_path: Path, hub: _Hub, row: str, admitted: dict[str, Any]
) -> None:
    fault, reason = AT_THE_HUB[row]
    pod = Pod.make(tmp_path, files=KERNEL)
    fault(hub)

    result = pod.run(WAYS, **_online(hub))

    assert result.value[0] == _expected(reason, admitted["transformers model"][1])
    assert result.stderr.count("kgate: ") <= 2  # one name for the version, one for its commit
