import json

import numpy
import pytest

from chainer_sno import chainer, compact, links, load_compact, save_compact
from chainer_sno.files import read_npz, write_npz
from tests.chainer_sno.networks import NETWORKS as NETWORKS_OF_ONES_OWN
from tests.chainer_sno.networks import SHAPE
from tests.chainer_sno.test_compact import make_dense_net, structure_of
from tests.chainer_sno.test_select import make

NETWORKS = ("mlp", "inputs", "dropout", "dense_net")


def make_network(name, rng):
    """Return a plain network with an input for it."""
    if name == "dense_net":
        network = make_dense_net(rng)
        structure = structure_of(*[[[], [0, 1], [0], [0, 1, 2, 3]]] * 3)
        return compact(network, structure), rng.standard_normal((2, 3, 8, 8))
    if name == "dropout":
        network = links.MLP(6, (5, 4), 3, dropout_ratio=0.3, seed=5)
    else:
        activation = chainer.functions.tanh if name == "mlp" else chainer.functions.relu
        network = links.MaskedMLP(6, (5, 4), 3, name == "inputs", activation)
    for parameter in network.params():
        parameter.array[...] = rng.standard_normal(parameter.shape)
    if name != "dropout":
        structure = numpy.arange(len(network.costs)) % 3 > 0
        network = compact(network, structure)
    return network, rng.standard_normal((4, 6))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_to_the_last_bit(name, dtype, rng, tmp_path):
    network, x = make_network(name, rng)
    x = x.astype(dtype)
    network(x)  # moves on the random numbers of Dropout and the statistics of BN
    path = tmp_path / "network.npz"
    save_compact(path, network)
    with chainer.using_config("dtype", numpy.float32):
        found = load_compact(path)
    assert type(found) is type(network)
    assert found.geometry == network.geometry
    for train in (True, False):
        with chainer.using_config("train", train):
            y = found(x).array
            assert y.dtype == dtype
            numpy.testing.assert_array_equal(y, network(x).array)
    save_compact(tmp_path / "again.npz", load_compact(path))
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_chainers_serializers_load_into_a_fresh_one_of_the_geometry(name, rng, tmp_path):
    network, x = make_network(name, rng)
    fresh = type(network)(**json.loads(json.dumps(network.geometry)))
    chainer.serializers.save_npz(tmp_path / "weights.npz", network)
    chainer.serializers.load_npz(tmp_path / "weights.npz", fresh)
    with chainer.using_config("train", False):
        x = x.astype("f")
        numpy.testing.assert_array_equal(fresh(x).array, network(x).array)


def test_what_no_file_can_hold_is_refused(rng, tmp_path):
    path = tmp_path / "network.npz"
    with pytest.raises(TypeError, match="MaskedMLP is searchable, no plain network: compact it"):
        save_compact(path, links.MaskedMLP(3, (2,), 2))
    with pytest.raises(ValueError, match="cannot be saved: give one of relu, tanh"):
        save_compact(path, links.MLP(3, (2,), 2, activation=lambda x: x))
    assert not path.exists()


