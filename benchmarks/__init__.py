"""Side-by-side speed: ours, stock Chainer, PyTorch and JAX, and the matrix products alone."""
