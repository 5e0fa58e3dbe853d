"""A Hub on localhost that serves folders as kernel repositories, and misbehaves on request.

The real huggingface_hub and kernels clients talk to it unchanged: for demonstrations without a
network and for tests. It does no Xet and no uploads, checks no tokens (it notes them), and is not
meant to be reached from another machine.
"""

from kgate_mirror_server.hubsim.faults import Corrupt, Endless, Fault, Resized, Short, Slow, Status
from kgate_mirror_server.hubsim.simulator import HubSimulator, serve_folder
from kgate_mirror_server.hubsim.wire import Recorded

__all__ = [
    "Corrupt",
    "Endless",
    "Fault",
    "HubSimulator",
    "Recorded",
    "Resized",
    "Short",
    "Slow",
    "Status",
    "serve_folder",
]
