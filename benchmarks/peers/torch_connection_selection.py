"""Section 4.2's iteration in PyTorch, channels last, a pass a structure; one thread, or a GPU."""

import argparse
import json
import resource
import statistics

import torch
from timing import times_of
from torch import nn
from torch.nn import functional

LAMBDA, BATCH, BLOCKS, LAYERS, GROWTH = 2, 32, 3, 12, 12


class DenseNet(nn.Module):
    """The network, absent connections masked after BN and ReLU."""

    def __init__(self):
        super().__init__()
        channels = 16
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        # The bit of each channel of each consumer.
        self.bits, bit = [], 0
        for block in range(BLOCKS):
            for layer in range(LAYERS + 1):
                inputs = [0] * (channels - layer * GROWTH)
                inputs += [i for i in range(1, layer + 1) for _ in range(GROWTH)]
                self.bits.append(bit + torch.tensor(inputs))
                bit += layer + 1
                if layer == LAYERS:
                    break
                self.norms.append(nn.BatchNorm2d(channels))
                self.convs.append(nn.Conv2d(channels, GROWTH, 3, padding=1, bias=False))
                channels += GROWTH
            self.norms.append(nn.BatchNorm2d(channels))
            if block + 1 < BLOCKS:
                self.convs.append(nn.Conv2d(channels, channels, 1, bias=False))
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x, structure):
        """Return the outputs of one structure."""
        norms, convs, bits = iter(self.norms), iter(self.convs), iter(self.bits)
        x = self.stem(x)
        for block in range(BLOCKS):
            features = [x]
            for layer in range(LAYERS + 1):
                mask = structure[next(bits)][None, :, None, None]
                h = functional.relu(next(norms)(torch.cat(features, 1))) * mask
                if layer < LAYERS:
                    features.append(next(convs)(h))
            last = block + 1 == BLOCKS
            x = h.mean((2, 3)) if last else functional.avg_pool2d(next(convs)(h), 2)
        return self.classifier(x)


def main():
    """Time iterations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--evaluate", action="store_true", help="1,000 images at 40%% usage")
    parser.add_argument("--compile", action="store_true", help="torch.compile, with CUDA graphs")
    arguments = parser.parse_args()
    iterations, device = arguments.iterations, torch.device(arguments.device)
    torch.set_num_threads(1)
    torch.set_default_device(device)
    net = DenseNet().train().to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    t = torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True)
    forward = torch.compile(net, mode="reduce-overhead") if arguments.compile else net

    def iterate():
        structures = (torch.rand(LAMBDA, 273) < 0.5).float()
        optimizer.zero_grad()
        losses = [functional.cross_entropy(forward(x, m), t) for m in structures]
        (sum(losses) / LAMBDA).backward()
        optimizer.step()

    def evaluate():
        with torch.no_grad():
            for images in test.split(100):
                forward(images, structure).argmax(1)

    if arguments.evaluate:
        net.eval()
        test = torch.randn(1000, 3, 32, 32).to(memory_format=torch.channels_last)
        # The weights that are masked are multiplied all the same, so which they are is no matter.
        structure = (torch.rand(273) < 0.4).float()
        iterate = evaluate

    times = times_of(iterate, iterations, 20 if device.type == "cuda" else 1, device)
    case = f"PyTorch {torch.__version__}{', compiled' * arguments.compile}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"case": case, "ms": 1e3 * statistics.median(times)}
    print(json.dumps({**line, "peak_mb": peak}))


main()
