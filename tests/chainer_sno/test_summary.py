import numpy
import pytest

from chainer_sno import (
    Bernoulli,
    StructureSummary,
    StructureUpdater,
    chainer,
    complexity,
    extensions,
    links,
    profile,
)
from tests.chainer_sno.networks import NETWORKS, SHAPE


@pytest.fixture
def network():
    return links.MaskedMLP(6, (5, 4), 3)


@pytest.fixture
def bernoulli(network):
    costs = complexity.costs(network, "weights")
    bernoulli = Bernoulli(costs, 2**-4, criterion="weights", seed=3)
    bernoulli.theta[...] = [0.5, 0.4, 0.8, 0.2, 0.9, 0.6, 0.2, 0.4, 0.3]
    return bernoulli


def test_summary_counts_the_mode(network, bernoulli):
    summary = StructureSummary(network, bernoulli)
    assert summary.groups == {"hidden_1": (3, 5), "hidden_2": (1, 4)}
    assert summary.bits == (4, 9)
    # Fan-in plus fan-out: 6 + 4 of the first layer, 5 + 3 of the second.
    assert summary.usage_rate == pytest.approx((3 * 10 + 8) / (5 * 10 + 4 * 8))
    assert summary.weight_ratio == pytest.approx((6 * 3 + 3 * 1 + 1 * 3) / (6 * 5 + 5 * 4 + 4 * 3))
    lines = repr(summary).splitlines()
    assert lines[0] == "structure of MaskedMLP"
    assert [line.split() for line in lines[1:]] == [
        ["hidden_1", "3", "of", "5", "60.0%"],
        ["hidden_2", "1", "of", "4", "25.0%"],
        ["bits", "on", "4", "of", "9", "44.4%"],
        ["usage", "rate", "in", "weights", "46.3%"],
        ["weight", "ratio", "38.7%"],
    ]
    page = summary._repr_html_()
    assert page.count("<tr>") == 5
    assert "in weights</td><td>46.3%" in page


def test_summary_of_a_link_that_states_the_least():
    class Least(chainer.Link):
        costs = numpy.array([1.0, 3.0])

    bernoulli = Bernoulli(Least.costs)
    bernoulli.theta[...] = 0.5
    text = repr(StructureSummary(Least(), bernoulli))
    assert "in costs of the link" in text
    assert "weight ratio" not in text


def test_names_in_a_page_are_escaped(network, bernoulli):
    network.groups = {"<b>": slice(0, 9)}
    assert "&lt;b&gt;" in StructureSummary(network, bernoulli)._repr_html_()


def test_what_is_printed_says_something(network, bernoulli):
    assert str(bernoulli) == (
        "Bernoulli(d=9, epsilon0=0.0625, eta=0.111111, seed=3, criterion='weights')"
    )
    assert repr(bernoulli) == f"<{bernoulli}: 4 bits on, theta 0.2 to 0.9>"
    assert repr(network) == (
        "MaskedMLP(in_size=6, hidden_sizes=(5, 4), out_size=3, select_inputs=False)"
    )
    assert "(output): Linear(in_size=4, out_size=3" in str(network)
    assert repr(links.DenseNet(10, 2, 3, 4, 5, 1)) == (
        "DenseNet(depth=10, growth_rate=2, blocks=3, first_channels=4, classes=5, in_channels=1)"
    )
    report = extensions.StructureReport(network, bernoulli)
    assert repr(report) == "<StructureReport of MaskedMLP, in weights>"
    optimizer = chainer.optimizers.SGD().setup(network)
    iterator = chainer.iterators.SerialIterator([0], 1)
    updater = StructureUpdater(iterator, optimizer, bernoulli, samples=4)
    assert repr(updater) == (
        f"<StructureUpdater of MaskedMLP: 4 structures an iteration, 0 iterations done, "
        f"{bernoulli!r}>"
    )


def test_what_remains_is_printed_beside_the_usage_rate(rng):
    numpy.random.seed(0)
    kind, layers = NETWORKS["lenet"]
    link = links.select(kind(), layers, SHAPE)
    bernoulli = Bernoulli(link.costs, criterion="flops")
    bernoulli.theta[...] = numpy.where(numpy.arange(link.d) % 3 == 0, 0.9, 0.1)
    counts = [
        profile.count(link.compact(structure), SHAPE)
        for structure in (bernoulli.mode(), numpy.ones(link.d, dtype=bool))
    ]
    summary = StructureSummary(link, bernoulli)
    expected = {}
    for what in ("weights", "flops"):
        left, whole = (count[what] for count in counts)
        expected[what] = left / whole
        assert summary.remaining[what] == (left, whole)
        line = next(line for line in repr(summary).splitlines() if f"{what} that remain" in line)
        assert line.split()[3:] == [f"{left:,}", "of", f"{whole:,}", f"{left / whole:.1%}"]
    # A weight between two channels counts at both of its ends in the one and once in the other.
    assert summary.usage_rate > expected["flops"]
    words = (
        f"{expected['weights']:.1%} of the weights and {expected['flops']:.1%} of the flops remain"
    )
    assert summary.words() == f"usage rate {summary.usage_rate:.1%}, in flops; {words}"
    observed = {}
    reporter = chainer.Reporter()
    with reporter.scope(observed), reporter:
        extensions.StructureReport(link, bernoulli)(None)
    assert observed["structure/weight_ratio"] == expected["weights"]
    assert observed["structure/flops_ratio"] == expected["flops"]
    assert observed["structure/conv1"] == 2
