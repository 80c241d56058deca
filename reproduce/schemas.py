"""The schemas of the JSON files that are read, checked with jsonschema."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import jsonschema

from reproduce import ReproduceError, experiments
from reproduce.settings import SECOND_RESULT, Settings

#: A JSON schema.
Schema: TypeAlias = dict[str, Any]

_WHOLE: Schema = {"type": "integer", "minimum": 0}
_FRACTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
_TEXT: Schema = {"type": "string", "minLength": 1}


def _object(
    properties: dict[str, Any], required: Iterable[str] | None = None, others: bool = True
) -> Schema:
    """Return the schema of an object, by default with every property required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": others,
    }


def _list(of: Schema, length: int | None = None) -> Schema:
    found: Schema = {"type": "array", "items": of, "minItems": 1}
    return found if length is None else {**found, "minItems": length, "maxItems": length}


_TABLE = _object(
    {
        "table": _TEXT,
        "groups": _list(_TEXT, 3),
        "full": _list(_WHOLE, 3),
        "rows": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _object(
                {"usage_rate": _FRACTION, "selected": _list(_WHOLE, 3)}, others=False
            ),
        },
    },
    others=False,
)
#: The experiments with a table in the paper.
_PUBLISHED = [name for name, each in experiments.all_experiments().items() if each.table]
_LENGTH = _object({"batch_size": _WHOLE, "epochs": _WHOLE}, others=False)
_SETTINGS = _object(
    {"epsilon0": _list(_TEXT), "bits": _WHOLE, "lr": _POSITIVE, "sno": _LENGTH, "others": _LENGTH},
    others=False,
)
#: results/published.json: the paper's tables, settings and claims.
PUBLISHED = _object(
    {
        "source": _TEXT,
        "trials": _WHOLE,
        **dict.fromkeys(_PUBLISHED, _TABLE),
        "settings": _object(
            {
                "samples": _WHOLE,
                "eta_factor": _POSITIVE,
                "momentum": _FRACTION,
                "weight_decay": _FRACTION,
                **dict.fromkeys(_PUBLISHED, _SETTINGS),
            },
            others=False,
        ),
        "claims": _list(
            _object(
                {"id": _TEXT, "section": {"enum": ["4.1", "4.2"]}, "text": _TEXT},
            )
        ),
    },
    others=False,
)
#: The record of a run, see :mod:`reproduce.record`; its settings are checked by their classes.
RECORD = _object(
    {
        "schema": _WHOLE,
        "name": _TEXT,
        "schedule": _TEXT,
        "changes": {"type": "object"},
        "settings": {"type": "object"},
        "result": _object(
            {
                "test_error": _FRACTION,
                "test_loss": {"type": "number"},
                "usage_rate": _FRACTION,
                "weight_ratio": _FRACTION,
                "weights": _WHOLE,
                "iterations": _WHOLE,
            },
            required=["test_error", "usage_rate", "weight_ratio", "iterations"],
        ),
        "versions": _object({"python": _TEXT, "chainer_sno": _TEXT, "numpy": _TEXT, "path": _TEXT}),
        "machine": _object({"processor": _TEXT, "device": _TEXT}),
        "times": _object(
            {
                "finished": _TEXT,
                "seconds": _POSITIVE,
                "epoch_seconds": {"type": "array"},
                "epoch_cpu_seconds": {"type": "array"},
            },
            required=["finished", "seconds", "epoch_seconds"],
        ),
        "log": {
            **_object({"epoch": {"type": "array"}, "validation/main/error": {"type": "array"}}),
            "additionalProperties": {"type": "array"},
        },
    }
)


#: The progress of an unfinished run, see :mod:`reproduce.progress`.
PROGRESS = _object(
    {
        "unfinished": {"const": True},
        "name": _TEXT,
        "settings": {"type": "object"},
        "path": _TEXT,
        "iteration": _WHOLE,
        "iterations": _WHOLE,
        "written": _TEXT,
        "usage_rate": _FRACTION,
        "theta_histogram": _list(_WHOLE),
        "last_epoch": _object(
            {
                "epoch": _WHOLE,
                "test_error": _FRACTION,
                "training_loss": {"type": "number"},
                "reestimated_test_error": _FRACTION,  # of older programs
                f"{SECOND_RESULT}_test_error": _FRACTION,
                "reestimated_epoch": _WHOLE,
            },
            required=["epoch", "test_error"],
        ),
    },
    required=["unfinished", "name", "settings", "path", "iteration", "iterations", "written"],
)


def check_result(
    result: dict[str, Any], settings: Settings, name: str, partial: bool = False
) -> None:
    """Check the part of a result that its experiment defines.

    Args:
        result (dict): of a record, or of a run that has not ended.
        settings (Settings): of the run.
        name (str): of the file, for the message.
        partial (bool): nothing is required, as of a run that has not ended.

    Raises:
        ReproduceError: see :func:`check`.
    """
    experiment = experiments.of(settings)
    required = () if partial else experiment.result_required
    check(result, _object(experiment.result_properties, required), name)


def check(value: object, schema: Schema, name: str) -> None:
    """Check that a value follows a schema.

    Args:
        value: of a JSON file.
        schema (dict): a JSON schema.
        name (str): of the file, for the message.

    Raises:
        ReproduceError: it does not; the message says where and what was expected.
    """
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(value)
    )
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "its top"
        message = error.message if len(error.message) < 120 else error.message[:117] + "..."
        raise ReproduceError(f"{name!r} does not have the expected form at {place}: {message}")
