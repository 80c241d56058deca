"""Every claim of the paper on invented records: it holds, it does not, or the runs are too few."""

import pytest

from reproduce import claims, cli, compare
from reproduce.claims.rules import Evidence
from reproduce.experiments.connection_selection import CONNECTION_EPSILON0, CONNECTION_USAGE_RATES
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UNIT_WIDTHS
from tests.reproduce import synthetic, test_compare

#: Units selected as in Table 1, and all of them with a negative penalty.
UNITS = {
    "2^-6": (92, 31, 24),
    "2^-7": (340, 141, 126),
    "2^-8": (599, 380, 379),
    "2^-9": (704, 544, 567),
    "0": (770, 717, 724),
    "-2^-3": (784, 784, 784),
    "-2^0": (784, 784, 784),
}
#: Connections as in Table 2.
CONNECTIONS = {
    "2^-2": (36, 6, 20),
    "2^-3": (45, 8, 49),
    "2^-4": (57, 39, 67),
    "2^-5": (59, 61, 76),
    "2^-6": (65, 64, 80),
    "0": (70, 70, 82),
    "-2^-3": (91, 91, 91),
    "-2^0": (91, 91, 91),
}


def spread(error, seed):
    """Return the error of a trial: trials differ by less than the settings."""
    return error + 0.0001 * seed


def world(trials=5, **changes):
    """Return records in which every claim holds, but for changes of the parts below."""
    parts = {
        # Test errors.
        "sno": dict.fromkeys(UNIT_EPSILON0, 0.015) | {"2^-6": 0.025},
        "fixed": dict(zip(UNIT_WIDTHS, (0.03, 0.022, 0.021, 0.0205, 0.0195, 0.018))),
        "dropout": 0.012,
        "connection": dict.fromkeys(CONNECTION_EPSILON0, 0.06),
        "random": dict(zip(CONNECTION_USAGE_RATES, (0.09, 0.08, 0.07, 0.0602, 0.0599, 0.0601))),
        # Structures.
        "units": UNITS,
        "connections": CONNECTIONS,
        "wide": {"2^-4": (1,)},
        # Seconds.
        "seconds": {"sno": 100.0, "fixed": 100.0, "connection": 100.0, "random": 100.0},
        "processor": {"sno": "A", "fixed": "A", "connection": "A", "random": "A"},
    }
    for name, change in changes.items():
        parts[name] = {**parts[name], **change} if isinstance(change, dict) else change

    def where(kind):
        return {"seconds": parts["seconds"][kind], "processor": parts["processor"][kind]}

    records = []
    for seed in range(trials):
        for label, error in parts["sno"].items():
            units = parts["units"][label]
            records.append(
                synthetic.unit(
                    spread(error, seed), units, epsilon0=label, seed=seed, **where("sno")
                )
            )
        for width, error in parts["fixed"].items():
            records.append(
                synthetic.unit(
                    spread(error, seed), method="fixed", width=width, seed=seed, **where("fixed")
                )
            )
        records.append(synthetic.unit(spread(parts["dropout"], seed), method="dropout", seed=seed))
        for label, error in parts["connection"].items():
            records.append(
                synthetic.connection(
                    spread(error, seed),
                    parts["connections"][label],
                    wide=parts["wide"].get(label, ()),
                    epsilon0=label,
                    seed=seed,
                    **where("connection"),
                )
            )
        for rate, error in parts["random"].items():
            records.append(
                synthetic.connection(
                    spread(error, seed),
                    method="random",
                    usage_rate=rate,
                    seed=seed,
                    **where("random"),
                )
            )
    return records


def outcomes(records):
    return {finding.id: finding.outcome for finding in claims.findings(records)}


def outcome(claim, records):
    """Return the outcome of one claim, without computing the others."""
    (published,) = (each for each in compare.published()["claims"] if each["id"] == claim)
    judge, *_ = claims.RULES[claim]
    return judge(Evidence(records), published).outcome


def test_every_published_claim_has_a_rule_and_no_rule_lacks_a_claim():
    published = [claim["id"] for claim in compare.published()["claims"]]
    assert len(published) == len(set(published)) == 18
    assert set(published) == set(claims.RULES)


def test_every_claim_holds_where_it_is_true():
    found = claims.findings(world())
    assert {finding.outcome for finding in found} == {"holds"}
    assert all(finding.effect and finding.runs >= 5 for finding in found)
    for finding in found:
        assert finding.details, finding.id
        assert finding.rule.endswith(".")


