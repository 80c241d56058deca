"""How the peers in PyTorch are timed, on a CPU or on a GPU."""

import time

import torch


def times_of(iterate, iterations, warmup, device):
    """Return seconds of an iteration: of each, or on a GPU the means of ten parts.

    Args:
        iterate (callable): does one iteration.
        iterations (int): timed.
        warmup (int): before them.
        device (torch.device): where.

    Returns:
        list of float: seconds.
    """
    for _ in range(warmup):
        iterate()
    gpu = device.type == "cuda"
    count = max(1, iterations // 10) if gpu else 1
    times = []
    for _ in range(10 if gpu else iterations):
        if gpu:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            iterate()
        if gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / count)
    return times
