"""Small plain networks in the style of Chainer's examples, for what takes any network."""

import numpy

import chainer_sno  # noqa: F401  (imports Chainer)
from chainer_sno import chainer

F, L = chainer.functions, chainer.links


class MLP(chainer.Chain):
    """Chainer's examples/mnist, with Dropout."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 8)
            self.l2 = L.Linear(None, 7)
            self.l3 = L.Linear(None, 4)

    def forward(self, x):
        h = F.dropout(F.relu(self.l1(x)), 0.3)
        return self.l3(F.dropout(F.sigmoid(self.l2(h)), 0.3))


def raise_the_flag():
    """Give the warning of an invalid value, as a BLAS may in a product that is right."""
    return numpy.divide(numpy.zeros(1), 0)


class LeNet5(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, 6, 5, 1)
            self.conv2 = L.Convolution2D(6, 8, 3, 1)
            self.conv3 = L.Convolution2D(8, 9, 2, 1)
            self.fc4 = L.Linear(None, 7)
            self.fc5 = L.Linear(7, 4)

    def forward(self, x):
        h = F.max_pooling_2d(F.sigmoid(self.conv1(x)), 2, 2)
        h = F.max_pooling_2d(F.sigmoid(self.conv2(h)), 2, 2)
        h = F.sigmoid(self.conv3(h))
        h = F.sigmoid(self.fc4(h))
        return self.fc5(h)


class Block(chainer.Chain):
    """Chainer's examples/cifar: convolution, batch normalisation, ReLU."""

    def __init__(self, out_channels, ksize, pad=1):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, out_channels, ksize, pad=pad, nobias=True)
            self.bn = L.BatchNormalization(out_channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class VGG(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.block1_1 = Block(5, 3)
            self.block1_2 = Block(6, 3)
            self.block2_1 = Block(7, 3)
            self.fc1 = L.Linear(None, 8, nobias=True)
            self.bn_fc1 = L.BatchNormalization(8)
            self.fc2 = L.Linear(None, 4, nobias=True)

    def forward(self, x):
        h = self.block1_1(x)
        h = F.dropout(h, ratio=0.3)
        h = self.block1_2(h)
        h = F.max_pooling_2d(h, ksize=2, stride=2)
        h = self.block2_1(h)
        h = F.max_pooling_2d(h, ksize=2, stride=2)
        h = F.dropout(h, ratio=0.5)
        h = self.fc1(h)
        h = self.bn_fc1(h)
        h = F.relu(h)
        h = F.dropout(h, ratio=0.5)
        return self.fc2(h)


class Bottleneck(chainer.Chain):
    """Chainer's examples/imagenet/resnet50."""

    def __init__(self, in_size, ch, out_size, stride=1, shortcut=False, groups=1):
        super().__init__()
        self.stride = stride
        with self.init_scope():
            self.conv1 = L.Convolution2D(in_size, ch, 1, stride, 0, nobias=True)
            self.bn1 = L.BatchNormalization(ch)
            self.conv2 = L.Convolution2D(ch, ch, 3, 1, 1, nobias=True, groups=groups)
            self.bn2 = L.BatchNormalization(ch)
            self.conv3 = L.Convolution2D(ch, out_size, 1, 1, 0, nobias=True)
            self.bn3 = L.BatchNormalization(out_size)
            if shortcut:
                self.conv4 = L.Convolution2D(in_size, out_size, 1, stride, 0, nobias=True)
                self.bn4 = L.BatchNormalization(out_size)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if hasattr(self, "conv4"):
            x = self.bn4(self.conv4(x))
        return F.relu(h + x)


class ResNet(chainer.Chain):
    def __init__(self, groups=1):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 5, 3, 1, 1)
            self.bn1 = L.BatchNormalization(5)
            self.res2 = chainer.Sequential(
                Bottleneck(5, 4, 6, 2, shortcut=True, groups=groups),
                Bottleneck(6, 4, 6, groups=groups),
            )
            self.fc = L.Linear(6, 4)

    def forward(self, x):
        h = self.bn1(self.conv1(x))
        h = F.max_pooling_2d(F.relu(h), 3, stride=2)
        h = self.res2(h)
        h = F.average_pooling_2d(h, h.shape[2:], stride=1)
        return self.fc(h)


class GoogLeNet(chainer.Chain):
    """Inception modules: four branches and a concatenation."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, 5, 3, stride=2, pad=1)
            self.inc3a = L.Inception(None, 3, 3, 4, 2, 3, 3)
            self.inc3b = L.Inception(None, 3, 2, 3, 2, 3, 2)
            self.fc = L.Linear(None, 4)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        h = F.max_pooling_2d(h, 3, stride=2)
        h = self.inc3b(self.inc3a(h))
        h = F.average_pooling_2d(h, h.shape[2:])
        return self.fc(F.dropout(h, 0.4))


class AllConv(chainer.Chain):
    """All convolutions: the last gives the classes."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.convs = chainer.ChainList(
                L.Convolution2D(3, 5, 3, pad=1),
                L.Convolution2D(5, 6, 3, stride=2, pad=1),
                L.Convolution2D(6, 7, 3, pad=1, dilate=1),
            )
            self.last = L.Convolution2D(7, 4, 1)

    def forward(self, x):
        for conv in self.convs:
            x = F.leaky_relu(conv(x))
        return F.mean(self.last(x), axis=(2, 3))


