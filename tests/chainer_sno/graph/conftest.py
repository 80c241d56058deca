"""The trainings run where the kernels do."""

from tests.chainer_sno.cuda.conftest import platform as platform
