"""Right links pass; each that is wrong in one way gets the one finding that it deserves."""

import textwrap

import numpy
import pytest

from chainer_sno import chainer, links, testing
from chainer_sno.functions import mask_units

F, L = chainer.functions, chainer.links


@pytest.fixture(autouse=True)
def _weights():
    numpy.random.seed(0)  # Chainer's initializers draw from it


class Units(chainer.Chain):
    """Four inputs, six hidden units under selection, three outputs: right, and easily spoilt."""

    hidden_units = 6

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.hidden = L.Linear(4, self.hidden_units)
            self.output = L.Linear(self.hidden_units, 3)
        self.costs = numpy.ones(self.hidden_units)
        self.groups = {"first": slice(0, 2), "second": slice(2, 6)}

    def act(self, h):
        return F.relu(h)

    def forward(self, x, structures):
        h = F.expand_dims(self.act(self.hidden(x)), 0)
        return self.output(mask_units(h, structures), n_batch_axes=2)

    def weight_ratio(self, structure):
        return float(structure.mean())

    def compact(self, structure):
        kept = numpy.flatnonzero(structure)
        if not kept.size:
            raise ValueError("no unit is left")
        network = links.MLP(4, (len(kept),), 3, activation=self.act)
        first, second = network.layers
        first.W.array, first.b.array = self.hidden.W.array[kept], self.hidden.b.array[kept]
        second.W.array, second.b.array = self.output.W.array[:, kept], self.output.b.array
        return network


class Channels(chainer.Chain):
    """A convolution whose channels are under selection, normalised structure by structure."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.dropout = dropout
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 3, pad=1, nobias=True)
            self.norm = L.BatchNormalization(4)
            self.output = L.Linear(4, 3)
        self.costs = numpy.full(4, 9.0 + 3.0)

    def one(self, h, bits):
        return self.pool(F.relu(self.norm(h)) * bits)

    def pool(self, h):
        h = F.mean(h, axis=(2, 3))
        return self.output(F.dropout(h, self.dropout) if self.dropout else h)

    def forward(self, x, structures):
        bits = self.xp.asarray(structures, dtype=x.dtype)[:, None, :, None, None]
        h = self.conv(x)
        return [self.one(h, F.broadcast_to(own, h.shape)) for own in bits]


class Words(Units):
    """Numbers of words in the place of the inputs."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.words = L.EmbedID(20, 2)

    def forward(self, x, structures):
        return super().forward(F.reshape(self.words(x), (-1, 4)), structures)

    weight_ratio = compact = property()


def words(rng):
    return rng.integers(0, 20, (5, 2)).astype("i")


def rows(rng):
    return rng.normal(size=(5, 4)).astype("f")


def images(rng):
    return rng.normal(size=(5, 1, 4, 4)).astype("f")


def found(link, x, **options):
    return testing.check_searchable(link, x, raise_error=False, **options)


