"""Snapshots that survive a kill at any moment, and the return to the newest good one."""

import json
from pathlib import Path
from typing import Any

from chainer_sno import chainer
from chainer_sno.files import DAMAGE, read_npz, says_nothing_of_the_file, write_npz
from reproduce import ReproduceError
from reproduce._types import Say, StrPath

#: Nine digits: another name, such as of a copy that a user made, would be the newest for ever.
_PATTERN = f"snapshot_iter_{9 * '[0-9]'}.npz"


class Snapshot(chainer.training.Extension):
    """Save the trainer in the run's directory and keep the newest two.

    Chainer's own snapshot records neither its settings nor a checksum of the file.

    Args:
        directory (pathlib.Path): where the snapshots lie.
        identity (dict): what the run is, its settings and more; saved with every snapshot.
        interval (int): between snapshots.
        seconds (bool): whether the interval is in seconds of training, else in iterations.
        keep (int): how many to keep; with two, a damaged one loses no run.
    """

    # After everything that a snapshot must contain.
    priority = -100

    def __init__(
        self,
        directory: StrPath,
        identity: dict[str, Any],
        interval: int,
        seconds: bool = False,
        keep: int = 2,
    ) -> None:
        self.directory = Path(directory)
        self.identity = identity
        self.interval = interval
        self.seconds = seconds
        self.keep = keep
        self.due = 0.0
        # Chainer's triggers have a state in the snapshot, each kind its own, and a run could not go
        # on with an interval of the other kind.
        self.trigger = self._is_due

    def initialize(self, trainer: Any) -> None:
        """Begin to wait for the first snapshot; a resumed training begins again."""
        self.due = trainer.elapsed_time + self.interval

    def _is_due(self, trainer: Any) -> bool:
        """Return whether to save after an iteration."""
        if not self.seconds:
            return bool(trainer.updater.iteration % self.interval == 0)
        if trainer.elapsed_time < self.due:
            return False
        self.due = trainer.elapsed_time + self.interval
        return True

    def __call__(self, trainer: Any) -> None:
        """Save a snapshot."""
        iteration = trainer.updater.iteration
        target = self.directory / f"snapshot_iter_{iteration:09d}.npz"
        if target.exists():
            return
        serializer = chainer.serializers.DictionarySerializer()
        trainer.serialize(serializer)
        write_npz(target, {"identity": json.dumps(self.identity), **serializer.target})
        for path in snapshots(self.directory)[self.keep :]:
            path.unlink()


def snapshots(directory: StrPath) -> list[Path]:
    """Return the snapshots of a directory, the newest first."""
    return sorted(Path(directory).glob(_PATTERN), reverse=True)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the identity and the content of a snapshot, with every checksum in it verified."""
    content = read_npz(path)
    return json.loads(str(content.pop("identity")[()])), content


def resume(trainer: Any, directory: StrPath, identity: dict[str, Any], say: Say = print) -> bool:
    """Load the newest complete snapshot into a trainer.

    Args:
        trainer (chainer.training.Trainer): as built for the settings.
        directory (pathlib.Path): of the run.
        identity (dict): what the run is.
        say (callable): takes a line for the user.

    Returns:
        bool: whether there was one.

    Raises:
        ReproduceError: a snapshot belongs to another configuration; the message says in what.  Or
            the system refuses to read one: it may be whole, so it stays, and nothing is trained.
    """
    found = snapshots(directory)
    for number, path in enumerate(found):
        try:
            saved, content = read(path)
        except DAMAGE as error:
            if says_nothing_of_the_file(error):
                raise ReproduceError(
                    f"{str(path)!r} cannot be read ({error.strerror or error}): make it readable, "
                    "or move it away, and the same command goes on",
                    again=True,
                ) from error
            older = found[number + 1].name if number + 1 < len(found) else "the beginning"
            say(f"{path.name} is damaged ({error}): going back to {older}")
            continue
        if saved != identity:
            name = min(n for n in {*saved, *identity} if saved.get(n) != identity.get(n))
            raise ReproduceError(
                f"{str(path)!r} is a snapshot of another configuration ({name} is "
                f"{saved.get(name)} there and {identity.get(name)} here): move it away, or give "
                "another --out",
                again=True,
            )
        # A damaged newer one would stand in the place of one that is yet to be written.
        for damaged in found[:number]:
            damaged.unlink()
        chainer.serializers.NpzDeserializer(content).load(trainer)
        return True
    for damaged in found:
        damaged.unlink()
    return False