def change(path, **values):
    """Change the description of a network's file, or its arrays."""
    arrays = read_npz(path)
    description = json.loads(str(arrays["description"]))
    for name, value in values.items():
        if name in description:
            description[name] = value
        elif name in description["geometry"]:
            description["geometry"][name] = value
        elif value is None:
            del arrays[name.replace("__", "/")]
        else:
            arrays[name.replace("__", "/")] = value
    write_npz(path, {**arrays, "description": json.dumps(description)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "the file has format 2, and this version reads format 1"),
        ({"kind": "eval"}, "eval"),
        ({"dtype": "float99"}, "float99"),
        ({"dtype": "float64"}, "is float32 of shape"),
        ({"geometry": {}}, "missing"),
        ({"geometry": []}, "mapping"),
        ({"in_size": "4"}, "must be a positive integer"),
        ({"hidden_sizes": [1, 1]}, "of shape"),
        ({"hidden_sizes": None}, "NoneType"),
        ({"activation": "forget"}, "activation must be one of relu.*, not 'forget'"),
        ({"inputs": [0, 1]}, "inputs must be the numbers of 4 of the 6 columns"),
        ({"inputs": [0, 1, 2, 6]}, "inputs must be the numbers of 4 of the 6 columns"),
        ({"layers__0__b": None}, "layers/0/b is missing"),
        ({"layers__0__b": numpy.zeros(1, "f")}, r"layers/0/b is float32 of shape \(1,\)"),
        ({"layers__9__b": numpy.zeros(3, "f")}, "layers/9/b is unknown to the network"),
    ],
)
def test_a_file_that_holds_something_else_is_named_in_one_line(changes, message, rng, tmp_path):
    path = tmp_path / "network.npz"
    save_compact(path, make_network("inputs", rng)[0])
    load_compact(path)
    change(path, **changes)
    with pytest.raises(ValueError, match="is not the file of a compact network") as caught:
        load_compact(path)
    assert caught.match(message)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(rng, tmp_path):
    path = tmp_path / "network.npz"
    save_compact(path, make_network("dense_net", rng)[0])
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", b"{}", whole[: len(whole) // 2], whole[:-1], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not the file of a compact network"):
            load_compact(path)
    write_npz(path, {"a": numpy.arange(3)})
    with pytest.raises(ValueError, match="description"):
        load_compact(path)
    with pytest.raises(FileNotFoundError):
        load_compact(tmp_path / "nowhere.npz")


def test_a_failed_save_leaves_the_file_that_was_there(rng, tmp_path, monkeypatch):
    path = tmp_path / "network.npz"
    save_compact(path, make_network("mlp", rng)[0])
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_compact(path, make_network("inputs", rng)[0])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NETWORKS_OF_ONES_OWN)
def test_a_network_of_ones_own_comes_back_into_its_class(name, rng, tmp_path):
    kind, _ = NETWORKS_OF_ONES_OWN[name]
    link = make(name, rng)
    structure = rng.random(link.d) < 0.6
    for group in link.groups.values():
        structure[group.start] = True
    small = compact(link, structure, reestimate=0)
    x = rng.standard_normal((3, *SHAPE)).astype("f")
    path = tmp_path / "network.npz"
    save_compact(path, small)
    whole = kind()  # its parameters may wait for a first call
    for network in (whole, link.network):
        before = [None if p.array is None else p.array.copy() for p in network.params()]
        found = load_compact(path, network)
        with chainer.using_config("train", False):
            numpy.testing.assert_array_equal(found(x).array, small(x).array)
        for old, parameter in zip(before, network.params()):
            assert old is None or numpy.array_equal(old, parameter.array)
        assert found.x_shape == SHAPE
        assert [str(child) for child in found.links()] == [str(child) for child in small.links()]
    save_compact(tmp_path / "again.npz", found)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    chainer.optimizers.SGD().setup(found).update(lambda: chainer.functions.sum(found(x)))


def test_a_network_of_ones_own_needs_its_class(rng, tmp_path):
    path = tmp_path / "network.npz"
    link = make("lenet", rng)
    save_compact(path, link.network)
    lenet, vgg = (NETWORKS_OF_ONES_OWN[name][0]() for name in ("lenet", "vgg"))
    with pytest.raises(TypeError, match="holds a LeNet5, whose class no file holds: give a LeNet5"):
        load_compact(path)
    with pytest.raises(ValueError, match="of the class LeNet5, and the network given is a VGG"):
        load_compact(path, vgg)
    del lenet.conv1.b
    with pytest.raises(ValueError, match="conv1/b is one too many"):
        load_compact(path, lenet)
    with pytest.raises(ValueError, match="has no values yet: call the network once"):
        save_compact(tmp_path / "x", vgg)
    with pytest.raises(TypeError, match="SelectedNetwork is searchable"):
        save_compact(tmp_path / "x", link)
    save_compact(path, links.MLP(3, (2,), 2))
    with pytest.raises(TypeError, match="holds a MLP, which needs no network"):
        load_compact(path, lenet)
    with chainer.using_config("dtype", numpy.float64):
        double = make("lenet").network
    save_compact(path, double)
    with pytest.raises(ValueError, match="conv1/W is float64 of 4 axes, not float32 of 4"):
        load_compact(path, link.network)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is not the file of a compact network"):
        load_compact(path, link.network)
