import numpy
import pytest

from chainer_sno import compact, links

from chainer_sno._import_chainer import chainer  # isort: skip
from chainer import gradient_check  # isort: skip  (after the import with help)
from chainer_sno.functions import mask_units
from tests.conftest import make_structures

WIDTHS = (6, 5, 7, 4, 3)


def deleted_network(link, structure, x, gy):
    """Outputs and gradients of the network whose units are deleted, in plain NumPy.

    A deleted unit is gone with the weights to and from it; in the gradients those are zero.
    """
    layers = [layer.linear for layer in link.hidden] + [link.output]
    kept = [numpy.flatnonzero(structure[group]) for group in link.groups.values()]
    if not link.select_inputs:
        kept.insert(0, numpy.arange(x.shape[1]))
    kept.append(numpy.arange(gy.shape[1]))
    small = [
        (layer.W.array[numpy.ix_(rows, columns)], layer.b.array[rows])
        for layer, columns, rows in zip(layers, kept, kept[1:])
    ]
    inputs = [x[:, kept[0]]]
    for W, b in small[:-1]:
        inputs.append(numpy.maximum(inputs[-1] @ W.T + b, 0))
    y = inputs[-1] @ small[-1][0].T + small[-1][1]
    gradients = []
    g = gy
    for i in reversed(range(len(layers))):
        gW = numpy.zeros_like(layers[i].W.array)
        gb = numpy.zeros_like(layers[i].b.array)
        gW[numpy.ix_(kept[i + 1], kept[i])] = g.T @ inputs[i]
        gb[kept[i + 1]] = g.sum(axis=0)
        gradients[:0] = [gW, gb]
        g = (g @ small[i][0]) * (inputs[i] > 0) if i else g @ small[i][0]
    gx = numpy.zeros_like(x)
    gx[:, kept[0]] = g
    return y, gradients, gx


def parameters(link):
    layers = [layer.linear for layer in link.hidden] + [link.output]
    return [parameter for layer in layers for parameter in (layer.W, layer.b)]


def make_link(rng, select_inputs=False, widths=WIDTHS, activation=chainer.functions.relu):
    link = links.MaskedMLP(widths[0], widths[1:-1], widths[-1], select_inputs, activation)
    for parameter in parameters(link):
        parameter.array[...] = rng.normal(size=parameter.shape)
    return link


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
@pytest.mark.parametrize("select_inputs", [False, True])
def test_is_the_network_with_the_units_deleted(samples, kind, select_inputs, dtype, rng):
    link = make_link(rng, select_inputs)
    x = chainer.Variable(rng.normal(size=(8, WIDTHS[0])).astype(dtype))
    gy = rng.normal(size=(samples, 8, WIDTHS[-1])).astype(dtype)
    structures = make_structures(kind, samples, len(link.costs), rng)
    y = link(x, structures)
    assert y.shape == gy.shape
    assert y.dtype == dtype
    link.cleargrads()
    y.grad = gy
    y.backward()
    found = [parameter.grad for parameter in parameters(link)]
    expected = [deleted_network(link, m, x.array, g) for m, g in zip(structures, gy)]
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    for i, (y_i, _, _) in enumerate(expected):
        numpy.testing.assert_allclose(y.array[i], y_i, rtol=tolerance, atol=tolerance)
    for n, gradient in enumerate(found):
        total = sum(gradients[n] for _, gradients, _ in expected)
        numpy.testing.assert_allclose(gradient, total, rtol=tolerance, atol=tolerance)
    total = sum(gx for _, _, gx in expected)
    numpy.testing.assert_allclose(x.grad, total, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("widths", [(4, 3, 2), (4, 3, 5, 2), (3, 1, 1, 1, 2)])
def test_any_depth(widths, rng):
    with chainer.using_config("dtype", numpy.float64):
        link = make_link(rng, widths=widths)
    x = rng.normal(size=(5, widths[0]))
    structures = make_structures("random", 2, sum(widths[1:-1]), rng)
    y = link(x, structures)
    gy = numpy.zeros((5, widths[-1]))
    for y_i, m in zip(y.array, structures):
        numpy.testing.assert_allclose(y_i, deleted_network(link, m, x, gy)[0], rtol=1e-10)


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_gradient_check(samples, kind, rng):
    # A smooth activation: finite differences across the kink of a ReLU are no gradient.
    with chainer.using_config("dtype", numpy.float64):
        link = make_link(rng, activation=chainer.functions.tanh)
    structures = make_structures(kind, samples, len(link.costs), rng)
    x = rng.normal(size=(4, WIDTHS[0]))
    gy = rng.normal(size=(samples, 4, WIDTHS[-1]))
    gradient_check.check_backward(
        lambda x: link(x, structures), x, gy, parameters(link), dtype="d", atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("shared", [1, 3])
def test_gradient_check_of_mask_units(shared, rng):
    structures = make_structures("random", 3, 5, rng)
    h = rng.normal(size=(shared, 4, 5))
    gy = rng.normal(size=(3, 4, 5))

    def function(h):
        return mask_units(h, structures)

    gradient_check.check_backward(function, h, gy, dtype="d")
    gradient_check.check_double_backward(
        lambda h: function(h) ** 2, h, gy, rng.normal(size=h.shape), dtype="d", atol=1e-4
    )


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (3, 4, 6)])
def test_mask_units_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="must have the shape"):
        mask_units(numpy.zeros(shape), numpy.ones((3, 5)))


