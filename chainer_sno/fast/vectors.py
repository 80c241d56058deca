"""Kernels written as LLVM vector instructions, for loops that a compiler does not vectorise well.

A kernel is a Python function that emits its instructions through :class:`Vectors`.  The decorator
:func:`kernel` makes an intrinsic of it, which functions compiled by numba call like any other.  One
source serves float32 and float64 and every processor: the number of lanes and of registers follows
from the dtype and from the processor that numba compiles for, and LLVM turns the vector
instructions into whatever that processor has.

Arrays are passed whole, with offsets in numbers (not bytes), because numba would build a structure
for every view.
"""

import contextlib
import functools
import hashlib
import inspect
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import caching, cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

_INDEX = ir.IntType(64)
_INT32 = ir.IntType(32)
_BYTE = ir.IntType(8)
#: Processors with AVX2 at most, whatever features the machine adds to their names.
_AVX2_NAMES = {"haswell", "broadwell", "skylake", "znver1", "znver2", "znver3"}


def registers_of(triple: str, name: str, features: str) -> tuple[int, int]:
    """Return the size and the number of a processor's vector registers.

    Args:
        triple (str): LLVM's name of the platform.
        name (str): LLVM's name of the processor.
        features (str): LLVM's list of its features, such as ``"+avx2,-avx512f"``.

    Returns:
        tuple of int: the bytes of a register, and how many there are.
    """
    supported = set(features.split(","))
    if not triple.startswith(("x86_64", "i686", "amd64")):
        return 16, 32
    if "+avx512f" in supported and name not in _AVX2_NAMES:
        return 64, 32
    if "+avx2" in supported or name in _AVX2_NAMES:
        return 32, 16
    return 16, 16


