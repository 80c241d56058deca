"""The experiment of section 4.1: units of a fully connected network."""

import chainer_sno
from chainer_sno import complexity, extensions, fast, links
from chainer_sno._import_chainer import chainer
from reproduce.training import CLASSES, Training

INPUTS = 784
#: Test images classified at once.
TEST_BATCH = 1000


def make_link(settings, initialW=None):
    """Return the masked network of settings, or a plain one of the fixed widths.

    Args:
        settings (reproduce.settings.UnitSelection): of a run.
        initialW (initializer): of the weights.

    Returns:
        chainer.Link: on the CPU.
    """
    if settings.method == "sno":
        return links.MaskedMLP(INPUTS, settings.widths, CLASSES, initialW=initialW)
    return links.MLP(
        INPUTS,
        settings.widths,
        CLASSES,
        settings.dropout_ratio or 0.0,
        settings.seed,
        initialW=initialW,
    )


def _centred(train, test, inputs):
    """Return the data with pixels in [0, 1] centred by the training set, of Chainer's dtype."""
    dtype = chainer.get_dtype()
    images = train[0].astype(dtype) / dtype.type(255)
    if inputs == "mean-image":
        mean, std = images.mean(axis=0, dtype="d"), 1.0
    else:
        mean, std = images.mean(dtype="d"), images.std(dtype="d")

    def centre(part):
        x = part[0].astype(dtype) / dtype.type(255)
        return ((x - mean) / std).astype(dtype), part[1]

    return centre(train), centre(test)


class UnitTraining(Training):
    """A training of section 4.1: the proposed method, a fixed structure, or Dropout."""

    def make_iterators(self, train, test):
        """Return iterators over the pixels: bytes as numbers in [0, 1], or what settings say."""
        settings = self.settings
        test_batch = min(TEST_BATCH, len(test[0]))
        divisor = 255.0
        if settings.inputs is not None:
            train, test = _centred(train, test, settings.inputs)
            divisor = None
        common = {"divisor": divisor}
        return (
            chainer_sno.ArrayIterator(train, settings.batch_size, seed=settings.seed, **common),
            chainer_sno.ArrayIterator(test, test_batch, repeat=False, shuffle=False, **common),
        )

    def make_link(self, initialW):
        """Return the masked network, or a plain one of the fixed widths."""
        return make_link(self.settings, initialW)

    def make_updater(self, iterator, optimizer):
        """Return the updater of the method and the path."""
        if self.bernoulli is not None:
            kinds = {"fast": fast.FastStructureUpdater, "plain": chainer_sno.StructureUpdater}
            return kinds[self.path](
                iterator,
                optimizer,
                self.bernoulli,
                self.settings.samples,
                converter=chainer_sno.pass_arrays,
            )
        if self.path == "fast":
            return fast.FastStandardUpdater(iterator, optimizer, chainer_sno.pass_arrays)
        return chainer.training.updaters.StandardUpdater(
            iterator, optimizer, chainer_sno.pass_arrays, loss_func=self.loss
        )

    def make_evaluator(self, iterator):
        """Return the evaluation at the mode, or of the fixed network."""
        if self.bernoulli is None:
            return extensions.ErrorEvaluator(iterator, self.link)
        samples = self.settings.stochastic_samples
        return extensions.StructureEvaluator(iterator, self.link, self.bernoulli, samples)

    def structure_result(self):
        """Return the units per layer, the usage rate and the weight ratio."""
        settings = self.settings
        full = (INPUTS, *(settings.units,) * settings.layers, CLASSES)
        widths = self.link.widths
        if self.bernoulli is not None:
            mode = chainer.backends.cuda.to_cpu(self.bernoulli.mode())
            widths = self.link.kept_widths(mode)
        return {
            "units": list(widths[1:-1]),
            "usage_rate": sum(widths[1:-1]) / sum(full[1:-1]),
            "weight_ratio": complexity.fully_connected_weight_ratio(widths, full),
            "weights": complexity.fully_connected_weights(widths),
        }
