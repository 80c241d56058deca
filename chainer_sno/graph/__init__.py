"""The fast path on a GPU: an iteration is one launch of a CUDA graph.

A network is a program of the kernels of :mod:`chainer_sno.cuda`, and the updaters of
:mod:`chainer_sno.graph.updaters` train with it.  The reference is
:class:`chainer_sno.StructureUpdater` with CuPy's arrays.
"""