class Vectors:
    """The instructions of a kernel where it is called; arrays are pointers to their first number.

    Attributes:
        lanes (int): numbers in a vector.
        registers (int): vectors that the processor holds.
    """

    def __init__(self, context: Any, builder: Any, kinds: Any, args: Any) -> None:
        self.builder = builder
        arrays = [kind for kind in kinds if isinstance(kind, types.Array)]
        dtype = next(kind.dtype for kind in arrays if isinstance(kind.dtype, types.Float))
        width, self.registers = registers_of(*context.codegen().magic_tuple())
        self.scalar = context.get_data_type(dtype)
        self.lanes = width * 8 // dtype.bitwidth
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self._suffix = f"v{self.lanes}f{dtype.bitwidth}"
        self.zero = self.constant(0.0)
        # An array is its first element's address, with the type of the elements.
        self.arguments = [
            (value, context.get_data_type(kind.dtype)) if isinstance(kind, types.Array) else value
            for kind, value in zip(kinds, args)
        ]

    # Integers

    def index(self, value: Any) -> Any:
        """Return an index, given one or a Python integer."""
        return _INDEX(value) if isinstance(value, int) else value

    def add(self, *values: Any) -> Any:
        """Return a sum of indices."""
        return functools.reduce(self.builder.add, map(self.index, values))

    def mul(self, a: Any, b: Any) -> Any:
        """Return a product of two indices."""
        return self.builder.mul(self.index(a), self.index(b))

    def less(self, a: Any, b: Any) -> Any:
        """Return whether one index is below another."""
        return self.builder.icmp_signed("<", self.index(a), self.index(b))

    def is_set(self, flag: Any) -> Any:
        """Return whether an index is not zero."""
        return self.builder.icmp_signed("!=", self.index(flag), _INDEX(0))

    def choose(self, condition: Any, a: Any, b: Any) -> Any:
        """Return a where the condition holds, else b."""
        return self.builder.select(condition, a, b)

    # Control

    def loop(self, count: Any, carried: Any, body: Callable[..., Any]) -> Any:
        """Emit ``for i in range(count): carried = body(i, carried)``; return carried."""
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(n) for n in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INDEX)
        i.add_incoming(_INDEX(0), before)
        phis = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        builder.cbranch(self.less(i, count), inside, after)
        builder.position_at_end(inside)
        results = body(i, list(phis))
        i.add_incoming(self.add(i, 1), builder.block)
        for phi, value in zip(phis, results or []):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def when(self, condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
        """Emit one of two branches."""
        with self.builder.if_else(condition) as (yes, no):
            with yes:
                then()
            with no:
                otherwise()

    # Memory

    def at(self, array: Any, *offsets: Any) -> Any:
        """Return the address of an element of an array."""
        pointer, element = array
        address = self.builder.gep(pointer, [self.add(*offsets)], source_etype=element)
        return address, element

    def load(self, array: Any, *offsets: Any) -> Any:
        """Return the vector that begins at an element."""
        pointer, _ = self.at(array, *offsets) if offsets else array
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(pointer, align=self.scalar_bytes, typ=self.vector)

    def store(self, value: Any, array: Any, *offsets: Any) -> None:
        """Write a vector to where an element is."""
        pointer, _ = self.at(array, *offsets) if offsets else array
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, pointer, align=self.scalar_bytes)

    @property
    def scalar_bytes(self) -> int:
        """Bytes of a number."""
        return 4 if isinstance(self.scalar, ir.FloatType) else 8

    def scalar_at(self, array: Any, *offsets: Any) -> Any:
        """Return one element."""
        pointer, element = self.at(array, *offsets)
        return self.builder.load(pointer, typ=element)

    def store_mask(self, mask: Any, array: Any, *offsets: Any) -> None:
        """Write a vector of booleans as bits; the offsets are in bits and multiples of the lanes.

        Where a vector has fewer than eight lanes, its bits are put among those that are there.
        """
        builder, lanes = self.builder, self.lanes
        word = builder.bitcast(mask, ir.IntType(lanes))
        bit = self.add(*offsets)
        pointer, _ = self.at(array, builder.lshr(bit, _INDEX(3)))
        if lanes >= 8:
            place = builder.bitcast(pointer, word.type.as_pointer())
            builder.store(word, place, align=1)
            return
        shift = builder.trunc(builder.and_(bit, _INDEX(7)), _BYTE)
        others = builder.not_(builder.shl(_BYTE((1 << lanes) - 1), shift))
        cleared = builder.and_(builder.load(pointer, typ=_BYTE), others)
        builder.store(builder.or_(cleared, builder.shl(builder.zext(word, _BYTE), shift)), pointer)

    def load_mask(self, array: Any, *offsets: Any) -> Any:
        """Return what :meth:`store_mask` wrote."""
        builder, lanes = self.builder, self.lanes
        bit = self.add(*offsets)
        pointer, _ = self.at(array, builder.lshr(bit, _INDEX(3)))
        integer = ir.IntType(lanes)
        if lanes >= 8:
            place = builder.bitcast(pointer, integer.as_pointer())
            word = builder.load(place, align=1, typ=integer)
        else:
            shift = builder.trunc(builder.and_(bit, _INDEX(7)), _BYTE)
            word = builder.trunc(builder.lshr(builder.load(pointer, typ=_BYTE), shift), integer)
        return builder.bitcast(word, ir.VectorType(ir.IntType(1), lanes))

    def prefetch(self, array: Any, *offsets: Any, cache: int = 1) -> None:
        """Ask for the memory of an element to be brought to the first cache, or to the second."""
        pointer, _ = self.at(array, *offsets)
        address = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [address, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        reading, locality, data = _INT32(0), _INT32(4 - cache), _INT32(1)
        pointer = self.builder.bitcast(pointer, address)
        self.builder.call(function, [pointer, reading, locality, data])

    # Arithmetic

    def constant(self, value: float) -> Any:
        """Return a vector of one number."""
        return ir.Constant(self.vector, [float(value)] * self.lanes)

    def splat(self, value: Any) -> Any:
        """Return a vector of one scalar, a number or a boolean."""
        kind = ir.VectorType(value.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INT32(0))
        return self._shuffle(one, one, [0] * self.lanes)

    def _shuffle(self, a: Any, b: Any, places: Any) -> Any:
        mask = ir.Constant(ir.VectorType(_INT32, len(places)), list(places))
        return self.builder.shuffle_vector(a, b, mask)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, in one instruction where there is one."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.{self._suffix}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [a, b, c])

    def plus(self, a: Any, b: Any) -> Any:
        """Return a + b."""
        return self.builder.fadd(a, b)

    def minus(self, a: Any, b: Any) -> Any:
        """Return a - b."""
        return self.builder.fsub(a, b)

    def times(self, a: Any, b: Any) -> Any:
        """Return a b."""
        return self.builder.fmul(a, b)

    def below(self, first: Any, count: Any) -> Any:
        """Return which of the lanes, numbered from ``first`` on, come before ``count``."""
        kind = ir.VectorType(_INDEX, self.lanes)
        numbers = ir.Constant(kind, list(range(self.lanes)))
        numbers = self.builder.add(numbers, self.splat(self.index(first)))
        return self.builder.icmp_signed("<", numbers, self.splat(self.index(count)))

    def positive(self, value: Any) -> Any:
        """Return where a vector is above zero; not where it is no number."""
        return self.builder.fcmp_ordered(">", value, self.zero)

    def relu(self, value: Any) -> Any:
        """Return the larger of 0 and each number; what is no number stays."""
        return self.choose(self.builder.fcmp_ordered(">", self.zero, value), self.zero, value)

    def sum_each(self, vectors: Any) -> Any:
        """Return the sums of the lanes of some vectors, as many as there are lanes, as a vector.

        A tree: each step halves the number of vectors and adds neighbouring halves.
        """
        n, step = self.lanes, self.lanes // 2
        while len(vectors) > 1:
            half = len(vectors) // 2
            low = [i // step % 2 == 0 for i in range(n)]
            first = [i if low[i] else i + n - step for i in range(n)]
            second = [i + step if low[i] else i + n for i in range(n)]
            vectors = [
                self.plus(self._shuffle(a, b, first), self._shuffle(a, b, second))
                for a, b in zip(vectors[:half], vectors[half:])
            ]
            step //= 2
        return vectors[0]


def _function(context: Any, module: Any, emit: Any, kinds: Any, passed: Any) -> Any:
    """Return the LLVM function of a kernel for some types, emitted where the module has none yet.

    It is a function of its own, and not inlined, so that it is compiled once and keeps its
    registers to itself.
    """
    dtypes = [str(kind.dtype) for kind in kinds if isinstance(kind, types.Array)]
    name = f"chainer_sno.{emit.__name__}.{'.'.join(dtypes)}"
    if name in module.globals:
        return module.globals[name]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    vectors = Vectors(context, builder, kinds, function.args)
    emit(vectors, *vectors.arguments)
    builder.ret_void()
    return function


def kernel(emit: Callable[..., Any]) -> Any:
    """Make an intrinsic of a function that emits the instructions of a kernel.

    Args:
        emit (callable): takes :class:`Vectors` and the arguments of the kernel.  Arrays are one-
            dimensional and contiguous; the first one of floating-point numbers says the dtype.
            Other numbers are of that dtype or indices.

    Returns:
        callable: for functions that numba compiles; it returns nothing.
    """
    names = list(inspect.signature(emit).parameters)[1:]

    def typed(args):
        dtype = next(a.dtype for a in args if isinstance(getattr(a, "dtype", None), types.Float))
        kinds = [
            a if isinstance(a, types.Array) else dtype if isinstance(a, types.Float) else types.intp
            for a in args
        ]

        def generate(context, builder, signature, values):
            passed = [
                context.make_array(kind)(context, builder, value).data
                if isinstance(kind, types.Array)
                else value
                for kind, value in zip(signature.args, values)
            ]
            function = _function(context, builder.module, emit, signature.args, passed)
            builder.call(function, passed)
            return context.get_dummy_value()

        return types.void(*kinds), generate

    # numba reads the names of the arguments, so a function that takes any will not do.
    scope = {"typed": typed}
    listed = ", ".join(names)
    exec(f"def {emit.__name__}(typingctx, {listed}):\n    return typed([{listed}])", scope)
    typing: Any = scope[emit.__name__]
    typing.__doc__, typing.__module__ = emit.__doc__, emit.__module__
    return intrinsic(typing)


def _array_at(typingctx, address, size, like):
    """Return the flat array of ``size`` numbers, of the type of ``like``, at an address.

    It does not own its memory.  This is how a compiled function takes many arrays: each array that
    it takes as an argument costs time.
    """
    kind = types.Array(like, 1, "C")

    def generate(context, builder, signature, values):
        array = context.make_array(kind)(context, builder)
        itemsize = _INDEX(context.get_abi_sizeof(context.get_data_type(like)))
        arrayobj.populate_array(
            array,
            data=builder.inttoptr(values[0], array.data.type),
            shape=[values[1]],
            strides=[itemsize],
            itemsize=itemsize,
            meminfo=None,
        )
        return array._getvalue()

    return kind(types.intp, types.intp, like), generate


array_at: Any = intrinsic(_array_at)


@functools.lru_cache(maxsize=1)
def _stamp() -> str:
    """Return what changes with any source of this package.

    numba compiles a function anew when its own file has changed; the kernels that it calls are in
    others.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Cache(caching.FunctionCache):
    """numba's cache, for compiled functions that depend on all files of this package."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = caching.IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), _stamp()),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load what was compiled; nothing where it cannot be read or is damaged."""
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None
        except Exception:  # a file that a full disk cut short is a pickle that can raise anything
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save what was compiled; a full disk, or one that is not to be written to, is no error."""
        try:
            super().save_overload(sig, data)
        except (
            OSError,
            EOFError,
            pickle.UnpicklingError,
        ):  # or a damaged one that cannot be mended
            _warn_without_cache()


@functools.lru_cache(maxsize=1)
def _warn_without_cache() -> None:
    warnings.warn(
        "numba finds no directory where it may keep compiled code, so every process compiles anew, "
        "which takes seconds: set NUMBA_CACHE_DIR to a directory that can be written to",
        RuntimeWarning,
        stacklevel=4,
    )


def compiled(function: Any = None, **options: Any) -> Any:
    """Compile a function with numba and keep the result for later processes where possible.

    It releases Python's lock while it runs.

    Args:
        function (callable): in the subset of Python that numba compiles.
        **options: of ``numba.njit``.
    """
    if function is None:
        return functools.partial(compiled, **options)
    dispatcher = numba.njit(nogil=True, **options)(function)
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # no directory to write to
        _warn_without_cache()
    return dispatcher
