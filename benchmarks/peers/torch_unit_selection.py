"""Section 4.1's iteration in PyTorch, the structures batched; one thread, or on a GPU."""

import argparse
import json
import statistics

import torch
from timing import times_of
from torch.nn import functional

LAMBDA, BATCH, WIDTHS = 2, 32, (784, 784, 784, 784, 10)
D, EPSILON = 3 * 784, 2.0**-7


def main():
    """Time iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile, with CUDA graphs")
    arguments = parser.parse_args()
    iterations, device = arguments.iterations, torch.device(arguments.device)
    torch.set_num_threads(1)
    torch.set_default_device(device)
    layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in zip(WIDTHS, WIDTHS[1:]))
    optimizer = torch.optim.SGD(layers.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)
    theta = torch.full((D,), 0.5)
    x, t = torch.rand(60000, 784), torch.randint(0, 10, (60000,))

    def losses_of(x, t, structures):
        masks = structures.view(LAMBDA, 1, 3, 784)
        # The first layer is the same for all structures, as in ours.
        h = functional.relu(layers[0](x)).unsqueeze(0) * masks[:, :, 0]
        for k in (1, 2):
            h = functional.relu(layers[k](h)) * masks[:, :, k]
        y = layers[3](h).reshape(LAMBDA * BATCH, 10)
        losses = functional.cross_entropy(y, t.repeat(LAMBDA), reduction="none")
        return losses.view(LAMBDA, BATCH).mean(1)

    if arguments.compile:
        losses_of = torch.compile(losses_of, mode="reduce-overhead")

    def iterate():
        index = torch.randint(0, len(x), (BATCH,))
        structures = (torch.rand(LAMBDA, D) < theta).float()
        losses = losses_of(x[index], t[index], structures)
        optimizer.zero_grad()
        losses.mean().backward()
        with torch.no_grad():
            utilities = torch.where(losses == losses.min(), 1.0, -1.0)
            step = (utilities[:, None] * (structures - theta)).mean(0)
            step -= EPSILON * theta * (1 - theta)
            theta.add_(step / D).clamp_(1 / D, 1 - 1 / D)
        optimizer.step()

    times = times_of(iterate, iterations, 20, device)
    case = f"PyTorch {torch.__version__}{', compiled' * arguments.compile}"
    print(json.dumps({"case": case, "ms": 1e3 * statistics.median(times)}))


main()