GOOD = {
    "units": (Units, rows),
    "channels": (Channels, images),
    "words": (Words, words),
    "MaskedMLP": (lambda: links.MaskedMLP(4, (5, 3), 3), rows),
    "inputs": (lambda: links.MaskedMLP(4, (5,), 3, select_inputs=True), rows),
    "PlainDenseNet": (lambda: links.PlainDenseNet(7, 2, 3, 2, 3, 1), images),
    "DenseNet": (lambda: links.DenseNet(10, 2, 2, 3, 3, 1), images),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_right_link_passes_and_stays_as_it_is(name, rng):
    make, data = GOOD[name]
    link, x = make(), data(rng)
    content = chainer.serializers.DictionarySerializer()
    content.save(link)
    before = {key: numpy.array(value) for key, value in content.target.items()}
    state = numpy.random.get_state()[1].copy()
    report = testing.check_searchable(link, x)
    assert report.ok
    assert {"costs", "outputs", "batching", "gradients", "bits"} <= {*report.passed}
    assert ("compact" in report.passed) == hasattr(link, "compact")
    after = chainer.serializers.DictionarySerializer()
    after.save(link)
    for key, value in before.items():
        numpy.testing.assert_array_equal(after.target[key], value, key)
    assert (numpy.random.get_state()[1] == state).all(), "a training's random numbers moved"


class NoCosts(Units):
    def __init__(self):
        super().__init__()
        del self.costs


class Costs(Units):
    def __init__(self, costs):
        super().__init__()
        self.costs = numpy.array(costs)
        self.groups = {}


class Groups(Units):
    def __init__(self, **groups):
        super().__init__()
        self.groups = groups


class ForgetsTheStructures(Units):
    def forward(self, x, structures):
        return self.output(self.act(self.hidden(x)) * structures[0].astype(x.dtype))


class BatchFirst(Units):
    def forward(self, x, structures):
        return list(F.transpose(super().forward(x, structures), (0, 2, 1)))


class Arrays(Units):
    def forward(self, x, structures):
        return super().forward(x, structures).array


class Writes(Units):
    def forward(self, x, structures):
        structures[:, 0] = True
        return super().forward(x, structures)


class Averages(Units):
    def forward(self, x, structures):
        h = mask_units(F.expand_dims(self.act(self.hidden(x)), 0), structures)
        with numpy.errstate(invalid="ignore"):
            count = structures.sum(axis=1).astype(x.dtype)[:, None, None]
            return self.output(h / F.broadcast_to(count, h.shape), n_batch_axes=2)


class NeedsNumbers(Units):
    def forward(self, x, structures):
        if structures.dtype == bool:
            raise TypeError("numpy boolean subtract is not supported")
        return super().forward(x, structures)


class Breaks(Units):
    def forward(self, x, structures):
        raise RuntimeError("out of order")


class NaNInTraining(Units):
    def act(self, h):
        return h * numpy.nan if chainer.config.train and len(h) else F.relu(h)


class Reversed(Units):
    def forward(self, x, structures):
        return super().forward(x, structures[::-1])


class DrawsInEvaluation(Channels):
    def pool(self, h):
        with chainer.using_config("train", True):
            return self.output(F.dropout(F.mean(h, axis=(2, 3))))


class NormalisesTheBatch(Channels):
    def forward(self, x, structures):
        bits = structures.astype(x.dtype)[:, None, :, None, None]
        h = F.expand_dims(self.conv(x), 0)
        h = F.broadcast_to(h, (len(bits), *h.shape[1:])) * F.broadcast_to(
            bits, (len(bits), *h.shape[1:])
        )
        y = F.relu(self.norm(F.reshape(h, (-1, *h.shape[2:]))))
        y = F.reshape(y, h.shape) * F.broadcast_to(bits, h.shape)
        return F.stack([self.pool(own) for own in y])


class Plain(Units):
    """The same without what it states beyond the two things that are needed."""

    weight_ratio = compact = property()


class CutsTheGraph(Plain):
    def act(self, h):
        return F.relu(h.array)


class StraightThrough(chainer.FunctionNode):
    """Masks the outputs, but not the gradients."""

    def __init__(self, structures):
        self.structures = structures

    def forward(self, inputs):
        return (inputs[0] * self.structures[:, None, :].astype(inputs[0].dtype),)

    def backward(self, indexes, grads):
        return (F.sum(grads[0], axis=0, keepdims=True),)


class LetsGradientsThrough(Plain):
    def forward(self, x, structures):
        h = F.expand_dims(self.act(self.hidden(x)), 0)
        return self.output(StraightThrough(structures).apply((h,))[0], n_batch_axes=2)


class MasksOnlyGradients(Plain):
    """The values of an absent unit remain; its gradient is cut."""

    def forward(self, x, structures):
        h = F.expand_dims(self.act(self.hidden(x)), 0)
        h = F.broadcast_to(h, (len(structures), *h.shape[1:]))
        keep = F.broadcast_to(structures.astype(x.dtype)[:, None, :], h.shape).array
        return self.output(h * keep + h.array * (1 - keep) * 0.5, n_batch_axes=2)


class IgnoresTheLast(Plain):
    def forward(self, x, structures):
        structures = structures.copy()
        structures[:, -1] = True
        return super().forward(x, structures)


class Weakens(Plain):
    def forward(self, x, structures):
        h = F.expand_dims(self.act(self.hidden(x)), 0)
        return self.output(mask_units(h, 0.5 + 0.5 * structures), n_batch_axes=2)


class LeaksTheBias(Plain):
    def forward(self, x, structures):
        h = F.expand_dims(F.matmul(x, self.hidden.W, transb=True), 0)
        h = F.bias(mask_units(h, structures), self.hidden.b, axis=2)
        return self.output(self.act(h), n_batch_axes=2)


class LeaksTheNormalisation(Channels):
    def one(self, h, bits):
        return self.pool(F.relu(self.norm(h * bits)))


class LeaksAConstant(Units):
    """Masked in front of an activation that is not zero at zero: sigmoid(0) goes on acting."""

    def forward(self, x, structures):
        h = mask_units(F.expand_dims(self.hidden(x), 0), structures)
        return self.output(F.sigmoid(h), n_batch_axes=2)

    compact = property()


class Ratio(Units):
    def __init__(self, ratio):
        super().__init__()
        self.ratio = ratio

    def weight_ratio(self, structure):
        return self.ratio(structure.mean())


class ForgetsTheBias(Units):
    def compact(self, structure):
        network = super().compact(structure)
        network.layers[1].b.array = numpy.zeros(3, "f")
        return network


class RefusesAll(Units):
    def compact(self, structure):
        raise ValueError("no")


class CostsOf(Units):
    def costs_of(self, criterion, x_shape):
        if criterion == "flops":
            raise ValueError("not known")
        return numpy.ones(5)


WRONG = {
    "no link": (object, "link", "derive it from chainer.Chain"),
    "no costs": (NoCosts, "costs", "has no costs"),
    "costs of two axes": (lambda: Costs(numpy.ones((2, 3))), "costs", r"shape \(2, 3\)"),
    "negative costs": (lambda: Costs([1, 1, -2, 1, -1, 1]), "costs", "bits 2 and 4 are negative"),
    "zero costs": (lambda: Costs(numpy.zeros(6)), "costs", "all zero"),
    "NaN costs": (lambda: Costs([1, 1, numpy.nan, 1, 1, 1]), "costs", "bit 2 are not finite"),
    "costs that are text": (lambda: Costs(list("abcdef")), "costs", "not an array of numbers"),
    "too few costs": (lambda: Costs(numpy.ones(4)), "outputs", "costs have 4 .* of 6 bits"),
    "too many costs": (lambda: Costs(numpy.ones(9)), "outputs", "costs have 9 .* of 6 bits"),
    "overlap": (
        lambda: Groups(a=slice(0, 4), b=slice(3, 6)),
        "groups",
        "'a' and 'b' overlap in bit 3",
    ),
    "gap": (lambda: Groups(a=slice(0, 2), b=slice(3, 6)), "groups", "bit 2 belong to no group"),
    "beyond": (lambda: Groups(a=slice(0, 7)), "groups", "none beyond"),
    "no slice": (lambda: Groups(a=[0, 1, 2]), "groups", "no dictionary from names to slices"),
    "no lambda": (ForgetsTheStructures, "outputs", "5 outputs for 1 structures"),
    "batch second": (BatchFirst, "outputs", "5 examples first"),
    "arrays": (Arrays, "outputs", "return variables"),
    "writes": (Writes, "outputs", "copy them first"),
    "nothing left": (Averages, "outputs", "not finite with 0 of 6 bits on"),
    "not bool": (NeedsNumbers, "outputs", "as float32, but not as bool"),
    "raises": (Breaks, "outputs", r"shape \(lambda, 6\): RuntimeError: out of order"),
    "reversed": (Reversed, "batching", "output i must be that of structure i"),
    "NaN": (NaNInTraining, "outputs", "not finite .* in training mode"),
    "random": (DrawsInEvaluation, "batching", "two calls in evaluation mode"),
    "one batch": (NormalisesTheBatch, "batching", "in training mode only: batch statistics"),
    "graph cut": (CutsTheGraph, "gradients", "gradient of /hidden/W, /hidden/b is not"),
    "straight through": (LetsGradientsThrough, "gradients", "gradient of /hidden/"),
    "values remain": (MasksOnlyGradients, "gradients", "gradient of /hidden/"),
    "idle bit": (IgnoresTheLast, "bits", "switching bit 5 changes no output"),
    "weak": (Weakens, "bits", "all parameters keep their influence"),
    "bias": (LeaksTheBias, "bits", "/hidden/b still acts"),
    "beta": (LeaksTheNormalisation, "bits", "/norm/beta still acts"),
    "constant": (LeaksAConstant, "weight_ratio", "absent parts leak"),
    "ratio of 2": (lambda: Ratio(lambda r: 2 * r), "weight_ratio", r"must lie in \[0, 1\]"),
    "falling": (lambda: Ratio(lambda r: 4 * (r - 0.5) ** 2), "weight_ratio", "must be monotone"),
    "never 1": (lambda: Ratio(lambda r: r / 2), "weight_ratio", "it must be 1"),
    "small ratio": (lambda: Ratio(lambda r: r**2), "weight_ratio", "does not count all weights"),
    "compact": (ForgetsTheBias, "compact", "differs by .* must compute the same"),
    "no compact": (RefusesAll, "compact", "refuses the full structure: no"),
    "costs_of": (CostsOf, "costs_of", r"costs_of\('weights', x_shape\) has 5 entries"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_link_gets_its_finding(name, rng):
    make, check, words = WRONG[name]
    link = make()
    x = images(rng) if isinstance(link, Channels) else rows(rng)
    with pytest.raises(testing.NotSearchable, match=words) as caught:
        testing.check_searchable(link, x)
    assert isinstance(caught.value, AssertionError)
    (finding,) = caught.value.report.findings
    assert finding.check == check
    assert "\n" not in finding.message


def test_all_findings_are_collected(rng):
    class Wrong(LeaksTheBias, IgnoresTheLast):
        def forward(self, x, structures):
            structures = structures.copy()
            structures[:, -1] = True
            return LeaksTheBias.forward(self, x, structures)

    link = Wrong()
    link.costs[3] = -1
    link.groups = {"a": slice(0, 4)}
    report = found(link, rows(rng))
    assert [finding.check for finding in report.findings] == ["costs", "groups", "bits", "bits"]
    text = str(report)
    assert text.startswith("Wrong is not searchable")
    assert all(f"wrong: {finding}" in text for finding in report.findings)
    assert repr(report) == "<Report of Wrong: 4 findings, 3 passed>"


def test_what_is_random_in_training_is_compared_in_evaluation(rng):
    report = found(Channels(dropout=0.5), images(rng))
    assert report.ok
    assert "training mode draws random numbers" in str(report)


def test_a_link_that_insists_on_float32_is_checked_without_numerical_gradients(rng):
    class Single(Units):
        def forward(self, x, structures):
            if x.dtype != numpy.float32:
                raise TypeError("float32 only")
            return super().forward(x, structures)

    report = found(Single(), rows(rng))
    assert report.ok
    assert "numerical gradients are left out" in str(report)
    report = found(type("Leak", (Single, LeaksTheBias), {})(), rows(rng))
    assert [finding.check for finding in report.findings] == ["bits"]

    class Cut(Single, MasksOnlyGradients):
        pass

    report = found(Cut(), rows(rng))
    (finding,) = report.findings
    assert "mask the values, not the gradients alone" in finding.message


def test_what_raises_in_training_alone_is_a_finding(rng):
    class Raises(Units):
        def forward(self, x, structures):
            if chainer.config.train:
                raise RuntimeError("only when it trains")
            return super().forward(x, structures)

    report = found(Raises(), rows(rng))
    (finding,) = report.findings
    assert str(finding) == "outputs: the link raises RuntimeError: only when it trains"


def test_many_bits_are_sampled_and_checks_skipped(rng):
    link = links.MaskedMLP(4, (30, 20), 3)
    report = found(link, rows(rng), bits=10, skip=("compact",))
    assert report.ok
    assert "compact" not in report.passed
    assert "10 of the 50 bits were switched one by one" in str(report)
    assert "bits" not in found(IgnoresTheLast(), rows(rng), skip=("bits",)).passed


def test_arguments_are_checked(rng):
    with pytest.raises(ValueError, match="not nonsense"):
        testing.check_searchable(Units(), rows(rng), skip=("nonsense",))
    with pytest.raises(ValueError, match="at least 1 example"):
        testing.check_searchable(Units(), rows(rng)[:0])


@pytest.mark.gpu
def test_a_link_that_stays_on_the_cpu_is_found_out_on_a_gpu(rng):
    class OnCpu(Units):
        def forward(self, x, structures):
            bits = numpy.array([[bool(bit) for bit in s] for s in structures])
            return super().forward(x, bits)

    assert "device" in found(Units(), rows(rng)).passed
    (finding,) = found(OnCpu(), rows(rng)).findings
    assert finding.check == "device"


def test_the_example_of_the_contract_is_searchable(rng):
    code = links.__doc__.split("in short::\n")[1]
    names = {"chainer": chainer, "numpy": numpy}
    exec(textwrap.dedent(code), names)
    testing.check_searchable(names["Gated"](), rng.random((3, 784)).astype("f"), bits=5)
