import numpy
import pytest

from chainer_sno import Bernoulli, chainer, compact, complexity, links, profile


def test_usage_rate_is_weighted_by_the_costs():
    structure = numpy.array([True, False, True])
    assert complexity.usage_rate(structure, numpy.array([1.0, 2.0, 3.0])) == 4 / 6
    assert complexity.usage_rate(~structure, numpy.ones(3)) == 1 / 3


def test_fully_connected_counts():
    assert complexity.fully_connected_weights((784, 784, 784, 784, 10)) == 3 * 784**2 + 7840
    assert complexity.fully_connected_flops((3, 2, 1)) == 16
    assert complexity.fully_connected_weight_ratio((4, 1, 2), (4, 2, 2)) == 0.5


@pytest.mark.parametrize("costs", [[], [[1.0]], [1, -1], [0, 0], [numpy.inf, 1]])
def test_bad_costs_are_named(costs):
    with pytest.raises(ValueError, match="costs must"):
        complexity.check_costs(costs)


@pytest.mark.parametrize("rate", [0.158, 0.241, 0.423, 0.675, 0.803, 1.0])
def test_random_structures_meet_their_usage_rate(rate, rng):
    costs = rng.integers(100, 50000, 273).astype("d")
    structures = [complexity.random_structure(costs, rate, rng) for _ in range(3)]
    for structure in structures:
        assert abs((structure * costs).sum() / costs.sum() - rate) <= 0.005
    assert rate == 1 or not numpy.array_equal(*structures[:2])


def test_a_random_structure_must_be_accepted(rng):
    costs = numpy.ones(10)
    found = complexity.random_structure(costs, 0.5, rng, accept=lambda m: not m[:4].any())
    assert found.sum() == 5
    assert not found[:4].any()


def one_after_the_other(costs, rate, rng, accept):
    """The plain reference of random_structure: return a structure and how many were drawn."""
    drawn = 0
    while True:
        structure = rng.random(len(costs)) < rate
        drawn += 1
        if abs(complexity.usage_rate(structure, costs) - rate) <= 0.005 and accept(structure):
            return structure, drawn


@pytest.mark.parametrize("rate", [0.158, 0.5, 1.0])
@pytest.mark.parametrize("refused", [0, 1, 40])
def test_structures_drawn_together_are_those_drawn_one_after_the_other(rate, refused):
    costs = numpy.random.default_rng(1).integers(100, 50000, 273).astype("d")
    ours, theirs = numpy.random.default_rng(5), numpy.random.default_rng(5)
    counts = []
    for _ in range(3):
        refusals = [iter([False] * refused), iter([False] * refused)]
        found = complexity.random_structure(
            costs, rate, ours, accept=lambda m, r=refusals[0]: next(r, True)
        )
        expected, drawn = one_after_the_other(
            costs, rate, theirs, accept=lambda m, r=refusals[1]: next(r, True)
        )
        counts.append(drawn)
        numpy.testing.assert_array_equal(found, expected)
        # The stream goes on where the plain reference leaves it.
        assert ours.bit_generator.state == theirs.bit_generator.state
    assert refused < 40 or rate == 1 or max(counts) > 256, "no call drew a second time"


def test_a_usage_rate_that_cannot_be_met_is_named(rng):
    with pytest.raises(ValueError, match="none of 50 random structures has a usage rate of 0.3"):
        complexity.random_structure([1.0, 1.0], 0.3, rng, attempts=50)
    with pytest.raises(ValueError, match="must lie in"):
        complexity.random_structure([1.0, 1.0], 0.0, rng)


@pytest.mark.parametrize("select_inputs", [False, True])
def test_a_unit_costs_the_weights_that_go_with_it(select_inputs):
    network = links.MaskedMLP(7, (5, 3, 4), 2, select_inputs=select_inputs)
    d = len(network.costs)
    full = numpy.ones(d, dtype=bool)
    weights = complexity.costs(network, "weights")
    for bit in range(d):
        without = full.copy()
        without[bit] = False
        lost = [complexity.fully_connected_weights(network.kept_widths(m)) for m in (full, without)]
        assert weights[bit] == lost[0] - lost[1]
    numpy.testing.assert_array_equal(complexity.costs(network, "flops"), 2 * weights)
    numpy.testing.assert_array_equal(complexity.costs(network), network.costs)


