"""CUDA kernels written by hand: their sources, and what compiles, launches and captures them.

The kernels are in ``method.cu`` (structures, mini-batches, equation (7)), ``optimizer.cu``,
``mlp.cu`` and ``dense_*.cu``; what they share is in ``common.cuh`` (random numbers, sums) and
``dense.cuh``.
None of them needs cuBLAS, which CuPy does not let into a graph, or cuDNN.  Nothing here knows a
network, an optimizer or an updater: :mod:`chainer_sno.graph` makes trainings of the kernels.
"""