class NIN(chainer.Chain):
    """Chainer's examples/imagenet/nin, with mlpconv layers."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.mlpconv1 = L.MLPConvolution2D(None, (5, 6, 6), 5, stride=2)
            self.mlpconv2 = L.MLPConvolution2D(None, (6, 5, 4), 3, pad=1)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.mlpconv1(x)), 3, stride=2)
        h = self.mlpconv2(F.dropout(h))
        return F.reshape(F.average_pooling_2d(h, h.shape[2:]), (len(x), 4))


class Fire(chainer.Chain):
    def __init__(self, squeeze, expand):
        super().__init__()
        with self.init_scope():
            self.squeeze = L.Convolution2D(None, squeeze, 1)
            self.left = L.Convolution2D(squeeze, expand, 1)
            self.right = L.Convolution2D(squeeze, expand, 3, pad=1)

    def forward(self, x):
        h = F.elu(self.squeeze(x))
        return F.concat([F.elu(self.left(h)), F.elu(self.right(h))])


class SqueezeNet(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 5, 3, stride=2)
            self.fire2 = Fire(3, 4)
            self.fire3 = Fire(3, 4)
            self.conv10 = L.Convolution2D(8, 4, 1)

    def forward(self, x):
        h = F.max_pooling_2d(F.relu(self.conv1(x)), 3, 2)
        h = self.fire2(h)
        h = h + self.fire3(h)
        h = F.relu(self.conv10(h))
        return F.average(h, axis=(2, 3))


class MobileNet(chainer.Chain):
    """Depthwise convolutions, Chainer's link and one with as many groups as channels."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 5, 3, 2, 1, nobias=True)
            self.bn1 = L.BatchNormalization(5)
            self.dw2 = L.DepthwiseConvolution2D(5, 2, 3, 1, 1)
            self.bn2 = L.BatchNormalization(10)
            self.pw2 = L.Convolution2D(10, 6, 1)
            self.bn2b = L.BatchNormalization(6)
            self.dw3 = L.Convolution2D(6, 6, 3, 2, 1, groups=6)
            self.pw3 = L.Convolution2D(6, 7, 1)
            self.prelu = L.PReLU((7,))
            self.fc = L.Linear(7, 4)

    def forward(self, x):
        h = F.clipped_relu(self.bn1(self.conv1(x)), 6.0)
        h = F.clipped_relu(self.bn2(self.dw2(h)), 6.0)
        h = F.relu(self.bn2b(self.pw2(h)))
        h = F.hard_sigmoid(self.dw3(h))
        h = self.prelu(self.pw3(h))
        return self.fc(F.mean(h, axis=(2, 3)))


class DenseNet(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv0 = L.Convolution2D(3, 5, 3, pad=1)
            self.bn1 = L.BatchNormalization(5)
            self.conv1 = L.Convolution2D(5, 4, 3, pad=1)
            self.bn2 = L.BatchNormalization(9)
            self.conv2 = L.Convolution2D(9, 4, 3, pad=1)
            self.bn3 = L.BatchNormalization(13)
            self.fc = L.Linear(13, 4)

    def forward(self, x):
        h = self.conv0(x)
        h = F.concat((h, self.conv1(F.relu(self.bn1(h)))))
        h = F.concat((h, self.conv2(F.relu(self.bn2(h)))))
        h = F.relu(self.bn3(h))
        return self.fc(F.average_pooling_2d(h, h.shape[2:]))


class SqueezeAndExcite(chainer.Chain):
    """Channels multiplied by what is computed from their means."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 6, 3, pad=1)
            self.down = L.Linear(6, 3)
            self.up = L.Linear(3, 6)
            self.conv2 = L.Convolution2D(6, 5, 3, pad=1, groups=1)
            self.fc = L.Linear(None, 4)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        s = F.sigmoid(self.up(F.relu(self.down(F.mean(h, axis=(2, 3))))))
        h = h * F.broadcast_to(s[:, :, None, None], h.shape)
        return self.fc(F.tanh(self.conv2(h)))


SHAPE = (3, 16, 16)
#: By name: a network, and its layers to be selected.
NETWORKS = {
    "mlp": (MLP, ["l1", "l2"]),
    "lenet": (LeNet5, ["conv1", "conv2", "conv3", "fc4"]),
    "vgg": (VGG, ["block1_1.conv", "block1_2.conv", "block2_1.conv", "fc1"]),
    "resnet": (ResNet, ["conv1", "res2/0/conv1", "res2/0/conv2", "res2/0/conv3", "res2/1/conv2"]),
    "resnext": (
        lambda: ResNet(groups=2),
        ["conv1", "res2/0/conv1", "res2/0/conv2", "res2/1/conv1", "res2/1/conv2", "res2/1/conv3"],
    ),
    "googlenet": (GoogLeNet, ["conv1", "inc3a/proj3", "inc3a/conv3", "inc3b/conv1", "inc3b/projp"]),
    "allconv": (AllConv, ["convs/0", "convs/1", "convs/2"]),
    "nin": (NIN, ["mlpconv1/0", "mlpconv1/2", "mlpconv2/1"]),
    "squeezenet": (SqueezeNet, ["conv1", "fire2/squeeze", "fire2/left", "fire3/squeeze"]),
    "mobilenet": (MobileNet, ["conv1", "pw2", "pw3"]),
    "densenet": (DenseNet, ["conv0", "conv1", "conv2"]),
    "se": (SqueezeAndExcite, ["conv1", "down", "conv2"]),
}
