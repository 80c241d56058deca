"""The CUDA kernels: their source, their signatures, and launching them with CuPy."""

import contextlib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from chainer_sno._import_chainer import chainer

#: The most structures of an iteration, and the most classes, that the kernels have room for.
MAX_SAMPLES, MAX_CLASSES = 256, 1024
#: Threads of a block where every thread does one thing.
THREADS = 256

_KERNEL = re.compile(
    r'extern "C" __global__ void(?: __launch_bounds__\(\w+\))? (\w+)\(([^{]*)\)\s*\{'
)
#: The source files that belong together; a file uses what stands before it.
_FILES = {
    "method": ("method.cu",),
    "optimizer": ("optimizer.cu",),
    "mlp": ("mlp.cu",),
    "dense": ("dense.cuh", "dense_forward.cu", "dense_normalisation.cu", "dense_backward.cu"),
}
_TYPES = {
    "int": numpy.int32,
    "word": numpy.uint32,
    "long long": numpy.int64,
    "float": numpy.float32,
    "double": numpy.float64,
    "unsigned char": numpy.uint8,
}


def blocks_for(size: int, each: int = THREADS) -> int:
    """Return how many blocks do so many things, if one does ``each`` of them."""
    return -(-size // each)


def source(*names: str) -> str:
    """Return the text of source files of this directory, ``common.cuh`` in front.

    Args:
        names (str): ``method``, ``optimizer``, ``mlp`` and ``dense``, in this order; the fully
            connected network's kernels take the step of the optimizer.

    Returns:
        str: C++ for CUDA that includes nothing.
    """
    files = ["common.cuh", *(file for name in names for file in _FILES[name])]
    return "\n".join((Path(__file__).parent / file).read_text(encoding="utf-8") for file in files)


def signatures(text: str) -> dict[str, list[tuple[str, bool]]]:
    """Return what each kernel of a source takes.

    Args:
        text (str): of :func:`source`.

    Returns:
        dict: from a kernel's name to a list of pairs, the C type of a parameter and whether it is
        a pointer.
    """
    kernels: dict[str, list[tuple[str, bool]]] = {}
    for name, parameters in _KERNEL.findall(text):
        kernels[name] = []
        for parameter in parameters.split(","):
            kind = " ".join(parameter.split()).removeprefix("const ").rpartition(" ")
            kernels[name].append((kind[0], kind[2].startswith("*")))
    return kernels


class Kernels:
    """The kernels of some source files, compiled for one dtype and launched on CuPy's device.

    Args:
        names (sequence of str): as :func:`source` takes them.
        dtype (numpy.dtype): of the network, float32 or float64; ``real`` in the source.
        definitions (dict): more names and their values for the source.

    Raises:
        TypeError: the dtype is another.
    """

    def __init__(
        self, names: Sequence[str], dtype: Any, definitions: Mapping[str, int] | None = None
    ) -> None:
        self.dtype = numpy.dtype(dtype)
        if self.dtype not in (numpy.float32, numpy.float64):
            raise TypeError(f"the GPU's kernels support float32 and float64, not {self.dtype}")
        self.source = source(*names)
        self.signatures = signatures(self.source)
        values = {
            "REAL": "float" if self.dtype == numpy.float32 else "double",
            "MAX_SAMPLES": MAX_SAMPLES,
            "MAX_CLASSES": MAX_CLASSES,
            **(definitions or {}),
        }
        self.options = ("-std=c++17", *(f"-D{name}={value}" for name, value in values.items()))

    @property
    def xp(self) -> Any:
        """The array module whose arrays the kernels take."""
        return chainer.backends.cuda.cupy

    @functools.cached_property
    def _module(self) -> Any:
        return self.xp.RawModule(code=self.source, options=self.options)

    @functools.cache  # noqa: B019  (lives as long as the training)
    def _function(self, name: str) -> Any:
        return self._module.get_function(name)

    def cast(self, name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return the arguments of a kernel as it takes them, numbers in the type of the source.

        Args:
            name (str): the kernel.
            arguments (sequence): an array, or None for a null pointer, where it takes a pointer,
                otherwise a number.

        Returns:
            tuple: arrays and numpy scalars.

        Raises:
            TypeError: the number of arguments, a dtype or a layout is not the kernel's.
        """
        expected = self.signatures[name]
        if len(arguments) != len(expected):
            raise TypeError(f"{name} takes {len(expected)} arguments, not {len(arguments)}")
        converted = []
        for place, ((kind, pointer), argument) in enumerate(zip(expected, arguments)):
            dtype: Any = self.dtype.type if kind == "real" else _TYPES.get(kind)
            if not pointer:
                converted.append(dtype(argument))
            elif argument is None:
                # CuPy makes no null pointer of None.
                converted.append(numpy.uint64(0))
            elif (dtype and argument.dtype != dtype) or not argument.flags.c_contiguous:
                raise TypeError(
                    f"argument {place} of {name} must be a contiguous array of {kind}, not "
                    f"{argument.dtype} of shape {argument.shape}"
                )
            else:
                converted.append(argument)
        return tuple(converted)

    def launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]
    ) -> None:
        """Launch a kernel on the current stream.

        Args:
            name (str): the kernel.
            grid (tuple of int): blocks, up to three numbers.
            block (tuple of int): threads of a block.
            arguments (tuple): of :meth:`cast`.
        """
        self._function(name)(grid, block, arguments)

    def each(self, name: str, size: int, *arguments: Any) -> None:
        """Launch a kernel with a thread for each of so many things; see :meth:`cast`."""
        self.launch(name, (blocks_for(size),), (THREADS,), self.cast(name, arguments))

    def capture(self, launches: Sequence["Launch"]) -> Callable[[], None]:
        """Return a CUDA graph of launches, without running them.

        Args:
            launches (sequence of Launch): of a :class:`Program`.

        Returns:
            callable: runs all of it, on the current stream, with one launch.

        Raises:
            Exception: what a launch raises; nothing is captured then.
        """
        stream, side = (self.xp.cuda.Stream(non_blocking=True) for _ in range(2))
        with stream:
            stream.begin_capture()
            try:
                for name, grid, block, arguments, aside in launches:
                    if not aside:
                        self.launch(name, grid, block, arguments)
                        continue
                    side.wait_event(stream.record())
                    with side:
                        self.launch(name, grid, block, arguments)
                if any(launch.aside for launch in launches):
                    stream.wait_event(side.record())
            except BaseException:
                # Where the side stream is not joined, the end of the capture fails as well, of
                # which nobody needs to hear: the first error says what is wrong.
                with contextlib.suppress(Exception):
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        return graph.launch


class Launch(NamedTuple):
    """A launch of a kernel; the arguments are those of :meth:`Kernels.launch`.

    Attributes:
        aside (bool): nothing that follows in the same iteration, but what is aside as well, waits
            for it.
    """

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]
    aside: bool


class Program:
    """A list of kernel launches with fixed arguments: all that an iteration does.

    Nothing in it can look at a result, so nothing can wait for one.  Run once, it is launched
    kernel by kernel; after that, as one CUDA graph.  In the graph, what is aside runs beside what
    follows: it comes after all that is before it, and before the next iteration.

    Args:
        kernels (Kernels): what launches them.

    Attributes:
        launches (list of Launch): in an order in which they may run one by one.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.launches: list[Launch] = []
        self._captured: Callable[[], None] | None = None

    def add(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        aside: bool = False,
    ) -> None:
        """Append a launch; see :class:`Launch` and :meth:`Kernels.cast`."""
        self.launches.append(Launch(name, grid, block, self.kernels.cast(name, arguments), aside))

    def each(
        self,
        name: str,
        size: int,
        *arguments: Any,
        more: tuple[int, ...] = (),
        aside: bool = False,
    ) -> None:
        """Append a launch of a thread for each of so many things.

        Args:
            name (str): the kernel.
            size (int): how many.
            arguments: of the kernel.
            more (tuple of int): further dimensions of the grid.
            aside (bool): see :class:`Launch`.
        """
        self.add(name, (blocks_for(size), *more), (THREADS,), *arguments, aside=aside)

    def __call__(self) -> None:
        """Launch everything: kernel by kernel the first time, later as one graph.

        The first time loads the kernels, which must not happen while a graph is captured.
        """
        if self._captured is None:
            for launch in self.launches:
                self.kernels.launch(*launch[:4])
            self._captured = self.kernels.capture(self.launches)
        else:
            self._captured()
