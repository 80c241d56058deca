"""Runs the CUDA kernels on the host: compiled by a C++ compiler, launched on NumPy arrays."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy

from chainer_sno.cuda.kernels import Kernels, signatures

HERE = Path(__file__).parent
#: The host's C++ compiler, None where there is none.
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


def _launcher(name, parameters):
    """Return C++ that launches one kernel with arguments given by their addresses."""
    kinds = [kind + "*" * pointer for kind, pointer in parameters]
    values = ", ".join(f"*({kind} *)arguments[{i}]" for i, kind in enumerate(kinds))
    return (
        f"static void body_{name}(void **arguments) {{ {name}({values}); }}\n"
        f'extern "C" void launch_{name}(const unsigned *grid, const unsigned *block, '
        f"void **arguments, int order) "
        f"{{ emulator::launch(body_{name}, grid, block, arguments, order); }}\n"
    )


# Little is optimised: that halves the time to compile, and what runs is short.  No contraction: as
# the GPU's where the code asks for it, and as NumPy's.  A kernel is not to be taken for the C
# library's function of the same name, and the shared memory of a template is not to be shared with
# another dtype's.
_FLAGS = ("-std=c++17", "-Og", "-w", "-fPIC", "-shared", "-ffp-contract=off")
_FLAGS += ("-Wl,-Bsymbolic", "-fno-gnu-unique")


@functools.cache
def _library(source, options):
    text = f'#include "emulator.hpp"\n{source}\n'
    text += "".join(_launcher(*found) for found in signatures(source).items())
    directory = Path(tempfile.gettempdir()) / f"chainer_sno-emulator-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    header = (HERE / "emulator.hpp").read_bytes()
    name = hashlib.sha256(
        text.encode() + header + repr((options, COMPILER, _FLAGS)).encode()
    ).hexdigest()
    path = directory / f"{name[:24]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            file, made = Path(scratch) / "kernels.cpp", Path(scratch) / "kernels.so"
            file.write_text(text)
            command = [COMPILER, *_FLAGS, f"-I{HERE}", *options, str(file), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:4000]
            made.rename(path)
    return ctypes.CDLL(str(path))


class Emulator(Kernels):
    """The kernels, launched on NumPy arrays; what is captured is run."""

    xp = numpy
    #: 1 runs the threads of a block from the last to the first.
    order = 0

    def launch(self, name, grid, block, arguments):
        """Run a kernel to its end."""
        values = []
        for argument in arguments:
            if isinstance(argument, numpy.ndarray):
                values.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                values.append(ctypes.create_string_buffer(argument.tobytes()))
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = [(ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size))) for size in (grid, block)]
        library = _library(self.source, self.options[1:])
        getattr(library, f"launch_{name}")(*sizes, pointers, self.order)

    def capture(self, launches):
        """Return a function that runs them one by one."""

        def run():
            for launch in launches:
                self.launch(*launch[:4])

        return run


class Backwards(Emulator):
    """The same with the threads in the opposite order."""

    order = 1


class Late(Emulator):
    """The same with what is aside after all the rest, as late as it may run."""

    def capture(self, launches):
        """Return a function that runs them one by one, in the other order."""
        return super().capture(sorted(launches, key=lambda launch: launch.aside))
