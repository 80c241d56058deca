"""The fast path on a GPU: an iteration is one launch of a CUDA graph of hand-written kernels.

The kernels are in ``common.cuh`` (random numbers, sums), ``method.cu`` (structures, mini-batches,
equation (7), the optimizer), ``mlp.cu`` and ``dense.cu``.  None of them needs cuBLAS, which CuPy
does not let into a graph, or cuDNN.  :mod:`chainer_sno.cuda.updaters` trains with them; the plain
:class:`chainer_sno.StructureUpdater` with CuPy's arrays is the reference.
"""
