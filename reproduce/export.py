"""The trained network of a record as a small plain network for other programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import threadpoolctl

import chainer_sno
from chainer_sno import chainer
from chainer_sno.files import DAMAGE, read_npz, says_nothing_of_the_file
from chainer_sno.saving import load_arrays, load_compact
from reproduce import ROOT, ReproduceError, experiments, record
from reproduce._types import Array, Record, Say, StrPath
from reproduce.compare import format_table
from reproduce.settings import Settings
from reproduce.training import make_bernoulli

#: Compact networks of committed records, by the names of the records.
NETWORKS = ROOT / "results" / "networks"
#: The ending and the writer of each format.
FORMATS = {"chainer": (".npz", chainer_sno.save_compact), "onnx": (".onnx", chainer_sno.save_onnx)}


def export(path: StrPath, format: str, out: StrPath | None = None, say: Say = print) -> None:
    """Write the trained network of a record; print its size and time beside the full network's.

    Args:
        path (str or pathlib.Path): the record of a finished run.
        format (str): ``chainer``, for :func:`chainer_sno.load_compact`, or ``onnx``.
        out (str or pathlib.Path): the file; by default the record's name, in this directory.
        say (callable): takes a line for the user.

    Raises:
        ReproduceError: there is no such record, no weights of it or damaged ones, nothing that
            remains of the network, no package for the format, or no way to write the file.
    """
    finished = record.read(path)
    settings = experiments.from_dict(finished["settings"])
    takes = experiments.of(settings).input_words(settings)
    network = trained_network(finished, Path(path).parent)
    ending, save = FORMATS[format]
    out = Path(out or finished["name"] + ending)
    try:
        save(out, network)
    except ImportError as error:
        raise ReproduceError(str(error)) from error
    except OSError as error:
        raise ReproduceError(
            f"cannot write {str(out)!r} ({error.strerror or error}): name another --out"
        ) from error
    result = finished["result"]
    say(f"{out}: {finished['name']}, test error {result['test_error']:.2%}")
    say(f"It takes {takes}; it gives what is before the softmax.\n")
    say("\n".join(_compared(network, settings)))


def trained_network(finished: Record, directory: Path) -> Any:
    """Return the trained network of a record, with only the parts that its structure keeps.

    Args:
        finished (dict): the record.
        directory (pathlib.Path): where the record lies, and the directory of its run.

    Returns:
        chainer.Link: a plain network, on the CPU: from the weights that the run left, or else
        from those in ``results/networks``.

    Raises:
        ReproduceError: there are no weights, or they are damaged or another run's; or no path
            leads through the network.
    """
    name, result = finished["name"], finished["result"]
    settings = experiments.from_dict(finished["settings"])
    experiment = experiments.of(settings)
    if result.get("dead", 0 in experiment.sizes(result)):
        raise ReproduceError(
            f"{name} cannot be exported: no path leads through its structure from the inputs to "
            "the outputs, so nothing remains of the network"
        )
    model, kept = directory / name / "model.npz", NETWORKS / f"{name}.npz"
    source = model if model.exists() else kept
    try:
        network = _of_run(read_npz(model), settings) if source == model else load_compact(kept)
        if network.geometry != experiment.training.of_result(settings, result).geometry:
            raise ValueError("its structure is not the record's")
    except FileNotFoundError as error:
        raise ReproduceError(
            f"the weights of {name} are neither in {str(model)!r} nor in {str(kept)!r}: train it "
            "again, or copy the directory of its run beside the record"
        ) from error
    except DAMAGE as error:
        if says_nothing_of_the_file(error):
            raise ReproduceError(
                f"{str(source)!r} cannot be read ({error.strerror or error}): make it readable"
            ) from error
        reason = " ".join(str(error).split())
        raise ReproduceError(
            f"{str(source)!r} is damaged or belongs to another run ({reason}): train the run again"
        ) from error
    return network


def _of_run(arrays: Mapping[str, Array], settings: Settings) -> Any:
    """Return the plain network of the arrays that a run has left."""

    def part(name: str) -> dict[str, Array]:
        return {key[len(name) :]: a for key, a in arrays.items() if key.startswith(name)}

    link = experiments.of(settings).training.trained(settings)
    load_arrays(link, part("link/"))
    if settings.method == "sno":
        bernoulli = make_bernoulli(settings, link)
        load_arrays(bernoulli, part("bernoulli/"))
        return chainer_sno.compact(link, bernoulli.mode())
    return chainer_sno.compact(link) if hasattr(link, "compact") else link


def _short(number: float) -> str:
    """Return a number of three digits, or of all before the point."""
    return f"{number:#.3g}" if number < 100 else f"{number:,.0f}"


def _compared(network: Any, settings: Settings) -> list[str]:
    """Return lines that compare the size and the time of a network with those of the full one."""
    full = experiments.of(settings).training.full(settings)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        described = [chainer_sno.describe(each, settings.data.shape) for each in (network, full)]
    rows = []
    counted = {"weights": "weights", "parameters": "parameters", "flops": "operations a sample"}
    for name, label in counted.items():
        mine, full = (each[name] for each in described)
        rows.append((label, f"{mine:,}", f"{full:,}", f"{mine / full:.1%}"))
    for batch, mine in described[0]["milliseconds"].items():
        full = described[1]["milliseconds"][batch]
        label = f"ms for {batch} sample{'s' * (batch > 1)}"
        rows.append((label, _short(mine), _short(full), f"{mine / full:.1%}"))
    processor = record.machine(chainer.get_device("@numpy"))["processor"]
    return [
        *format_table(("", "this network", "full network", ""), rows).split("\n"),
        "",
        "Weights and operations are counted.  Milliseconds are the median forward pass in Chainer,",
        f"one thread of BLAS, on this machine ({processor})",
        "as busy as it was just now; another machine's are others.",
    ]