def test_a_trend_of_one_width_is_no_trend_of_the_others():
    """Without it all errors are equal."""
    records = [
        synthetic.unit(0.05 if width == UNIT_WIDTHS[0] else 0.02, method="fixed", **of)
        for width in UNIT_WIDTHS
        for of in ({"width": width, "seed": seed} for seed in range(5))
    ]
    assert outcome("unit-fixed-degrades", records) == "holds in part"


def test_without_runs_nothing_is_said():
    assert set(outcomes([]).values()) == {"not enough runs"}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("unit-beats-fixed", {"sno": {"2^-8": 0.0215}}),
        ("unit-beats-fixed", {"fixed": {784: 0.0149}}),
        ("unit-fixed-degrades", {"fixed": {52: 0.017, 205: 0.0175}}),
        ("unit-fixed-degrades", {"fixed": dict.fromkeys(UNIT_WIDTHS, 0.02)}),
        ("unit-degrades-at-6", {"sno": {"2^-6": 0.015}}),
        ("unit-beats-original", {"sno": {"0": 0.0185}}),
        ("unit-negative-epsilon", {"units": {"-2^0": (784, 784, 783)}}),
        ("unit-negative-epsilon", {"sno": {"-2^-3": 0.0185}}),
        ("unit-dropout-improves", {"dropout": 0.0185}),
        ("unit-dropout-improves", {"dropout": 0.018}),
        ("unit-later-layers-first", {"units": dict.fromkeys(("2^-6", "2^-7", "0"), (9, 99, 9))}),
        ("unit-time-as-fixed", {"seconds": {"sno": 106.0}}),
        ("conn-beats-random", {"random": {0.423: 0.0595}}),
        ("conn-ties-random", {"random": {0.675: 0.07}}),
        ("conn-ties-random", {"connection": {"-2^0": 0.07}}),
        ("conn-few-removed", {"random": {0.675: 0.07}}),
        ("conn-few-removed", {"random": {0.803: 0.05}}),
        ("conn-random-degrades", {"random": {0.158: 0.06, 0.241: 0.06}}),
        ("conn-epsilon-no-effect", {"connection": {"2^-5": 0.07}}),
        ("conn-within-1-at-40", {"connection": {"2^-4": 0.071}}),
        ("conn-early-blocks-first", {"connections": dict.fromkeys(("0", "2^-5"), (80, 60, 70))}),
        ("conn-second-block", {"connections": dict.fromkeys(("2^-2", "2^-3"), (5, 6, 20))}),
        ("conn-wide-second-block", {"wide": {"2^-4": (2,)}}),
        ("conn-wide-second-block", {"wide": {"2^-4": ()}}),
        ("conn-time-as-random", {"seconds": {"connection": 106.0}}),
    ],
)
def test_a_claim_does_not_hold_where_it_is_false(claim, changes):
    assert outcome(claim, world(**changes)) == "does not hold"


#: What one trial of each setting can decide, and what the runs of two seeds can.
ONE_TRIAL = {"unit-fixed-degrades", "unit-time-as-fixed", "conn-time-as-random"}
BY_CHANCE = {"unit-later-layers-first", "conn-early-blocks-first", "conn-second-block"}


@pytest.mark.parametrize(
    ("trials", "enough"),
    [
        (1, ONE_TRIAL),
        (2, ONE_TRIAL | BY_CHANCE),
        (
            3,
            {claim["id"] for claim in compare.published()["claims"]}
            - {"conn-ties-random", "conn-few-removed", "conn-epsilon-no-effect"},
        ),
        (4, {claim["id"] for claim in compare.published()["claims"]}),
    ],
)
def test_a_claim_needs_as_many_runs_as_its_rule_says(trials, enough):
    found = outcomes(world(trials))
    assert {claim for claim, outcome in found.items() if outcome != "not enough runs"} == enough


@pytest.mark.parametrize(
    ("yes", "expected"),
    # Of 6 runs; by chance, p of 5 is 0.018 and that of 4 is 0.1.
    [(6, "holds"), (5, "holds"), (4, "not enough runs"), (3, "does not hold")],
)
def test_a_majority_that_chance_could_make_decides_nothing(yes, expected):
    records = world(2)
    runs = [r for r in records if r["settings"].get("epsilon0") in (0.25, 0.125, 0.0625)]
    runs = [r for r in runs if r["settings"]["experiment"] == "connection-selection"]
    assert len(runs) == 6
    for record in runs[yes:]:
        record["result"]["connections"] = [5, 6, 20]
    assert outcome("conn-second-block", records) == expected


