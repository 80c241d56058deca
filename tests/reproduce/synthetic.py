"""Records with invented numbers, whole in form, for tests of what is made of records."""

import numpy

from reproduce import record, structures
from reproduce.experiments import from_dict
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UnitSelection
from reproduce.settings import parse_epsilon0


def whole(settings, result, log, epoch_seconds, processor, path="fast"):
    """Return a record of its parts, in the form that a run leaves."""
    assert from_dict(settings.as_dict()) == settings
    epoch_seconds = [float(seconds) for seconds in epoch_seconds]
    return {
        "schema": record.SCHEMA,
        "name": settings.name,
        "schedule": "paper" if settings.is_paper_schedule else "not the paper's",
        "changes": settings.changes(),
        "settings": settings.as_dict(),
        "result": {**result, "iterations": settings.iterations()},
        "versions": {"python": "3.11.7", "chainer_sno": "0.1.0", "numpy": "2.4.6", "path": path},
        "machine": {"processor": processor, "cores": 2, "device": "@numpy"},
        "times": {
            "finished": "2026-11-24T12:00:00+00:00",
            "seconds": epoch_seconds[-1],
            "seconds_per_iteration": epoch_seconds[-1] / settings.iterations(),
            "epoch_seconds": epoch_seconds,
        },
        "log": log,
    }


def _record(settings, result, seconds, processor, groups):
    """Return a record of settings with a log that ends at the result."""
    result = {"test_loss": 0.1, "weights": 1000, **result}
    epochs = settings.epochs
    steps = numpy.linspace(0, 1, epochs)
    log = {
        "epoch": list(range(1, epochs + 1)),
        "iteration": [100 * epoch for epoch in range(1, epochs + 1)],
        "main/loss": numpy.linspace(1, 0.1, epochs).tolist(),
        "validation/main/error": (0.5 + (result["test_error"] - 0.5) * steps).tolist(),
        "validation/main/loss": numpy.linspace(1, 0.1, epochs).tolist(),
    }
    if settings.method == "sno":
        log["structure/usage_rate"] = (0.5 + (result["usage_rate"] - 0.5) * steps).tolist()
        log["structure/weight_ratio"] = (0.5 + (result["weight_ratio"] - 0.5) * steps).tolist()
        log["theta/mean"] = log["structure/usage_rate"]
        for name, (start, end) in groups.items():
            log[f"structure/{name}"] = (
                numpy.rint(start + (end - start) * steps).astype(int).tolist()
            )
        for i in range(20):
            log[f"theta/bin_{i:02}"] = [settings.bits // 20] * epochs
    return whole(
        settings, result, log, numpy.linspace(seconds / epochs, seconds, epochs), processor
    )


def unit(error=0.02, units=(10, 8, 6), seconds=100.0, processor="A processor", **values):
    """Return a record of section 4.1; epsilon0 may be a text such as ``2^-7``."""
    if isinstance(values.get("epsilon0"), str):
        values["epsilon0"] = parse_epsilon0(values["epsilon0"])
    settings = UnitSelection(**values)
    if settings.method != "sno":
        units = settings.widths
    result = {
        "test_error": error,
        "units": list(units),
        "usage_rate": sum(units) / settings.bits,
        "weight_ratio": 0.1,
    }
    groups = {f"hidden_{i}": (settings.units // 2, n) for i, n in enumerate(units, 1)}
    return _record(settings, result, seconds, processor, groups)


def connection(
    error=0.1, connections=(57, 39, 67), seconds=100.0, processor="A processor", wide=(), **values
):
    """Return a record of section 4.2, the first so many bits of each block on.

    In the blocks whose numbers are in ``wide``, the layers take the block's input alone.
    """
    if isinstance(values.get("epsilon0"), str):
        values["epsilon0"] = parse_epsilon0(values["epsilon0"])
    settings = ConnectionSelection(**values)
    consumers = settings.block_layers + 1
    size = consumers * (consumers + 1) // 2
    bits = []
    for block, count in enumerate(connections):
        if block in wide:
            matrix = numpy.zeros((consumers, consumers), bool)
            matrix[:, 0] = True
            matrix[-1] = True
            block_bits = [bool(matrix[i, j]) for i in range(consumers) for j in range(i + 1)]
        else:
            block_bits = [i < count for i in range(size)]
        bits += block_bits
    counts = [sum(bits[i * size : (i + 1) * size]) for i in range(len(connections))]
    depth = structures.depth(bits, settings.BLOCKS, settings.block_layers)
    result = {
        "test_error": error,
        "connections": counts,
        "usage_rate": sum(counts) / settings.bits,
        "weight_ratio": sum(counts) / settings.bits,
        "depth": depth,
        "dead": depth is None,
        "structure": "".join("01"[bit] for bit in bits),
    }
    groups = {f"block_{i}": (size // 2, n) for i, n in enumerate(counts, 1)}
    return _record(settings, result, seconds, processor, groups)


def noise(name, *_):
    """Return images and labels at random, in the place of :func:`reproduce.data.load`."""
    rng = numpy.random.default_rng(0)
    shape = (3, 32, 32) if name == "cifar10" else (784,)
    images = rng.integers(0, 256, (640, *shape), dtype=numpy.uint8)
    return 2 * [(images, rng.integers(0, 10, 640).astype("i"))]


def empty_files(figure, path):
    """Return empty files for a figure, in the place of :func:`reproduce.figures.save`."""
    files = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "svg")]
    for file in files:
        file.touch()
    return files