def test_costs_groups_and_ratios():
    link = links.MaskedMLP(784, (784, 784, 784), 10)
    assert len(link.costs) == 2352
    assert (link.costs == 1).all()
    assert list(link.groups) == ["hidden_1", "hidden_2", "hidden_3"]
    # Table 1's units, and the weight ratios of reading R1.
    for units, percent in [
        ((92, 31, 24), 4.1),
        ((340, 141, 126), 18.0),
        ((599, 380, 379), 45.6),
        ((704, 544, 567), 67.4),
        ((770, 717, 724), 90.8),
        ((784, 784, 784), 100.0),
    ]:
        structure = numpy.concatenate([numpy.arange(784) < n for n in units])
        assert link.kept_widths(structure) == (784, *units, 10)
        assert round(100 * link.weight_ratio(structure), 1) == percent


def test_inputs_under_selection_come_first():
    link = links.MaskedMLP(6, (5, 4), 3, select_inputs=True)
    assert list(link.groups.values()) == [slice(0, 6), slice(6, 11), slice(11, 15)]
    assert link.kept_widths(numpy.arange(15) < 8) == (6, 2, 0, 3)


def test_is_initialised_by_he():
    link = links.MaskedMLP(784, (784,), 10)
    W, b = parameters(link)[:2]
    assert abs(W.array.std() / numpy.sqrt(2 / 784) - 1) < 0.01
    assert (b.array == 0).all()


@pytest.mark.parametrize("hidden_sizes", [(), (0,), (3, -1), (2.5,)])
def test_bad_widths_are_named(hidden_sizes):
    with pytest.raises(ValueError, match="width|hidden_sizes"):
        links.MaskedMLP(4, hidden_sizes, 2)


def test_bad_structures_are_named(rng):
    link = make_link(rng)
    x = numpy.zeros((2, WIDTHS[0]), dtype="f")
    with pytest.raises(ValueError, match="structures must have the shape"):
        link(x, numpy.ones((2, 3), dtype=bool))


@pytest.mark.parametrize("select_inputs", [False, True])
def test_compact_computes_the_same(select_inputs, dtype, rng):
    link = make_link(rng, select_inputs)
    x = rng.normal(size=(8, WIDTHS[0])).astype(dtype)
    structure = make_structures("random", 1, len(link.costs), rng)[0]
    structure[[0, 6, 12, -1]] = True
    small = compact(link, structure)
    y = small(x)
    assert y.dtype == dtype
    assert small.widths == link.kept_widths(structure)
    expected = link(x, structure[None]).array[0]
    numpy.testing.assert_allclose(y.array, expected, rtol=1e-4, atol=1e-5)


def test_compact_refuses_a_dead_layer(rng):
    link = make_link(rng)
    structure = numpy.ones(len(link.costs), dtype=bool)
    structure[link.groups["hidden_2"]] = False
    with pytest.raises(ValueError, match="keeps no unit"):
        compact(link, structure)


@pytest.mark.gpu
def test_gpu_computes_the_same(rng):
    link = make_link(rng)
    x = rng.normal(size=(8, WIDTHS[0])).astype("f")
    structures = make_structures("random", 2, len(link.costs), rng)
    expected = link(x, structures).array
    link.to_device("@cupy:0")
    cupy = chainer.backends.cuda.cupy
    found = link(cupy.asarray(x), cupy.asarray(structures)).array
    numpy.testing.assert_allclose(found.get(), expected, rtol=1e-4, atol=1e-4)
