"""Real kernels to try the mirror on: one compiled from sources beside this file, one from PyPI.

They are built on demand into a cache folder; nothing binary is kept in the project. This is not a
kernel build system: kernel authors use upstream's kernel-builder.
"""

from kgate_mirror_server.examples.bitsandbytes import fetch_bitsandbytes
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.examples.cache import default_cache

__all__ = ["build_gelu_and_mul", "default_cache", "fetch_bitsandbytes"]