def test_a_trend_that_one_setting_carries_holds_in_part():
    others = dict.fromkeys(UNIT_WIDTHS[1:], 0.02)
    found = {f.id: f for f in claims.findings(world(fixed=others))}["unit-fixed-degrades"]
    assert found.outcome == "holds in part"
    assert "only with fixed 52" in found.effect
    assert any(line.startswith("without fixed 52: Kendall's tau") for line in found.details)
    assert found.runs == 30


def test_dead_structures_count_as_guessing_where_the_paper_is_taken_literally():
    records = world()
    for record in records:
        if record["settings"].get("usage_rate") == 0.158:
            record["result"]["dead_draws"] = 3
    found = {f.id: f for f in claims.findings(records)}
    beats = found["conn-beats-random"]
    literally = "without drawing dead structures again (reading R19), epsilon0 = "
    assert [d.startswith(literally) for d in beats.details] == 4 * [False] + 3 * [True]
    assert "random at 15.8%: median 6.02% against 90.00%" in beats.details[-3]
    assert "random at 42.3%: median 6.02% against 7.02%" in beats.details[-1]
    told = found["conn-random-degrades"].details[-1]
    assert told == "random at 15.8%: 5 of 5 first draws had no path and were drawn again (R19)"
    for record in records:
        if record["settings"]["seed"]:
            record["result"].pop("dead_draws", None)
    found = {f.id: f for f in claims.findings(records)}
    told = found["conn-random-degrades"].details[-1]
    assert told == "random at 15.8%: 1 of 5 first draws had no path and was drawn again (R19)"
    assert not any("R19" in line for f in claims.findings(world()) for line in f.details)


def test_an_iteration_at_the_end_decides_about_the_time():
    """A training that begins with half of the connections may take longer as a whole."""
    records = world(seconds={"connection": 200.0})
    for record in records:
        times, log = record["times"], record["log"]
        count = len(log["iteration"])
        if record["settings"]["experiment"] == "connection-selection":
            own = record["settings"]["method"] == "sno"
            start = 100.0 if own else 0.0
            times["epoch_seconds"] = [start + 100.0 * (i + 1) / count for i in range(count)]
    found = {f.id: f for f in claims.findings(records)}["conn-time-as-random"]
    assert found.outcome == "holds"
    assert found.effect == "an iteration at the end takes 1.00 times as long"
    assert "whole trainings 0.06 h against 0.03 h, ratio 2.00" in found.details[0]
    assert "ratio 1.00, on" in found.details[0]


