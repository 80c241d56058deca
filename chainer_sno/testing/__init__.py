"""Checks of a searchable link, which report mistakes before a training.

:func:`check_searchable` checks a link against the contract of :mod:`chainer_sno.links`; call it in
the tests of your own model.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy

from chainer_sno._import_chainer import chainer
from chainer_sno._types import Array
from chainer_sno.batch_statistics import norms_of
from chainer_sno.errors import without_flags
from chainer_sno.testing import absent, computed, stated
from chainer_sno.testing.report import Finding, NotSearchable, Report
from chainer_sno.testing.subject import CallFailed, Subject

__all__ = ["CHECKS", "Finding", "NotSearchable", "Report", "check_searchable"]

#: The checks by name, in their order.
CHECKS: dict[str, Callable[[Subject], Iterator[str]]] = {
    "costs": stated.costs,
    "groups": stated.groups,
    "outputs": computed.outputs,
    "costs_of": stated.costs_of,
    "batching": computed.batching,
    "gradients": computed.gradients,
    "bits": absent.bits,
    "weight_ratio": stated.weight_ratio,
    "compact": stated.compact,
    "fast_layers": computed.fast_layers,
    "device": computed.device,
}
#: The checks that a link may skip by not having the feature.
OPTIONAL = ("groups", "costs_of", "weight_ratio", "compact", "fast_layers")


def check_searchable(
    link: Any,
    x: Array,
    *,
    skip: Collection[str] = (),
    bits: int = 64,
    seed: int = 0,
    raise_error: bool = True,
) -> Report:
    """Check that a link keeps the contract of searchable links; list everything that is wrong.

    The link is not changed: the checks work on copies, the exact ones in float64.

    ================  =============================================================================
    ``costs``         shape (d,), finite, none negative, not all zero
    ``groups``        slices that do not overlap and cover all bits
    ``outputs``       lambda variables of one shape (N, ...), finite, from bool structures
    ``costs_of``      the costs by other criteria, of shape (d,) as well
    ``batching``      outputs of a structure alone are those in a batch, in any order; in training
                      mode too, unless that draws random numbers
    ``gradients``     those of all parameters, by central differences
    ``bits``          each changes the outputs, and switches off all that is its own; see
                      :mod:`chainer_sno.testing.absent` for how that is found out
    ``weight_ratio``  in [0, 1], 1 with everything on, monotone, and not less than the fraction of
                      the weights that get a gradient
    ``compact``       the returned network computes the same
    ``fast_layers``   the layers that the fast paths train compute the same
    ``device``        the outputs on a GPU, with CuPy's structures, are those on the CPU
    ================  =============================================================================

    Args:
        link (chainer.Link): a searchable link, on any device.
        x (array): a mini-batch that it takes, a few examples; random numbers will do.
        skip (collection of str): names of checks to leave out.  A link whose bits choose between
            functions without parameters has to leave out ``bits``.
        bits (int): the largest number of bits that are switched one by one.
        seed (int): of the structures and of the noise on the parameters.
        raise_error (bool): raise an error where something is wrong, instead of returning.

    Returns:
        Report: the findings; ``print(report)`` shows them.

    Raises:
        NotSearchable: an AssertionError that lists every finding.
        ValueError: ``skip`` names no check, or costs, which say how many bits there are; or the
            mini-batch is empty.
    """
    names = [name for name in CHECKS if name != "costs"]
    unknown = sorted({*skip} - {*names})
    if unknown:
        raise ValueError(f"skip must name some of {', '.join(names)}, not {', '.join(unknown)}")
    if not len(x) or bits < 1:
        raise ValueError(
            f"x must hold at least 1 example, not {len(x)}, and bits must be at least 1, not {bits}"
        )
    state = numpy.random.get_state()
    try:
        with without_flags():
            report = _check(link, x, {*skip}, bits, seed)
    finally:
        # Links may draw from NumPy's global generator, as Chainer's dropout does.
        numpy.random.set_state(state)
    if raise_error and report.findings:
        raise NotSearchable(report)
    return report


def _check(link: Any, x: Array, skip: set[str], bits: int, seed: int) -> Report:
    name = type(link).__name__
    if not isinstance(link, chainer.Link):
        message = f"{name} is not a chainer.Link: derive it from chainer.Chain"
        return Report(name, (Finding("link", message),))
    subject = Subject(link, x, bits, seed)
    if norms_of(subject.unchanged):
        subject.notes.append(
            "running statistics of batch normalisation average over the sampled structures, which "
            "the most probable one is not: evaluate and compact with reestimate=..."
        )
    findings: list[Finding] = []
    passed: list[str] = []
    for check, function in CHECKS.items():
        if check == "batching":
            if any(finding.check == "outputs" for finding in findings):
                break
            subject.prepare_double()
        if subject.random[False]:
            subject.notes.append("the rest is left out, for equal calls must give equal outputs")
            break
        if check in skip or (check in OPTIONAL and not hasattr(link, check)):
            continue
        if check == "device" and not _has_gpu():
            subject.notes.append("there is no GPU to compare with")
            continue
        if check == "bits" and not subject.gradients_good:
            subject.notes.append("bits are left out, for they are found out by gradients")
            continue
        try:
            new = [Finding(check, message) for message in function(subject)]
        except CallFailed as error:
            new = [Finding(check, f"the link raises {error}")]
        findings += new
        passed += [] if new else [check]
        if check == "costs" and not subject.d:
            break
    return Report(name, tuple(findings), tuple(passed), tuple(subject.notes))


def _has_gpu() -> bool:
    """Return whether CuPy can be used."""
    if not chainer.backends.cuda.available:
        return False
    try:
        return bool(chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount() > 0)
    except Exception:
        return False
