"""Entry point of ``python -m reproduce``."""

import sys

from reproduce.cli import main
from reproduce.streams import show_warnings_in_one_line

show_warnings_in_one_line()
sys.exit(main())
