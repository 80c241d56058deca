import numpy
import pytest

from chainer_sno import chainer, compact, complexity, describe, links, profile
from tests.chainer_sno.test_compact import make_dense_net, structure_of

L = chainer.links


@pytest.mark.parametrize("select_inputs", [False, True])
def test_an_mlp_is_counted_as_by_its_widths(select_inputs):
    network = links.MaskedMLP(7, (6, 5), 3, select_inputs)
    structure = numpy.arange(len(network.costs)) % 3 > 0
    widths = network.kept_widths(structure)
    assert profile.count(compact(network, structure), (7,)) == {
        "weights": complexity.fully_connected_weights(widths),
        "parameters": complexity.fully_connected_weights(widths) + sum(widths[1:]),
        "flops": complexity.fully_connected_flops(widths),
    }


def test_a_whole_dense_net_is_counted_by_its_costs():
    network = links.DenseNet()
    found = profile.count(compact(network, numpy.ones(273, dtype=bool)), (3, 32, 32))
    assert found["weights"] == network.stem.W.size + network.costs.sum() == 1_001_616
    assert found["parameters"] == network.count_params() == 1_019_722
    # A transition multiplies what it has averaged, and the classifier means over the image.
    transitions = 160 * 160, 304 * 304
    blocks = [network.costs[group].sum() for group in network.groups.values()]
    pixels = [32**2, 16**2, 8**2]
    flops = 432 * 1024 + sum(weights * n for weights, n in zip(blocks, pixels))
    flops -= sum(weights * n * 3 // 4 for weights, n in zip(transitions, pixels))
    flops -= 4480 * 63
    assert found["flops"] == 2 * flops


def test_a_compact_dense_net_is_counted_by_what_remains(rng):
    network = make_dense_net(rng)
    structure = structure_of(
        [[], [0, 1], [0, 1, 2], [0, 2]], [[0], [0, 1], [1], [0]], [[], [1], [0], [0, 2, 3]]
    )
    # Block 1: layer 2 with the zeros of layer 1.  Block 2: nothing.  Block 3: layer 2, zeros alone,
    # and layer 3.
    expected = {
        "stem": (108, 64),
        "block 1": (9 * 5 * 3, 64),
        "transitions": (7 * 13, 16),
        "block 2": (13 * 22, 4),
        "block 3": (9 * (1 + 22) * 3, 4),
        "classifier": ((22 + 6) * 5, 1),
    }
    found = profile.count(compact(network, structure), (3, 8, 8))
    assert found["weights"] == sum(weights for weights, _ in expected.values())
    assert found["flops"] == 2 * sum(weights * pixels for weights, pixels in expected.values())


def test_layers_used_twice_have_their_weights_once(rng):
    class Twice(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.conv = L.Convolution2D(2, 2, 3, stride=1, pad=0)

        def forward(self, x):
            return self.conv(self.conv(x))

    assert profile.count(Twice(), (2, 7, 8)) == {
        "weights": 36,
        "parameters": 38,
        "flops": 2 * 36 * (5 * 6 + 3 * 4),
    }


def test_what_cannot_be_counted_is_named():
    class Hidden(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.inner = L.Linear(3, 2)

        def forward(self, x):
            return chainer.functions.linear(x, self.inner.W)

    with pytest.raises(ValueError, match="^the operations of /inner/W cannot be counted"):
        describe(Hidden(), (3,))
    with pytest.raises(ValueError, match="^the operations of /W cannot be counted"):
        describe(L.Deconvolution2D(3, 2, 3), (3, 8, 8))


def test_the_times_are_medians_of_passes_in_evaluation_mode(monkeypatch):
    passes, clock = [], iter(range(1000))

    class Network(links.MLP):
        def forward(self, x):
            passes.append((x.shape, x.dtype, chainer.config.train, chainer.config.enable_backprop))
            return super().forward(x)

    # A clock that says 1, 4, 9, ... seconds later at every look.
    monkeypatch.setattr(profile.time, "perf_counter", lambda: next(clock) ** 2)
    with chainer.using_config("dtype", numpy.float64):
        network = Network(3, (2,), 2)
    found = describe(network, (3,), batch_sizes=(1, 7), seconds=0.0)
    # Passes take 1, 5, 9, 13, 17 and then 21, ..., 37 seconds.
    assert found["milliseconds"] == {1: 9000, 7: 29000}
    once = [((1, 3), numpy.dtype("d"), False, False)]
    assert passes == once + 6 * once + 6 * [((7, 3), *once[0][1:])]
    passes.clear()
    describe(network, (3,), batch_sizes=(1,), seconds=500)
    assert len(passes) > 7
