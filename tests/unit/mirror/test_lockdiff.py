"""What an upgrade of the lock says about device code."""

from __future__ import annotations

from kgate_mirror_server.ingest.lockdiff import VariantChange, compared
from tests.scankit import scan_bytes
from tests.unit.scanner.device.builders import Kernel, cubin, entry, fatbin, host


def test_new_architectures_kernels_and_resources_are_named() -> None:
    old = scan_bytes({"lib.so": host(fatbin(entry(cubin(90, (Kernel("a", registers=32),)))))})
    images = (
        entry(cubin(90, (Kernel("a", registers=64),))),
        entry(cubin(80, (Kernel("c"),)), arch=80),
    )
    new = scan_bytes({"lib.so": host(fatbin(*images))})
    facts = {fact.name: fact for fact in VariantChange("v", (1, 2), compared(old, new)).facts}
    assert facts["architectures"].new == ("sm_80",)
    assert facts["kernels"].new == ("c",)
    assert facts["resources"].new == ("sm_90 a",)
    assert set(facts["device code"].new) == {
        "sm_80 (1 images new, 0 gone)",
        "sm_90 (1 images new, 1 gone)",
    }
    assert compared(old, old) == ()
