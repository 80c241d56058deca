"""Functions of the searchable links."""

from chainer_sno.functions.mask_units import mask_units

__all__ = ["mask_units"]
