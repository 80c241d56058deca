"""Import matplotlib, even if ``MPLBACKEND`` names a backend that is not installed.

Programs that a notebook starts inherit the name of its backend, and without the package that holds
it matplotlib cannot be imported at all.  Figures that are only saved need no backend.
"""

import contextlib
import os
import sys
from typing import Any


def _import_matplotlib() -> Any:
    """Return matplotlib, with the backend of the environment if there is one."""
    name = os.environ.get("MPLBACKEND")
    if name is None or "matplotlib" in sys.modules:
        import matplotlib

        return matplotlib
    del os.environ["MPLBACKEND"]
    try:
        import matplotlib
    finally:
        os.environ["MPLBACKEND"] = name
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = name
    return matplotlib


matplotlib = _import_matplotlib()
