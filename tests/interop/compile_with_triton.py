"""Compiles one small kernel with Triton for two GPUs, and its driver library, into a cache.

Run by an interpreter that has Triton: `python compile_with_triton.py CACHE STUBS`. No GPU and no
driver are needed: a library without symbols stands for the driver when the host code is linked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CACHE, STUBS = map(Path, sys.argv[1:3])
os.environ |= {"TRITON_CACHE_DIR": str(CACHE), "TRITON_LIBCUDA_PATH": str(STUBS)}

import triton  # type: ignore[import-not-found]  # noqa: E402  # in that environment only
import triton.language as tl  # type: ignore[import-not-found]  # noqa: E402  # as above
from triton.backends.compiler import (  # type: ignore[import-not-found]  # noqa: E402  # as above
    GPUTarget,
)
from triton.backends.nvidia import (  # type: ignore[import-not-found]  # noqa: E402  # as above
    driver,
)
from triton.compiler import ASTSource  # type: ignore[import-not-found]  # noqa: E402  # as above
from triton.runtime.build import (  # type: ignore[import-not-found]  # noqa: E402  # as above
    compile_so_from_file,
)

TARGETS = (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64))


@triton.jit  # type: ignore[untyped-decorator]  # Triton is not there when types are checked
def scale_kernel(x_ptr, y_ptr, n, factor, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N803  # Triton's own language
    """Multiply n floats by a factor."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    tl.store(y_ptr + offsets, tl.load(x_ptr + offsets, mask=mask) * factor, mask=mask)


def main() -> None:
    """Fill the cache."""
    signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32", "factor": "fp32"}
    for target in TARGETS:
        source = ASTSource(
            fn=scale_kernel,
            signature={**signature, "BLOCK": "constexpr"},
            constexprs={"BLOCK": 128},
        )
        triton.compile(source, target=target, options={"num_warps": 2})
    STUBS.mkdir(parents=True, exist_ok=True)
    stub = ("gcc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1")
    subprocess.run([*stub, "-o", STUBS / "libcuda.so.1"], check=True)
    compile_so_from_file(
        os.path.join(driver.dirname, "driver.c"),  # noqa: PTH118  # Triton's own value
        "cuda_utils",
        driver.library_dirs(),
        driver.include_dirs,
        driver.libraries,
    )


if __name__ == "__main__":
    main()
