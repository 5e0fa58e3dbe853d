"""Which Python calls matter, by their full dotted names.

A table with its lookup: `python` resolves names and decides about arguments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgate_scanner import rules_python as rules

if TYPE_CHECKING:
    from kgate_scanner.rules import Rule

_EXACT: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        ("exec", "eval", "compile", "builtins.exec", "builtins.eval", "builtins.compile",
         "code.InteractiveInterpreter", "types.FunctionType", "types.CodeType"),
        rules.RUNS_TEXT,
    ),
    **dict.fromkeys(
        ("os.system", "os.popen", "os.fork", "os.forkpty", "os.startfile", "pty.spawn", "pty.fork",
         "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
         "multiprocessing.Process", "multiprocessing.Pool", "torch.multiprocessing.spawn",
         "concurrent.futures.ProcessPoolExecutor"),
        rules.STARTS_PROCESSES,
    ),
    **dict.fromkeys(
        ("urllib.request.urlopen", "urllib.request.urlretrieve", "torch.hub.load",
         "torch.hub.download_url_to_file", "torch.hub.load_state_dict_from_url",
         "asyncio.open_connection", "asyncio.start_server", "socketserver.TCPServer",
         "huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download",
         "kernels.get_kernel", "webbrowser.open"),
        rules.USES_NETWORK,
    ),
    **dict.fromkeys(
        ("torch.ops.load_library", "torch.classes.load_library", "cffi.FFI",
         "importlib.machinery.ExtensionFileLoader", "numpy.ctypeslib.load_library"),
        rules.NATIVE,
    ),
    **dict.fromkeys(
        ("pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads",
         "marshal.load", "marshal.loads", "shelve.open", "dill.load", "dill.loads",
         "cloudpickle.load", "cloudpickle.loads", "joblib.load", "torch.load", "numpy.load",
         "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
         "jsonpickle.decode"),
        rules.UNPICKLES,
    ),
    **dict.fromkeys(
        ("torch.utils.cpp_extension.load", "torch.utils.cpp_extension.load_inline",
         "torch.utils.cpp_extension.CUDAExtension", "torch.utils.cpp_extension.CppExtension",
         "torch.cuda._compile_kernel", "cupy.RawKernel", "cupy.RawModule", "triton.compile",
         "pycuda.compiler.SourceModule", "distutils.core.setup", "setuptools.setup"),
        rules.BUILDS,
    ),
    **dict.fromkeys(
        ("os.remove", "os.unlink", "os.rename", "os.replace", "os.rmdir", "os.removedirs",
         "os.mkdir", "os.makedirs", "os.chmod", "os.chown", "os.symlink", "os.link",
         "os.truncate", "os.write", "os.mkfifo", "os.mknod"),
        rules.WRITES,
    ),
    **dict.fromkeys(
        ("importlib.util.spec_from_file_location", "importlib.machinery.SourceFileLoader",
         "importlib.machinery.SourcelessFileLoader", "imp.load_source", "imp.load_compiled",
         "zipimport.zipimporter", "pkgutil.get_importer", "site.addsitedir"),
        rules.COMPUTED_IMPORT,
    ),
    **dict.fromkeys(
        ("sys.settrace", "sys.setprofile", "sys.addaudithook", "threading.settrace",
         "atexit.register", "signal.signal", "gc.get_objects", "sys._getframe"),
        rules.TAMPERS,
    ),
    **dict.fromkeys(("os.putenv", "os.unsetenv"), rules.ENVIRONMENT),
}  # fmt: skip

_PREFIXES: Final[tuple[tuple[str, Rule], ...]] = (
    ("subprocess.", rules.STARTS_PROCESSES),
    ("os.exec", rules.STARTS_PROCESSES),
    ("os.spawn", rules.STARTS_PROCESSES),
    ("os.posix_spawn", rules.STARTS_PROCESSES),
    ("socket.", rules.USES_NETWORK),
    ("http.client.", rules.USES_NETWORK),
    ("http.server.", rules.USES_NETWORK),
    ("requests.", rules.USES_NETWORK),
    ("httpx.", rules.USES_NETWORK),
    ("aiohttp.", rules.USES_NETWORK),
    ("urllib3.", rules.USES_NETWORK),
    ("urllib.request.", rules.USES_NETWORK),
    ("ftplib.", rules.USES_NETWORK),
    ("smtplib.", rules.USES_NETWORK),
    ("telnetlib.", rules.USES_NETWORK),
    ("paramiko.", rules.USES_NETWORK),
    ("websocket.", rules.USES_NETWORK),
    ("websockets.", rules.USES_NETWORK),
    ("xmlrpc.", rules.USES_NETWORK),
    ("boto3.", rules.USES_NETWORK),
    ("runpy.", rules.RUNS_TEXT),
    ("shutil.", rules.WRITES),
    ("tempfile.", rules.WRITES),
    ("cuda.bindings.nvrtc.", rules.BUILDS),
    ("cuda.nvrtc.", rules.BUILDS),
)
_HARMLESS: Final = frozenset(
    {
        "socket.gethostname", "subprocess.CalledProcessError", "subprocess.TimeoutExpired",
        "shutil.which", "shutil.get_terminal_size", "shutil.disk_usage", "tempfile.gettempdir",
        "ctypes.sizeof", "requests.exceptions.RequestException",
    }
)  # fmt: skip
_CTYPES: Final = re.compile(
    r"ctypes\.(?:CDLL|PyDLL|WinDLL|cdll|pydll|windll|util\.find_library|CFUNCTYPE|PYFUNCTYPE|"
    r"string_at|memmove|memset|pythonapi)(?:\.|$)"
)
_METHODS: Final[dict[str, Rule]] = {
    "write_text": rules.WRITES,
    "write_bytes": rules.WRITES,
}
"""Methods whose object is not known but whose name says enough."""

DECODERS: Final = re.compile(
    r"(?:base64\.\w*decode\w*|binascii\.(?:unhexlify|a2b_\w+)|zlib\.decompress|gzip\.decompress|"
    r"bz2\.decompress|lzma\.decompress|codecs\.decode|bytes\.fromhex|bytearray\.fromhex|"
    r"marshal\.loads?)"
)
EFFECTS: Final = frozenset(
    {
        rules.RUNS_TEXT, rules.STARTS_PROCESSES, rules.USES_NETWORK, rules.UNPICKLES,
        rules.BUILDS, rules.WRITES, rules.HIDDEN_CODE,
    }
)  # fmt: skip
"""Rules whose calls are worse when importing is enough."""


def rule_for(name: str) -> Rule | None:
    """Return the rule about a call of this full dotted name, None if it is harmless."""
    if name in _HARMLESS:
        return None
    if (rule := _EXACT.get(name)) is not None:
        return rule
    if _CTYPES.match(name):
        return rules.NATIVE
    for prefix, rule in _PREFIXES:
        if name.startswith(prefix):
            return rule
    return _METHODS.get(name.rpartition(".")[2]) if "." in name else None
