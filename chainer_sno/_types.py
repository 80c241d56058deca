"""The types that annotations of the library share.

Chainer and CuPy have no type hints, so a link, a variable or an optimizer is what Chainer says it
is, and anything to a type checker.
"""

from typing import Any, TypeAlias

import numpy.typing

#: An array of NumPy or of CuPy, which has the same interface and need not be installed.
Array: TypeAlias = numpy.typing.NDArray[Any]
#: What numpy.asarray takes.
ArrayLike: TypeAlias = numpy.typing.ArrayLike
#: What a device is named by in Chainer: ``"@numpy"``, ``"@cupy:0"``, -1, 0, ... or a device.
DeviceSpec: TypeAlias = Any
