"""The types that annotations of the experiments share.

Chainer has no type hints, so what it makes is anything to a type checker, as in the library.  Its
types are not imported from there: that imports Chainer, which ``status`` does without.
"""

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing

#: An array of NumPy, or of CuPy in a training on a GPU.
Array: TypeAlias = numpy.typing.NDArray[Any]
#: The images and labels of the training set and of the test set.
Data: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]
#: A record, or another object of a JSON file whose form :mod:`reproduce.schemas` checks.
Record: TypeAlias = dict[str, Any]
#: The cells of a table, row by row.
Cells: TypeAlias = list[list[str]]
#: What a user may name a file or a directory by.
StrPath: TypeAlias = str | os.PathLike[str]
#: Takes a line for the user.
Say: TypeAlias = Callable[[str], object]
