"""The experiments of the paper: settings, data, runs, and the comparison with its numbers."""

#: The repository, which holds the published numbers and the results.
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ReproduceError(Exception):
    """Something that the user can mend; the message is one line that says what to do."""
