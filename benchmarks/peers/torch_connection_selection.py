"""Section 4.2's iteration in PyTorch, channels last, one pass a structure; one thread."""

import argparse
import json
import resource
import statistics
import time

import torch
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
        for block in range(BLOCKS):
            for _ in range(LAYERS):
                self.norms.append(nn.BatchNorm2d(channels))
                self.convs.append(nn.Conv2d(channels, GROWTH, 3, padding=1, bias=False))
                channels += GROWTH
            self.norms.append(nn.BatchNorm2d(channels))
            if block + 1 < BLOCKS:
                self.convs.append(nn.Conv2d(channels, channels, 1, bias=False))
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x, structure):
        """Return the outputs of one structure."""
        norms, convs, bit = iter(self.norms), iter(self.convs), 0
        x = self.stem(x)
        for block in range(BLOCKS):
            features = [x]
            for layer in range(LAYERS + 1):
                widths = torch.tensor([feature.shape[1] for feature in features])
                bits = structure[bit : bit + len(features)]
                bit += len(features)
                mask = torch.repeat_interleave(bits, widths)[None, :, None, None]
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
    iterations = parser.parse_args().iterations
    torch.set_num_threads(1)
    net = DenseNet().train().to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    t = torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True)
    times = []
    for i in range(1 + iterations):
        begun = time.perf_counter()
        structures = (torch.rand(LAMBDA, 273) < 0.5).float()
        optimizer.zero_grad()
        losses = [functional.cross_entropy(net(x, m), t) for m in structures]
        (sum(losses) / LAMBDA).backward()
        optimizer.step()
        if i:
            times.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"case": f"PyTorch {torch.__version__}", "ms": 1e3 * statistics.median(times)}
    print(json.dumps({**line, "peak_mb": peak}))


main()
