"""The fast path on a GPU: an iteration is one launch of a CUDA graph of hand-written kernels.

The kernels are in ``method.cu`` (structures, mini-batches, equation (7), the optimizer), ``mlp.cu``
and ``dense_*.cu``; what they share is in ``common.cuh`` (random numbers, sums) and ``dense.cuh``.
None of them needs cuBLAS, which CuPy does not let into a graph, or cuDNN.
:mod:`chainer_sno.cuda.updaters` trains with them; the plain :class:`chainer_sno.StructureUpdater`
with CuPy's arrays is the reference.
"""
