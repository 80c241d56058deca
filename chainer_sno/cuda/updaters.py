"""The former place of :mod:`chainer_sno.graph.updaters`; what is imported from here warns."""

_FORMER = {
    "GraphUpdater": "GraphUpdater",
    "GraphStructureUpdater": "GraphStructureUpdater",
    "CapturedUpdater": "GraphUpdater",
    "CapturedStructureUpdater": "GraphStructureUpdater",
}


def __getattr__(name: str) -> object:
    """Return the class of a former name."""
    if name not in _FORMER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when it is asked for: the kernels' package is below the trainings.
    from chainer_sno.accelerated import warn_of_former_name
    from chainer_sno.graph import updaters

    warn_of_former_name(f"{__name__}.{name}", f"{updaters.__name__}.{_FORMER[name]}")
    updater: object = getattr(updaters, _FORMER[name])
    return updater
