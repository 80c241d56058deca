"""The fast path of a GPU, on a GPU and, without one, on the host."""

import pytest

from chainer_sno import chainer
from chainer_sno.cuda.kernels import Kernels
from tests.chainer_sno.cuda.emulator import COMPILER, Emulator

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")


HOST = pytest.param((Emulator, "@numpy"), marks=needs_compiler, id="host")
GPU = pytest.param((Kernels, "@cupy:0"), marks=pytest.mark.gpu, id="gpu")


@pytest.fixture(params=[HOST, GPU])
def platform(request):
    """What launches the kernels, and the device whose arrays they take."""
    kind, device = request.param
    device = chainer.get_device(device)
    device.use()
    return kind, device
