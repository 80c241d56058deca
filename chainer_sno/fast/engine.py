"""A training engine for fully connected networks with units under selection, fast on one core.

One call of ``Engine.step`` is one iteration: a mini-batch, ``lam`` binary
structures over the hidden units, the mean of their gradients, Nesterov's accelerated gradient with
weight decay on every parameter.  Three things make it fast:

* Products run over active units alone where that pays.  Every layer picks one of three ways by a
  cost model that depends on the structures only, never on a clock, so equal inputs give equal bits:
  SPLIT gathers each structure's active rows and columns, UNION gathers those active in any
  structure and stacks the structures along the batch, DENSE multiplies by the whole matrix.
* The first layer's pre-activation does not depend on the structure: one product for all of them,
  forward and backward.  Input columns that are zero in the whole mini-batch count as inactive.
* A weight between units that are not both active gets no gradient, so (v, W) moves by a fixed
  linear map.  Weights are kept in that map's eigenbasis with the powers of the eigenvalues factored
  out, ``W = slow * S + fast * F``: two scalars carry momentum and decay of all untouched weights,
  exactly, and a touched weight gets ``S += a * gradient; F += b * gradient``.

Activations are unit-major, (units, samples), so that picking units copies contiguous rows.
"""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy

from chainer_sno._types import Array
from chainer_sno.fast import kernels
from chainer_sno.rules import NESTEROV, Rule

#: Velocities of the weights and of the biases, layer by layer.
Velocities = tuple[Sequence[Array], Sequence[Array]]

SPLIT, UNION, DENSE = 0, 1, 2

# Nanoseconds on one core of an AMD EPYC (Zen 4), for `Engine._choose`.
# Constants rather than a calibration: the path decides the order of roundings, and a run must not
# depend on the load of the machine.
_MULTIPLY = 0.020  # one multiply-add inside a product
_GATHER, _SCATTER = 0.75, 0.95  # one weight, columns picked one by one
_GATHER_ROW, _SCATTER_ROW = 0.30, 0.40  # one weight, whole rows
_UPDATE, _REFRESH = 0.40, 0.26  # one weight of the whole matrix: update, rebuild of its dense copy
_CALL = 1500.0  # one structure's or layer's calls from Python

# The fast mode's stored values grow like 0.9 ** -k; they are folded back before they reach this.
_GROWTH = 1e12


def _place(k, mode, i, n):
    """Layer k's piece that has structure i, and in which column its n samples begin."""
    if mode == SPLIT:
        return i, 0
    return 0, i * n if k else 0  # the first layer is the same for all structures


class _Basis:
    """The eigenbasis of an untouched weight's iteration, for one learning rate.

    With no gradient, v' = mu v - lr decay W and W' = W + a v' - b lr decay W, where a and b are
    those of the rule (:mod:`chainer_sno.rules`).  The map's eigenvalues are real for any
    sensible setting, one just below 1 (slow), one near mu (fast).  A state is the sum of a slow
    part (v, W) = (slow_v, 1) s and a fast part (v, W) = (fast_v, 1) f.
    """

    def __init__(self, lr, momentum, decay, rule):
        pull, span, lag = lr * decay, rule.span(momentum), rule.lag(momentum)
        if not rule.has_momentum:
            self._without_momentum(lr, pull)
            return
        # The losses 1 - eigenvalue are the roots of e^2 - total e + pull = 0.  Solved for them, not
        # for the eigenvalues, since the slow one differs from 1 by about 1e-5 only.
        total = 1 - momentum + pull * span
        gap = total**2 - 4 * pull
        fast_loss = (total + math.sqrt(max(gap, 0))) / 2
        if gap <= 0 or fast_loss >= 1:
            raise ValueError(
                f"the fast path cannot train with lr={lr}, {momentum=} and {decay=}: lower the "
                "learning rate or the weight decay, or use the backend 'reference'"
            )
        slow_loss = pull / fast_loss
        self.log_slow, self.log_fast = math.log1p(-slow_loss), math.log1p(-fast_loss)
        self.slow_v = (pull * span - slow_loss) / lag
        self.fast_v = (pull * span - fast_loss) / lag
        # A gradient g moves (v, W) by -lr * g * (1, span).
        self.add_fast = (-lr + self.slow_v * lr * span) / (self.fast_v - self.slow_v)
        self.add_slow = -lr * span - self.add_fast
        self.period = int(max(1, min(4096, math.log(_GROWTH) / -self.log_fast)))

    def _without_momentum(self, lr, pull):
        # The weight is its slow part: W' = (1 - pull) W.  Nothing ever enters the fast part.
        if pull >= 1:
            raise ValueError(
                f"the fast path cannot train with {lr=} and lr * decay = {pull}: lower the "
                "learning rate or the weight decay, or use the backend 'reference'"
            )
        self.log_slow, self.log_fast = math.log1p(-pull), 0.0
        self.slow_v, self.fast_v = 0.0, 1.0
        self.add_slow, self.add_fast = -lr, 0.0
        self.period = 4096

    def powers(self, age):
        """The eigenvalues (slow, fast) to the power age."""
        return math.exp(age * self.log_slow), math.exp(age * self.log_fast)

    def split(self, v, W):
        """The slow and fast parts (s, f) of states, computed in float64."""
        f = (v.astype(numpy.float64) - self.slow_v * W) / (self.fast_v - self.slow_v)
        return W - f, f


