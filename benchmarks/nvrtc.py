"""NVIDIA's compiler of kernels at run time, from its package; needs no GPU."""

import ctypes
import re
from importlib import util
from pathlib import Path

#: What CuPy adds to the options of every source that it compiles.
OF_CUPY = ("-ftz=true", "--device-as-default-execution-space")

_RESOURCES = re.compile(
    r"Compiling entry function '(\w+)' .*\n.*\n"
    r".*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s*\n"
    r".*?Used (\d+) registers(?:.*?(\d+) bytes smem)?"
)


def is_there():
    """Return whether the package that holds the compiler is installed."""
    try:
        return util.find_spec("nvidia.cuda_nvrtc") is not None
    except ModuleNotFoundError:
        return False


def _library():
    package = Path(util.find_spec("nvidia.cuda_nvrtc").submodule_search_locations[0])
    return ctypes.CDLL(str(next(package.glob("lib/libnvrtc.so*"))))


def compile_kernels(source, options):
    """Compile a source.

    Args:
        source (str): CUDA C++.
        options (sequence of str): of the compiler, with ``--gpu-architecture=sm_..``.

    Returns:
        tuple: the code for the GPU as bytes, empty if the source is wrong, and the compiler's log.
    """
    library, program = _library(), ctypes.c_void_p()

    def text(kind):
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


def resources(log):
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
