"""Train the weights and the structure of a Chainer network together.

The method of Saito and Shirakawa, *Controlling Model Complexity in Probabilistic Model-Based
Dynamic Optimization of Neural Network Structures* (ICANN 2019): stochastic natural gradient on a
Bernoulli distribution over structures, with a penalty that limits the size of the network.

``from chainer_sno import chainer`` is Chainer 7.8.1, imported on a current NumPy and Python.
"""

from chainer_sno._import_chainer import chainer as chainer  # isort: skip  (must come first)
from chainer_sno import (
    complexity,
    extensions,
    functions,
    links,
    plots,
    prediction,
    protocols,
    testing,
)
from chainer_sno.backends import make_updater
from chainer_sno.bernoulli import Bernoulli
from chainer_sno.compact import compact
from chainer_sno.iterators import ArrayIterator, pass_arrays
from chainer_sno.nesterov import NesterovAG
from chainer_sno.onnx_export import save_onnx
from chainer_sno.profile import describe
from chainer_sno.rates import suggest_eta
from chainer_sno.saving import load_compact, save_compact
from chainer_sno.summary import StructureSummary
from chainer_sno.updater import StructureUpdater
from chainer_sno.utility import ranking_utility

__version__ = "0.1.0"

__all__ = [
    "ArrayIterator",
    "Bernoulli",
    "NesterovAG",
    "StructureSummary",
    "StructureUpdater",
    "compact",
    "complexity",
    "describe",
    "extensions",
    "functions",
    "links",
    "load_compact",
    "make_updater",
    "pass_arrays",
    "plots",
    "prediction",
    "protocols",
    "ranking_utility",
    "save_compact",
    "save_onnx",
    "suggest_eta",
    "testing",
]