def test_the_costs_of_connections_add_up_to_those_of_the_network(rng):
    network = links.PlainDenseNet(13, 3, 3, 4, 5, 2)
    x = rng.normal(size=(1, 2, 8, 8)).astype("f")
    whole = links.FixedStructure(network, numpy.ones(len(network.costs)))
    stem = 2 * network.stem.W.size * 64
    flops = profile.count(whole, x.shape[1:])["flops"]
    assert complexity.costs(network, "flops", x).sum() == flops - stem
    numpy.testing.assert_array_equal(complexity.costs(network, "weights"), network.costs)
    numpy.testing.assert_array_equal(complexity.costs(network, "units"), 1)
    with pytest.raises(ValueError, match="give examples as x"):
        complexity.costs(network, "flops")


class Stating(chainer.Link):
    """A user's link that knows a criterion of its own."""

    costs = numpy.ones(3)

    def costs_of(self, criterion, x_shape):
        if criterion == "shape":
            return numpy.array(x_shape)
        return numpy.ones(2) if criterion == "short" else complexity.per_weight(criterion)


def test_a_users_link_states_its_costs(rng):
    x = rng.normal(size=(9, 4, 5, 6))
    numpy.testing.assert_array_equal(complexity.costs(Stating(), "shape", x), [4.0, 5.0, 6.0])
    with pytest.raises(ValueError, match="2 costs, and the link has 3 bits"):
        complexity.costs(Stating(), "short")
    with pytest.raises(ValueError, match="one of units, weights, flops, not 'seconds'"):
        complexity.costs(Stating(), "seconds")
    silent = chainer.Link()
    silent.costs = numpy.ones(2)
    numpy.testing.assert_array_equal(complexity.costs(silent, "units"), [1.0, 1.0])
    with pytest.raises(TypeError, match="does not say what its bits cost in weights"):
        complexity.costs(silent, "weights")


def test_the_criterion_is_named():
    network = links.MaskedMLP(3, (4,), 2)
    flops = complexity.costs(network, "flops")
    for bernoulli, expected in [
        (Bernoulli(network.costs), "units"),
        (Bernoulli(flops, criterion="flops"), "flops"),
        (Bernoulli(numpy.arange(4)), "own costs"),
    ]:
        assert complexity.criterion_of(network, bernoulli) == expected
    dense = links.PlainDenseNet(7, 2, 3, 2, 3, 1)
    assert complexity.criterion_of(dense, Bernoulli(dense.costs)) == "weights"
    assert complexity.criterion_of(Stating(), Bernoulli(Stating.costs)) == "costs of the link"


def everything_that_takes_a_structure():
    mlp, dense = links.MaskedMLP(3, (9, 7), 2), links.DenseNet(7, 2)
    return {
        "MaskedMLP.compact": (mlp.compact, 16),
        "MaskedMLP.weight_ratio": (mlp.weight_ratio, 16),
        "MaskedMLP.kept_widths": (mlp.kept_widths, 16),
        "DenseNet.compact": (dense.compact, 9),
        "DenseNet.weight_ratio": (dense.weight_ratio, 9),
        "FixedStructure": (lambda m: links.FixedStructure(mlp, m), 16),
        "compact": (lambda m: compact(mlp, m), 16),
        "usage_rate": (lambda m: complexity.usage_rate(m, mlp.costs), 16),
    }


@pytest.mark.parametrize("name", everything_that_takes_a_structure())
def test_what_is_no_structure_is_refused(name):
    function, bits = everything_that_takes_a_structure()[name]
    for wrong in (bits - 4, bits + 4):
        with pytest.raises(ValueError, match=rf"shape \({bits},\), one entry for each bit"):
            function(numpy.ones(wrong, bool))
    with pytest.raises(ValueError, match=r"mode\(\)"):
        function(numpy.full(bits, 0.7))
    for dtype in (bool, int, "f"):
        function(numpy.ones(bits, dtype))
