"""Installation of the library; the experiments run from a checkout, see README.md.

The settings of the tools are in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "chainer_sno/__init__.py").read_text())[1]

setup(
    name="chainer_sno",
    version=version,
    description="Train the weights and the structure of a Chainer network together",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["chainer_sno", "chainer_sno.*"]),
    # An editable installation then finds what else is in the checkout, too.
    package_dir={"": "."},
    # What is compiled on the device at run time, and the mark of a package with type hints.
    package_data={"chainer_sno": ["py.typed"], "chainer_sno.cuda": ["*.cu", "*.cuh"]},
    python_requires=">=3.10",
    install_requires=["chainer==7.8.1", "numpy>=1.26"],
    extras_require={
        # CuPy 13 or 14; neither needs cuDNN here.  Its CUDA libraries are a toolkit's, or [ctk].
        "cuda": ["cupy-cuda12x>=13"],
        # Sweeps on many machines.
        "dask": ["distributed"],
        # The pages under docs/; every module is imported for them.
        "docs": ["furo", "numba", "sphinx", "sphinx-argparse"],
        # What examples/ needs beside the library.
        "examples": ["matplotlib", "threadpoolctl"],
        # The fast path on a CPU.
        "fast": ["numba"],
        # Trained networks for other runtimes.
        "onnx": ["onnx"],
        # Figures of a distribution.
        "plot": ["matplotlib"],
        "reproduce": [
            "jinja2",
            "jsonschema",
            "matplotlib",
            "numba",
            "pillow",
            "rich",
            "scipy",
            "tabulate",
            "threadpoolctl",
        ],
        "test": [
            "hypothesis",
            "mypy",
            "nvidia-cuda-nvrtc-cu12",
            "onnx",
            "onnxruntime",
            "playwright",
            "pytest",
            "pytest-xdist",
            "ruff",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
