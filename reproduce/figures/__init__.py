"""Figures from records: the paper's, and three that it lacks."""

import chainer_sno._import_matplotlib  # noqa: F401  (before what follows imports it)
from reproduce.figures.errors import error_over_epochs, usage_rate_against_error
from reproduce.figures.gallery import Drawn, draw_all
from reproduce.figures.network import densenet
from reproduce.figures.over_training import (
    has_structure_columns,
    has_theta_histogram,
    structure_over_training,
    theta_histogram,
)
from reproduce.figures.style import save

__all__ = [
    "Drawn",
    "densenet",
    "draw_all",
    "error_over_epochs",
    "has_structure_columns",
    "has_theta_histogram",
    "save",
    "structure_over_training",
    "theta_histogram",
    "usage_rate_against_error",
]
