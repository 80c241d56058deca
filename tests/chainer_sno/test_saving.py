import json

import numpy
import pytest

from chainer_sno import compact, links, load_compact, save_compact
from chainer_sno._import_chainer import chainer
from chainer_sno.files import read_npz, write_npz
from tests.chainer_sno.test_compact import make_dense_net, structure_of

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
    with pytest.raises(TypeError, match="one of MLP, CompactDenseNet, not MaskedMLP: compact it"):
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