@dataclasses.dataclass
class _Iteration:
    """What the parts of an iteration share; the lists have an entry for each layer.

    Attributes:
        n (int): examples.
        lam (int): structures.
        units (list): of :meth:`Engine._units`, with the inputs in front and the outputs behind.
        modes (list of int): the way through each layer.
        pieces (list): the rows and columns of each product.
        drop (list): the factors of Dropout of each hidden layer; None for none.
        hs (list): the inputs of each layer, piece by piece.
        weights (list): the weights.
        zs (list): the pre-activations.
    """

    n: int
    lam: int
    units: list[Any]
    modes: list[Any]
    pieces: list[Any]
    drop: list[Any] | None
    hs: list[Any] = dataclasses.field(default_factory=list)
    weights: list[Any] = dataclasses.field(default_factory=list)
    zs: list[Any] = dataclasses.field(default_factory=list)


class Engine:
    """Train a fully connected network with ReLU; ``Engine.step`` is one iteration.

    The numbers are those of Chainer's NesterovAG, MomentumSGD or SGD with WeightDecay on every
    parameter (readings R6 and R14), up to rounding.

    Args:
        weights (list of numpy.ndarray): shape (out, in) each, inputs first, float32 or float64;
            the dtype of the first is used for all.  Copied, as are the others.
        biases (list of numpy.ndarray): shape (out,) each.
        lr (float): the learning rate; :attr:`lr` may be set between steps, and a new value costs
            a pass over all weights.
        momentum (float): mu, strictly between 0 and 1; ignored by a rule without momentum.
        decay (float): of the weights.
        velocities (tuple): v of the weights and of the biases, lists like theirs; zeros by default.
        bias_decay (float): of the biases; ``decay`` by default.
        rule (chainer_sno.rules.Rule): of the optimizer, NesterovAG's by default.

    Raises:
        ValueError: the momentum is out of range, or so much decay that it is no decay any more.
        TypeError: the dtype is another.
    """

    _lr: float
    _basis: _Basis

    def __init__(
        self,
        weights: Sequence[Array],
        biases: Sequence[Array],
        lr: float,
        momentum: float = 0.9,
        decay: float = 1e-4,
        velocities: Velocities | None = None,
        bias_decay: float | None = None,
        rule: Rule = NESTEROV,
    ) -> None:
        if rule.has_momentum and not 0 < momentum < 1:
            raise ValueError(
                f"the fast path needs a momentum between 0 and 1, both excluded, not {momentum}: "
                "use the backend 'reference'"
            )
        self.dtype = numpy.asarray(weights[0]).dtype
        if self.dtype not in (numpy.float32, numpy.float64):
            raise TypeError(f"weights must be float32 or float64, not {self.dtype}")
        self.rule, self.decay = rule, float(decay)
        self.momentum = float(momentum) if rule.has_momentum else 0.0
        self.bias_decay = self.decay if bias_decay is None else float(bias_decay)
        self._shapes = [numpy.shape(W) for W in weights]
        self._hidden = numpy.array([0] + [n for n, _ in self._shapes[:-1]], numpy.int64).cumsum()
        ends = numpy.array([0] + [n for n, _ in self._shapes]).cumsum()
        self._bias = numpy.empty(ends[-1], self.dtype)
        self._bias_v = numpy.empty_like(self._bias)
        self._bias_gradient = numpy.zeros_like(self._bias)
        views = [slice(a, b) for a, b in pairwise(ends)]
        self._b = [self._bias[view] for view in views]
        self._gb = [self._bias_gradient[view] for view in views]
        self._bv = [self._bias_v[view] for view in views]
        self._S = [numpy.empty(shape, self.dtype) for shape in self._shapes]
        self._F = [numpy.empty(shape, self.dtype) for shape in self._shapes]
        self._W = [numpy.empty(shape, self.dtype) for shape in self._shapes]
        self._all = numpy.arange(max(max(shape) for shape in self._shapes), dtype=numpy.uintp)
        self._columns = numpy.empty(self._shapes[0][1], numpy.uintp)
        self._buffers: dict[Any, Array] = {}
        self.load_parameters(weights, biases, lr, velocities)

    # State

    def load_parameters(
        self,
        weights: Sequence[Array],
        biases: Sequence[Array],
        lr: float,
        velocities: Velocities | None = None,
    ) -> None:
        """Start over from given arrays; the arguments are those of the constructor."""
        self._lr = float(lr)
        self._basis = _Basis(self._lr, self.momentum, self.decay, self.rule)
        self._age = 0  # iterations since the powers of the eigenvalues were 1
        self._fresh = [False] * len(self._shapes)  # whether _W holds the weights
        for k, shape in enumerate(self._shapes):
            W = numpy.asarray(weights[k], self.dtype)
            v = (
                numpy.zeros(shape, self.dtype)
                if velocities is None
                else numpy.asarray(velocities[0][k])
            )
            self._S[k][...], self._F[k][...] = self._basis.split(v, W)
            self._b[k][...] = biases[k]
            self._bv[k][...] = 0 if velocities is None else velocities[1][k]

    def parameters(self) -> dict[str, list[Array]]:
        """Return copies of the parameters and of their velocities.

        Returns:
            dict: lists of arrays under ``weights``, ``biases``, ``weight_velocities`` and
            ``bias_velocities``, in the shapes of the constructor.
        """
        basis = self._basis
        slow, fast = basis.powers(self._age)
        weights, velocities = [], []
        for S, F in zip(self._S, self._F, strict=True):
            s, f = slow * S.astype(numpy.float64), fast * F.astype(numpy.float64)
            weights.append((s + f).astype(self.dtype))
            velocities.append((basis.slow_v * s + basis.fast_v * f).astype(self.dtype))
        return {
            "weights": weights,
            "biases": [b.copy() for b in self._b],
            "weight_velocities": velocities,
            "bias_velocities": [v.copy() for v in self._bv],
        }

    def state(self) -> dict[str, Any]:
        """Return everything that the next iterations depend on, to the bit.

        Returns:
            dict: arrays and scalars, for :meth:`set_state`.
        """
        state = {"lr": self._lr, "age": self._age, "fresh": numpy.array(self._fresh)}
        state.update(bias=self._bias.copy(), bias_velocity=self._bias_v.copy())
        for k, (S, F) in enumerate(zip(self._S, self._F, strict=True)):
            state[f"slow_{k}"], state[f"fast_{k}"] = S.copy(), F.copy()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of an engine of the same widths, momentum and decay.

        Args:
            state (dict): of :meth:`state`.
        """
        self._lr, self._age = float(state["lr"]), int(state["age"])
        self._basis = _Basis(self._lr, self.momentum, self.decay, self.rule)
        self._bias[...], self._bias_v[...] = state["bias"], state["bias_velocity"]
        for k in range(len(self._shapes)):
            self._S[k][...], self._F[k][...] = state[f"slow_{k}"], state[f"fast_{k}"]
        self._fresh = [bool(fresh) for fresh in state["fresh"]]
        self._refresh()

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if lr != self._lr:
            self._change_basis(float(lr))

    def _change_basis(self, lr):
        """Folds the powers back into S and F, in the eigenbasis of the (new) learning rate."""
        old, new = self._basis, _Basis(lr, self.momentum, self.decay, self.rule)
        slow, fast = old.powers(self._age)
        # f' = (v - new.slow_v W) / (new.fast_v - new.slow_v), v and W in terms of the old s and f.
        fs = slow * (old.slow_v - new.slow_v) / (new.fast_v - new.slow_v)
        ff = fast * (old.fast_v - new.slow_v) / (new.fast_v - new.slow_v)
        for S, F in zip(self._S, self._F, strict=True):
            kernels.rebase(S.ravel(), F.ravel(), slow - fs, fast - ff, fs, ff)
        self._lr, self._basis, self._age = lr, new, 0
        self._refresh()

    def _refresh(self):
        slow, fast = self._powers()
        for S, F, W, fresh in zip(self._S, self._F, self._W, self._fresh, strict=True):
            if fresh:
                kernels.combine(S.ravel(), F.ravel(), slow, fast, W.ravel())

    def _powers(self):
        slow, fast = self._basis.powers(self._age)
        return self.dtype.type(slow), self.dtype.type(fast)

    # One iteration

    def _buffer(self, name, *shape):
        """A piece of a workspace that grows when needed and is reused in every iteration."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = numpy.empty(size, self.dtype)
        return buffer[:size].reshape(shape)

    def _units(self, structures):
        """Per hidden layer: (active units of the union, [(active units, places in the union)])."""
        lam, d = structures.shape
        layers = len(self._hidden) - 1
        ids, positions = numpy.empty((2, lam, d), numpy.uintp)
        union = numpy.empty(d, numpy.uintp)
        counts, totals = numpy.empty((lam, layers), numpy.int64), numpy.empty(layers, numpy.int64)
        kernels.index(structures, self._hidden, ids, positions, counts, union, totals)
        result = []
        counts, first = counts.tolist(), self._hidden.tolist()
        for k, total in enumerate(totals.tolist()):
            a = first[k]
            each = [
                (ids[i, a : a + counts[i][k]], positions[i, a : a + counts[i][k]])
                for i in range(lam)
            ]
            result.append((union[a : a + total], each))
        return result

    def _pays_to_pick(self, count, n):
        """Whether to leave out the first layer's zero input columns, all but count."""
        products = 2 * _MULTIPLY * n
        whole = self._shapes[0][1] * (products + _GATHER_ROW + _SCATTER_ROW)
        return count * (products + _GATHER + _SCATTER) < whole

    def _choose(self, k, rows, columns, n, lam):
        """The cheapest way through layer k, by how many units are active."""
        n_rows, n_columns = self._shapes[k]
        # The first layer has no input gradient and is the same for all structures.
        products = _MULTIPLY * n * (3 * lam if k else 2)
        picked = len(columns[0]) < n_columns
        move = _GATHER + _SCATTER if picked else _GATHER_ROW + _SCATTER_ROW
        costs = {UNION: len(rows[0]) * len(columns[0]) * (products + move) + _CALL}
        # Half of the rebuild counts: it is paid once, and the layer mostly stays dense.
        again = 0 if self._fresh[k] else _REFRESH / 2
        costs[DENSE] = n_rows * n_columns * (products + _UPDATE + again) + _CALL
        if k and lam > 1:
            weights = sum(
                len(r) * len(c) for (r, _), (c, _) in zip(rows[1], columns[1], strict=True)
            )
            costs[SPLIT] = weights * (products / lam + _GATHER + _SCATTER) + lam * _CALL
        return min(costs, key=costs.get)

    def step(
        self,
        x: Array,
        t: Array,
        structures: Array | None = None,
        dropout: Array | None = None,
    ) -> Array:
        """Do one iteration: equation (6) and the step of the optimizer.

        Args:
            x (numpy.ndarray): shape (N, inputs).
            t (numpy.ndarray): class numbers, shape (N,).
            structures (numpy.ndarray): bits of the hidden units, bool of shape (lambda, d); None
                for one structure with every unit on.
            dropout (numpy.ndarray): factors of the hidden activations, none negative, shape
                (N, d), the same for all structures; None for none.

        Returns:
            numpy.ndarray: the loss of each structure before the step, shape (lambda,), float64.

        Raises:
            ValueError: a shape or a class number does not fit the network.
        """
        x = numpy.ascontiguousarray(x, self.dtype)
        n, n_layers = len(x), len(self._shapes)
        hidden = self._hidden.tolist()
        if x.shape[1] != self._shapes[0][1] or len(t) != n:
            raise ValueError(
                f"x of shape {x.shape} and t of shape {numpy.shape(t)} must have the shapes (N, "
                f"{self._shapes[0][1]}) and (N,)"
            )
        lam, units = self._active(structures, hidden)
        drop = None if dropout is None else self._dropped(dropout, n, hidden)
        inputs = self._columns[: kernels.nonzero_columns(x, self._columns)]
        if not self._pays_to_pick(len(inputs), n):
            inputs = self._all[: x.shape[1]]
        outputs = self._all[: self._shapes[-1][0]]
        units = [(inputs, [(inputs, inputs)] * lam), *units, (outputs, [(outputs, outputs)] * lam)]
        modes = [self._choose(k, units[k + 1], units[k], n, lam) for k in range(n_layers)]
        pieces = [self._pieces(k, modes[k], units) for k in range(n_layers)]
        iteration = _Iteration(n, lam, units, modes, pieces, drop)
        if len(inputs) < x.shape[1] and modes[0] != DENSE:
            picked = self._buffer("x", n, len(inputs))
            kernels.take_columns(x, inputs, picked)
            x = picked
        self._forward(iteration, x)
        losses = self._losses(iteration, numpy.asarray(t))
        self._backward(iteration)
        rates = (self.dtype.type(rate) for rate in (self.momentum, self._lr, self.bias_decay))
        update = kernels.update_bias if self.rule.nesterov else kernels.update_bias_with_momentum
        update(self._bias, self._bias_v, self._bias_gradient, *rates)
        if self._age >= self._basis.period:
            self._change_basis(self._lr)
        # Without a hidden layer all structures are one network.
        return losses if n_layers > 1 else losses.repeat(lam)

    def _active(self, structures, hidden):
        """The number of structures, and per hidden layer what :meth:`_units` returns."""
        if structures is None:
            full = [self._all[: b - a] for a, b in pairwise(hidden)]
            return 1, [(every, [(every, every)]) for every in full]
        structures = numpy.ascontiguousarray(structures, numpy.bool_)
        lam = len(structures)
        if structures.shape != (lam, hidden[-1]):
            raise ValueError(
                f"structures must have the shape (lambda, {hidden[-1]}), not {structures.shape}"
            )
        return lam, self._units(structures)

    def _dropped(self, dropout, n, hidden):
        """The factors of Dropout per hidden layer, one column an example."""
        if numpy.shape(dropout) != (n, hidden[-1]):
            raise ValueError(
                f"dropout must have the shape ({n}, {hidden[-1]}), not {numpy.shape(dropout)}"
            )
        drop = self._buffer("dropout", hidden[-1], n)
        drop[...] = numpy.transpose(dropout)
        return [drop[a:b] for a, b in pairwise(hidden)]

    def _forward(self, it, x):
        """From the inputs to the outputs of every structure.

        A layer works on pieces, one per structure (SPLIT) or one for all, and so do the lists of
        its inputs h, weights and pre-activations z.
        """
        slow, fast = self._powers()
        it.hs.append([x.T])
        for k in range(len(self._shapes)):
            if k:
                it.hs.append(
                    self._activations(
                        k, it.zs[-1], it.modes, it.units[k], it.pieces[k], it.n, it.lam, it.drop
                    )
                )
            it.weights.append(self._weights(k, it.modes[k], it.pieces[k], slow, fast))
            it.zs.append(self._products(("z", k), it.weights[k], it.hs[k]))

    def _losses(self, it, t):
        """The loss of each structure; its gradient takes the place of the outputs."""
        last = len(self._shapes) - 1
        runs = it.lam if last else 1
        losses, scale = numpy.empty(runs), self.dtype.type(1 / (it.n * runs))
        for i in range(runs):
            piece, start = _place(last, it.modes[last], i, it.n)
            losses[i] = kernels.softmax_cross_entropy(
                it.zs[-1][piece], start, self._b[last], t, scale
            )
        return losses

    def _backward(self, it):
        """From the gradient at the outputs to the new weights and the gradient of the biases."""
        self._age += 1
        slow, fast = self._basis.powers(self._age)
        factors = self._basis.add_slow / slow, self._basis.add_fast / fast, slow, fast
        factors = [self.dtype.type(factor) for factor in factors]
        dz = it.zs[-1]
        for k in range(len(self._shapes) - 1, -1, -1):
            if k:  # before the update, which in DENSE changes the weights in place
                dh = self._products(("dh", k), [W.T for W in it.weights[k]], dz)
            self._update(k, it.modes[k], it.pieces[k], dz, it.hs[k], *factors)
            if k:
                dz = self._back_activations(
                    k - 1, it.zs[k - 1], dh, it.modes, it.units[k], it.n, it.lam, it.drop
                )

    def _pieces(self, k, mode, units):
        """The rows and columns of each product of layer k."""
        (any_row, rows), (any_column, columns) = units[k + 1], units[k]
        if mode == SPLIT:
            return [(r, c) for (r, _), (c, _) in zip(rows, columns, strict=True)]
        if mode == UNION:
            return [(any_row, any_column)]
        n_rows, n_columns = self._shapes[k]
        return [(self._all[:n_rows], self._all[:n_columns])]

    def _numbers(self, mode, active):
        """Where a structure's active units (units, places in the union) are in a piece's array."""
        units, places = active
        return self._all[: len(units)] if mode == SPLIT else places if mode == UNION else units

    def _activations(self, k, z, modes, units, pieces, n, lam, drop):
        """The inputs of layer k's pieces, from the pre-activations z of the layer below."""
        width = n if modes[k] == SPLIT else lam * n
        h = [self._buffer(("h", k, i), len(c), width) for i, (_, c) in enumerate(pieces)]
        if modes[k] != SPLIT and any(len(ids) < len(h[0]) for ids, _ in units[1]):
            h[0].fill(0)
        for i, active in enumerate(units[1]):
            below, above = _place(k - 1, modes[k - 1], i, n), _place(k, modes[k], i, n)
            source = z[below[0]], self._numbers(modes[k - 1], active), below[1]
            target = h[above[0]], self._numbers(modes[k], active), above[1]
            if drop is None:
                kernels.activate(*source, self._b[k - 1], active[0], *target, n)
            else:
                kernels.activate_dropout(
                    *source, self._b[k - 1], active[0], *target, n, drop[k - 1]
                )
        return h

    def _back_activations(self, k, z, dh, modes, units, n, lam, drop):
        """The gradients at layer k's pre-activations z, from those at the next layer's inputs."""
        dz = [self._buffer(("dz", k, i), *piece.shape) for i, piece in enumerate(z)]
        for piece in dz:
            piece.fill(0)
        for i, active in enumerate(units[1]):
            below, above = _place(k, modes[k], i, n), _place(k + 1, modes[k + 1], i, n)
            source = z[below[0]], self._numbers(modes[k], active), below[1]
            target = dh[above[0]], self._numbers(modes[k + 1], active), above[1]
            arguments = *source, self._b[k], active[0], *target, n, dz[below[0]]
            if drop is None:
                kernels.deactivate(*arguments)
            else:
                kernels.deactivate_dropout(*arguments, drop[k])
        return dz

    def _weights(self, k, mode, pieces, slow, fast):
        S, F = self._S[k], self._F[k]
        if mode == DENSE:
            if not self._fresh[k]:
                kernels.combine(S.ravel(), F.ravel(), slow, fast, self._W[k].ravel())
                self._fresh[k] = True
            return [self._W[k]]
        weights = []
        for i, (rows, columns) in enumerate(pieces):
            W = self._buffer(("W", k, i), len(rows), len(columns))
            if len(columns) < S.shape[1]:
                kernels.gather(S, F, slow, fast, rows, columns, W)
            else:
                kernels.gather_rows(S, F, slow, fast, rows, W)
            weights.append(W)
        return weights

    def _products(self, name, lefts, rights):
        """Matrix products pair by pair, in workspaces."""
        outs = []
        for i, (left, right) in enumerate(zip(lefts, rights, strict=True)):
            out = self._buffer((*name, i), left.shape[0], right.shape[1])
            outs.append(numpy.dot(left, right, out=out))
        return outs

    def _update(self, k, mode, pieces, dz, h, a, b, slow, fast):
        """Adds layer k's gradient, dz times its input h, to its weights and the bias gradient.

        a, b: what a gradient adds to S and F; slow, fast: the powers after this iteration.
        """
        S, F = self._S[k], self._F[k]
        for (rows, columns), left, right in zip(pieces, dz, h, strict=True):
            gradient = self._buffer("gradient", len(left), len(right))
            numpy.dot(left, right.T, out=gradient)
            if mode == DENSE:
                flat = S.ravel(), F.ravel(), a, b, slow, fast, gradient.ravel(), self._W[k].ravel()
                kernels.update_dense(*flat)
            elif len(columns) < S.shape[1]:
                kernels.scatter(S, F, a, b, rows, columns, gradient)
            else:
                kernels.scatter_rows(S, F, a, b, rows, gradient)
            self._add_bias(k, rows, left)
        self._fresh[k] = mode == DENSE

    def _add_bias(self, k, rows, dz):
        ones = self._buffers.get("ones")
        if ones is None or len(ones) < dz.shape[1]:
            ones = self._buffers["ones"] = numpy.ones(dz.shape[1], self.dtype)
        sums = numpy.dot(dz, ones[: dz.shape[1]], out=self._buffer("sums", len(dz)))
        kernels.add_at(self._gb[k], rows, sums)
