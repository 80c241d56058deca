"""The sizes, classes and image shapes of the data sets, without loading them.

:mod:`reproduce.data` fetches, verifies and loads the images themselves.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name (str): on the command line.
        title (str): in headings.
        examples (int): of the training set.
        test_examples (int): of the test set.
        classes (int): number of classes.
        shape (tuple of int): of one image, as the networks get it.
    """

    name: str
    title: str
    examples: int
    test_examples: int
    classes: int
    shape: tuple[int, ...]


#: The data sets by name.
DATASETS = {
    found.name: found
    for found in (
        DataSet("mnist", "MNIST", 60000, 10000, 10, (784,)),
        DataSet("fashion-mnist", "Fashion-MNIST", 60000, 10000, 10, (784,)),
        DataSet("cifar10", "CIFAR-10", 50000, 10000, 10, (3, 32, 32)),
        DataSet("cifar100", "CIFAR-100", 50000, 10000, 100, (3, 32, 32)),
    )
}
