"""What the findings say of a training, and when they say nothing."""

import pytest

from reproduce import compare
from reproduce.report import content, findings
from tests.reproduce import synthetic

CONNECTIONS = "connection-selection"


def guesses(epochs):
    """Return a run at 2^-2 that guesses in its first epochs and has learnt at its end."""
    record = synthetic.connection(0.05, epsilon0="2^-2")
    errors = record["log"]["validation/main/error"]
    errors[:] = [0.9] * epochs + [0.2] * (150 - epochs) + [0.05] * 150
    return record


def test_much_of_a_training_is_a_tenth_of_its_epochs():
    assert findings.guessing(CONNECTIONS, [guesses(29)]) is None
    assert findings.guessing(CONNECTIONS, [guesses(30)]) == {
        "label": "epsilon0 = 2^-2",
        "epochs": 300,
        "guess": "30",
        "learnt": "151",
    }


@pytest.mark.parametrize(
    ("before", "after", "moving"),
    [(7, 6, False), (9, 7, False), (9, 6, True), (70, 68, False), (70, 67, False), (70, 66, True)],
)
def test_a_structure_of_few_connections_changes_by_more_than_two(before, after, moving):
    record = synthetic.connection(connections=(40, after, 60), epsilon0="2^-2")
    for block, count in (("block_1", 40), ("block_2", after), ("block_3", 60)):
        record["log"][f"structure/{block}"] = [count] * 300
    record["log"]["structure/block_2"][:225] = [before] * 225
    (line,) = findings.drift(CONNECTIONS, [record])
    assert line["moving"] == moving
    assert line["sizes"][1:] == [f"40/{before}/60", f"40/{after}/60"]


def test_a_changed_setting_is_held_against_the_paper():
    """At 2^-6 the paper has 92/31/24 units and a usage rate of 6.6%, which is 155 of 2,352."""

    def told(units, *others, **values):
        trials = [synthetic.unit(units=(110, 27, 30), epsilon0="2^-6", seed=s) for s in range(3)]
        trials.append(synthetic.unit(units=units, epsilon0="2^-6", **values))
        (found,) = findings.changed([*trials, *others]).values()
        return found["rows"][0][-1], found["better"]

    change = {"gradients": "sum"}
    assert told((100, 28, 27), **change) == ("all", ["gradients=sum (epsilon0 = 2^-6)"])
    # As far from the paper, on its other side, is no nearer.
    assert told((74, 35, 18), **change) == ("-", [])
    assert told((90, 20, 30), **change) == ("1st layer", [])
    assert told((130, 10, 50), **change) == ("-", [])
    other = synthetic.unit(units=(784, 0, 0), epsilon0="2^-7", **change)
    usual = synthetic.unit(units=(340, 141, 120), epsilon0="2^-7")
    assert told((100, 28, 27), other, usual, **change) == ("all", [])
    assert told((100, 28, 27), other, **change)[1] == ["gradients=sum (epsilon0 = 2^-6)"]
    # The paper has no numbers of other data.
    assert told((100, 28, 27), dataset="fashion-mnist") == ("-", [])


def test_too_few_trials_lie_on_no_side():
    def rows(seeds):
        return compare.rows(
            CONNECTIONS,
            [
                synthetic.connection(connections=(80, 60, 80), epsilon0=label, seed=seed)
                for label in ("2^-2", "2^-3")
                for seed in range(seeds)
            ],
        )

    assert findings.split(rows(1)) is None
    more = findings.split(rows(5))
    assert {found["quantity"] for found in more} >= {"1st block", "usage rate"}
    assert all(found["more"] == 10 for found in more)


def test_a_finished_run_is_not_unfinished():
    record = synthetic.connection(method="random", usage_rate=0.158)
    entry = {
        "name": record["name"],
        "settings": record["settings"],
        "iteration": 7,
        "iterations": 9,
        "last_epoch": {},
    }
    assert content([record], [], [], [entry])["unfinished"] == 0