def test_what_a_machine_does_beside_a_training_is_no_time_of_it():
    records = world(seconds={"connection": 300.0, "random": 600.0})
    for record in records:
        if record["settings"]["method"] != "sno":
            continue
        ends = record["times"]["epoch_seconds"]
        # Every third epoch of the last tenth takes a hundred times as long.
        for i in range(len(ends) * 9 // 10, len(ends), 3):
            ends[i:] = [end + 100.0 for end in ends[i:]]
    found = {f.id: f for f in claims.findings(records)}["conn-time-as-random"]
    assert found.effect == "an iteration at the end takes 0.50 times as long"


def moved_at(record, iteration):
    """Give a record another machine before an iteration."""
    record["computers"] = [
        {"machine": {"processor": "before"}, "iterations": [1, iteration - 1]},
        {"machine": record["machine"], "iterations": [iteration, 10**6]},
    ]


def test_the_machine_of_the_last_tenth_decides_about_its_time():
    """Whole trainings that moved have no time; the CPU time of their last tenth has one."""
    records = world(seconds={"connection": 300.0})
    for record in records:
        times, iterations = record["times"], record["log"]["iteration"]
        count = len(iterations)
        # An epoch of selection has twice the iterations.
        seconds = 2.08 if record["settings"]["method"] == "sno" else 1.0
        times["epoch_cpu_seconds"] = [None] * (count // 2) + [seconds] * (count - count // 2)
        if record["settings"]["experiment"] == "connection-selection":
            moved_at(record, iterations[count * 9 // 10 - 1] + 1)
    found = {f.id: f for f in claims.findings(records)}["conn-time-as-random"]
    assert found.effect == "an iteration at the end takes 1.04 times as long"
    assert found.details[0].endswith("of CPU time, ratio 1.04, on A (fast path)")
    assert "whole trainings" not in " ".join(found.details)
    for record in records:
        if record["settings"]["experiment"] == "connection-selection":
            moved_at(record, record["log"]["iteration"][len(record["log"]["iteration"]) * 9 // 10])
    found = {f.id: f for f in claims.findings(records)}["conn-time-as-random"]
    assert found.outcome == "not enough runs"
    assert "no training of each on one kind of machine" in found.details[0]


def test_where_one_training_lacks_cpu_time_the_clock_decides():
    records = world(seconds={"connection": 104.0})
    for record in records:
        if record["settings"]["method"] != "random":
            record["times"]["epoch_cpu_seconds"] = [1.0] * len(record["log"]["iteration"])
    found = {f.id: f for f in claims.findings(records)}["conn-time-as-random"]
    assert found.effect == "an iteration at the end takes 1.04 times as long"
    assert "CPU" not in found.details[0]


def test_one_setting_without_runs_is_enough_to_say_nothing():
    records = [r for r in world() if r["settings"].get("width") != 453]
    (finding,) = [f for f in claims.findings(records) if f.id == "unit-beats-fixed"]
    assert finding.outcome == "not enough runs"
    assert "fixed 453: 0 of 3 trials" in finding.details
    assert any("epsilon0 = 2^-7 against fixed 205: median 1.52%" in d for d in finding.details)


def test_times_of_two_kinds_of_machines_are_not_compared():
    found = outcomes(world(processor={"sno": "B"}))
    assert found["unit-time-as-fixed"] == "not enough runs"
    assert found["conn-time-as-random"] == "holds"


def test_the_time_of_a_training_that_has_moved_compares_with_none():
    """Both ended on one processor, but they were on different machines before."""
    records = world(seconds={"sno": 200.0})
    for record in records:
        moved_at(record, 2)
    found = {f.id: f for f in claims.findings(records)}["unit-time-as-fixed"]
    assert found.outcome == "not enough runs"
    assert found.details[0] == (
        "epsilon0 = 2^-6 against fixed 784: no training of each on one kind of machine"
    )


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("machine", {"gpu": "A GPU"}),
        ("machine", {"blas": ["openblas 0.3.31 Haswell, 1 thread"]}),
        ("versions", {"path": "plain"}),
    ],
)
def test_times_on_one_processor_compare_only_where_the_rest_is_the_same(part, change):
    records = world(seconds={"sno": 200.0})
    assert outcome("unit-time-as-fixed", records) == "does not hold"
    for record in records:
        if record["settings"].get("method") == "fixed":
            record[part].update(change)
    assert outcome("unit-time-as-fixed", records) == "not enough runs"


def test_times_of_two_kinds_of_machines_do_not_go_into_one_median():
    # On either machine the same time; one median of all would say otherwise.
    slow = world(3, seconds={"sno": 300.0, "fixed": 300.0})
    quick = world(5, processor={"sno": "B", "fixed": "B"})
    fewer = [r for r in quick if r["settings"]["method"] == "sno" or r["settings"]["seed"] == 0]
    finding = {f.id: f for f in claims.findings(slow + fewer)}["unit-time-as-fixed"]
    assert finding.outcome == "holds"
    assert "0.08 h against 0.08 h, ratio 1.00, on A (fast path)" in finding.details[0]
    assert "0.03 h against 0.03 h, ratio 1.00, on B (fast path)" in finding.details[1]


def test_short_runs_do_not_count():
    records = world()
    short = [
        synthetic.unit(0.5, epsilon0=label, seed=seed, epochs=4)
        for label in UNIT_EPSILON0
        for seed in range(9)
    ]
    assert outcomes(records + short) == outcomes(records)
    assert set(outcomes(short).values()) == {"not enough runs"}


def test_the_numbers_stand_beside_the_outcome():
    text = claims.text(claims.findings(world()))
    assert text.startswith(
        "The paper's 18 claims, from records at its schedule: 18 hold, 0 hold in"
    )
    assert "unit-beats-fixed (section 4.1): HOLDS, -0.70 to -0.30 points, n = 55" in text
    line = (
        "epsilon0 = 2^-7 against fixed 205: median 1.52% against 2.22%, difference -0.70 points "
        "(95% interval -0.73 to -0.67), p = 0.00397, 5 and 5 trials"
    )
    assert line in text
    assert "seed 0: 340/141/126: yes" in text
    assert (
        "epsilon0 = 2^-7 against fixed 784: whole trainings 0.03 h against 0.03 h, ratio 1.00"
        in text
    )
    assert text == claims.text(claims.findings(world()))


@pytest.mark.parametrize(("change", "code"), [({}, 0), ({"dropout": 0.0185}, 1)])
def test_strict_tells_by_the_exit_code(tmp_path, change, code, capsys):
    test_compare.write(world(3, **change), tmp_path)
    assert cli.main(["compare", "--runs", str(tmp_path)]) == 0
    assert cli.main(["compare", "--runs", str(tmp_path), "--strict"]) == code
    assert ("DOES NOT HOLD" in capsys.readouterr().out) == bool(code)
