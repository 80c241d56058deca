"""What the kernels of the dense blocks are made of."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy
import pytest

import chainer_sno
from chainer_sno.fast import blocks, vectors, winograd
from chainer_sno.fast.vectors import Vectors, kernel, registers_of

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ((X86, "znver4", "+avx2,+avx512f"), (64, 32)),
        ((X86, "znver3", "+avx2,-avx512f"), (32, 16)),
        # A name that a user gives stands before what the machine could do.
        ((X86, "haswell", "+avx2,+avx512f"), (32, 16)),
        ((X86, "haswell", ""), (32, 16)),
        ((X86, "generic", ""), (16, 16)),
        ((ARM, "neoverse-n1", "+neon"), (16, 32)),
        (("riscv64-unknown-linux-gnu", "generic", ""), (16, 32)),
    ],
)
def test_registers(processor, expected):
    assert registers_of(*processor) == expected


@kernel
def _sums(e, x, out):
    """Write the sums of as many runs of 16 numbers as a vector has lanes."""
    for first in range(0, 16, e.lanes):
        each = []
        for k in range(first, first + e.lanes):
            parts = [e.load(x, 16 * k + j) for j in range(0, 16, e.lanes)]
            total = parts[0]
            for part in parts[1:]:
                total = e.plus(total, part)
            each.append(total)
        e.store(e.sum_each(each), out, first)


@kernel
def _signs(e, x, bits, out, count):
    """Write where numbers are positive as bits, and 1 or 0 where they were; relu to out."""

    def vector(j, _):
        o = e.mul(j, e.lanes)
        value = e.load(x, o)
        e.store_mask(e.positive(value), bits, o)
        on = e.load_mask(bits, o)
        e.store(e.plus(e.relu(value), e.choose(on, e.constant(10), e.zero)), out, o)

    e.loop(e.builder.sdiv(count, e.index(e.lanes)), [], vector)


@numba.njit
def call_sums(x, out):
    _sums(x, out)


@numba.njit
def call_signs(x, bits, out):
    _signs(x, bits, out, len(x))


def test_sums_of_lanes(dtype, rng):
    x, out = rng.standard_normal(256).astype(dtype), numpy.zeros(16, dtype)
    call_sums(x, out)
    numpy.testing.assert_allclose(out, x.reshape(16, 16).sum(axis=1), rtol=1e-5, atol=1e-6)


def test_bits_and_what_is_no_number(dtype, rng):
    x = rng.standard_normal(64).astype(dtype)
    x[5], x[6], x[7], x[8] = 0, numpy.nan, numpy.inf, -numpy.inf
    bits, out = numpy.full(8, 0xAA, numpy.uint8), numpy.zeros(64, dtype)
    call_signs(x, bits, out)
    found = numpy.unpackbits(bits, bitorder="little")
    numpy.testing.assert_array_equal(found, x > 0)
    numpy.testing.assert_allclose(out, numpy.maximum(x, 0) + 10 * (x > 0), rtol=1e-6)


def test_a_wrong_number_of_arguments_is_an_error():
    @numba.njit
    def wrong(x):
        _sums(x)

    with pytest.raises(TypeError, match="out"):
        wrong(numpy.zeros(16))


def test_a_kernel_is_emitted_once(rng):
    calls = []

    @kernel
    def counted(e, x):
        calls.append(e)
        e.store(e.plus(e.load(x), e.constant(1)), x)

    @numba.njit
    def twice(x):
        counted(x)
        counted(x)

    x = numpy.zeros(16, "f")
    twice(x)
    assert len(calls) == 1
    assert isinstance(calls[0], Vectors)
    assert x[0] == 2


def test_the_cache_depends_on_every_file_of_the_package(monkeypatch):
    function = blocks.rounded.py_func
    stamps = []
    for text in ("one", "another"):
        monkeypatch.setattr(vectors, "_stamp", lambda text=text: text)
        stamps.append(vectors._Cache(function)._cache_file._source_stamp)
    assert stamps[0] != stamps[1]


def test_without_a_directory_for_the_cache(monkeypatch):
    def nowhere(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(vectors, "_Cache", nowhere)
    vectors._warn_without_cache.cache_clear()

    def double(x):
        return 2 * x

    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        compiled = vectors.compiled(double)
    assert compiled(3) == 6
    assert vectors.compiled(double)(4) == 8  # it warns once


def test_a_disk_that_is_full_when_the_code_is_kept(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def triple(x):
        return 3 * x

    vectors._warn_without_cache.cache_clear()
    monkeypatch.setattr(vectors.caching.FunctionCache, "save_overload", full)
    monkeypatch.setattr(vectors.caching.FunctionCache, "load_overload", full)
    function = vectors.compiled(triple)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        assert function(3) == 9


def test_flipped_kernels(rng):
    """The transformed flipped kernel is the transformed one elsewhere, times the factors."""
    kernel_of = numpy.kron(winograd.KERNEL, winograd.KERNEL)
    g = rng.standard_normal((3, 3))
    factors = numpy.array([1, -2, -2, -0.5, -0.5, 1])
    expected = kernel_of @ g[::-1, ::-1].ravel()
    found = (kernel_of @ g.ravel())[winograd.FLIPPED] * numpy.kron(factors, factors)
    numpy.testing.assert_allclose(found, expected, rtol=1e-12)


def test_every_function_is_compiled_so_that_it_needs_no_cache():
    """numba's own cache=True, and a decorator besides ours, would fail without a directory."""
    root = Path(chainer_sno.__file__).parent.parent
    for path in [*(root / "chainer_sno").rglob("*.py"), *(root / "reproduce").rglob("*.py")]:
        found = re.findall(r"numba\.\w*jit\b|cache=True|import \w*jit\b", path.read_text())
        assert found == (["numba.njit"] * 2 if path.name == "vectors.py" else []), path


#: Nothing but a directory that cannot be made may hold numba's cache.
NO_CACHE = {
    "NUMBA_CACHE_DIR": "/dev/null/cache",
    "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
}


def test_an_import_and_a_training_without_a_cache(tmp_path):
    program = (
        "import chainer_sno.fast, chainer_sno, numpy\n"
        "rng = numpy.random.default_rng(0)\n"
        "iterator = chainer_sno.ArrayIterator(\n"
        "    (rng.random((32, 5), 'f'), rng.integers(0, 3, 32).astype('i')), 16)\n"
        "link = chainer_sno.links.MaskedMLP(5, (4,), 3)\n"
        "optimizer = chainer_sno.NesterovAG().setup(link)\n"
        "bernoulli = chainer_sno.Bernoulli(link.costs)\n"
        "kind = chainer_sno.fast.FastStructureUpdater\n"
        "kind(iterator, optimizer, bernoulli, converter=chainer_sno.pass_arrays).update()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(chainer_sno.__file__).parent.parent,
        env={**os.environ, **NO_CACHE},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04K\x01."])
def test_a_damaged_cache_is_written_anew(tmp_path, monkeypatch, ending, content):
    def four(x):
        return 4 * x

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert vectors.compiled(four)(3) == 12
    (path,) = tmp_path.rglob(f"*.{ending}")
    path.write_bytes(content)
    assert vectors.compiled(four)(3) == 12
    again = vectors.compiled(four)
    assert again(3) == 12
    assert sum(again.stats.cache_hits.values()) == 1
