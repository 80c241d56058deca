"""NVIDIA's compiler of kernels at run time; needs no GPU."""

import contextlib
import ctypes
import ctypes.util
import functools
import re
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

#: What CuPy adds to the options of every source that it compiles.
OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")

_RESOURCES = re.compile(
    r"Compiling entry function '(\w+)' .*\n.*\n"
    r".*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s*\n"
    r".*?Used (\d+) registers(?:.*?(\d+) bytes smem)?"
)


@functools.lru_cache(maxsize=1)
def path() -> str | None:
    """Return where the compiler is: in its package, where CuPy finds it, or in the system.

    Returns:
        str: the library; None where it is nowhere.
    """
    with contextlib.suppress(ModuleNotFoundError):
        found = util.find_spec("nvidia.cuda_nvrtc")
        for place in (found and found.submodule_search_locations) or ():
            for library in sorted(Path(place).glob("lib/libnvrtc.so*")):
                return str(library)
    with contextlib.suppress(Exception):  # of CuPy 14; it has an error of its own for not found
        from cuda import pathfinder

        return str(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)
    return ctypes.util.find_library("nvrtc")


def is_there() -> bool:
    """Return whether the compiler is installed."""
    return path() is not None


def _library() -> Any:
    return ctypes.CDLL(path())


def compile_kernels(source: str, options: Sequence[str]) -> tuple[bytes, str]:
    """Compile a source.

    Args:
        source (str): CUDA C++.
        options (sequence of str): of the compiler, with ``--gpu-architecture=sm_..``.

    Returns:
        tuple: the code for the GPU as bytes, empty if the source is wrong, and the compiler's log.
    """
    library, program = _library(), ctypes.c_void_p()

    def text(kind: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{kind}")(program, buffer)
        return buffer.raw

    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), array)
    log = text("ProgramLog").rstrip(b"\0").decode()
    code = b"" if failed else text("CUBIN")
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log


def resources(log: str) -> dict[str, dict[str, int]]:
    """Return what the kernels of a source take, from a log with ``--ptxas-options=-v``.

    Args:
        log (str): of :func:`compile_kernels`.

    Returns:
        dict: by kernel, ``registers`` of a thread, ``shared``, bytes of a block, and ``local``,
        bytes of a thread that did not find room in registers.
    """
    return {
        name: {
            "registers": int(registers),
            "shared": int(shared or 0),
            "local": int(stack) + int(stores) + int(loads),
        }
        for name, stack, stores, loads, registers, shared in _RESOURCES.findall(log)
    }
