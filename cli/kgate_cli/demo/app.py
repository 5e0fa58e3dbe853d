"""An inference program as its author would write it: it knows nothing of kgate.

It builds a small model, runs it on plain PyTorch, asks the Hub for a faster GeluAndMul and runs
it again. `python app.py ORG/NAME` prints one JSON line about what happened.
"""

import json
import sys

import torch
from kernels import (
    LayerRepository,
    Mode,
    get_loaded_kernels,
    kernelize,
    use_kernel_forward_from_hub,
    use_kernel_mapping,
)
from torch import nn
from torch.nn import functional


@use_kernel_forward_from_hub("GeluAndMul")
class GeluAndMul(nn.Module):
    """The layer in plain PyTorch: what runs when there is no kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return gelu of the first half, times the second half."""
        half = x.shape[-1] // 2
        return functional.gelu(x[..., :half]) * x[..., half:]


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(256, 512), GeluAndMul()).eval()
data = torch.randn(32, 256)

with torch.no_grad():
    expected = model(data)
    repository = LayerRepository(repo_id=sys.argv[1], layer_name="GeluAndMul", version=1)
    with use_kernel_mapping({"GeluAndMul": {"cpu": repository}}):
        model = kernelize(model, mode=Mode.INFERENCE, device="cpu", use_fallback=True)
    result = model(data)

sys.stdout.write(
    json.dumps(
        {
            "kernels": [loaded.metadata.id for loaded in get_loaded_kernels()],
            "difference": float((result - expected).abs().max()),
        }
    )
    + "\n"
)
