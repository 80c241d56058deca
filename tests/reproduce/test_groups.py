from fractions import Fraction

import chainer
import pytest
import threadpoolctl

from reproduce import groups
from reproduce.experiments.connection_selection import ConnectionSelection
from reproduce.experiments.unit_selection import UNIT_EPSILON0, UnitSelection
from reproduce.record import machine
from reproduce.settings import parse_epsilon0


def make(kind=UnitSelection, **values):
    settings = kind(**values)
    return {"name": settings.name, "settings": settings.as_dict()}


def computed(path="fast", times=None, computers=(), **found):
    return {
        "machine": {"processor": "AMD EPYC", **found},
        "versions": {"path": path},
        "times": times or {},
        "computers": computers,
        "settings": UnitSelection(epsilon0=0.5, epochs=20).as_dict(),
        "log": {"iteration": list(range(5, 105, 5))},
    }


def test_times_of_several_threads_and_of_several_machines_are_kept_apart():
    here = {"machine": {"processor": "AMD EPYC"}, "iterations": [1, 5]}
    there = {"machine": None, "iterations": [6, 9]}
    assert groups.computer(computed(computers=[here])) == "AMD EPYC (fast path)"
    assert groups.computer(computed(computers=[here, there])) == (
        "AMD EPYC and other machines (fast path)"
    )
    other = {"machine": {"processor": "Xeon", "blas": ["openblas 0.3 SkylakeX, 1 thread"]}}
    moved = computed(computers=[other, here, other, here])
    assert groups.computer(moved) == "Xeon, SkylakeX kernels and AMD EPYC (fast path)"
    assert groups.computer(moved, at_the_end=True) == "AMD EPYC (fast path)"
    assert groups.computer(computed(times={"threads": [1]})) == "AMD EPYC (fast path)"
    two = computed("winograd", times={"threads": [2]})
    assert groups.computer(two) == "AMD EPYC (winograd path, 2 threads)"


@pytest.mark.parametrize(
    ("parts", "whole", "at_the_end"),
    [
        ([[2, 90], [1, 100]], "1/2 threads", None),
        ([[1, 90], [2, 100]], "1/2 threads", "2 threads"),
        ([[2, 91], [1, 100]], "1/2 threads", "1/2 threads"),
        ([[1, 100]], None, None),
        # A record that does not say when has the numbers of all its sessions.
        ([[None, 90], [2, 100]], "1/4 threads", "2 threads"),
        ([[None, 91], [2, 100]], "1/4 threads", "1/4 threads"),
    ],
)
def test_the_threads_of_the_last_tenth_count_for_its_times(parts, whole, at_the_end):
    record = computed(
        times={"threads": [1, 4]},
        computers=[{"machine": {}, "iterations": [1, 100], "threads": parts}],
    )
    for last, told in ((False, whole), (True, at_the_end)):
        expected = "fast path" + (f", {told}" if told else "")
        assert groups.computer(record, at_the_end=last) == f"AMD EPYC ({expected})"


def test_all_versions_and_machines_of_a_training_are_known():
    first, last = {"numpy": "1.26.4", "commit": "a"}, {"numpy": "2.4.6", "commit": "b"}
    entry = {"machine": {"processor": "Xeon"}, "versions": [None, first, last]}
    record = {**computed(computers=[entry]), "versions": last}
    assert groups.versions_of(record) == [first, last, last]
    assert groups.machines_of(record) == [{"processor": "Xeon"}, {"processor": "AMD EPYC"}]
    assert groups.commits(record) == ["a", "b"]


def test_generations_of_a_processor_are_told_by_the_kernels_of_their_blas():
    records = [
        computed(blas=["openblas 0.3.31.188.0 SkylakeX, 1 thread"]),
        computed(blas=["openblas 0.3.31.188.0 Haswell, 2 threads"]),
        computed(blas=["openblas 0.3.31.188.0 Haswell, 1 thread"]),
        # A library that does not say which kernels it chose.
        computed("plain", blas=["mkl 2024.2, 1 thread"]),
        computed(blas=["openblas 0.3.31.188.0 Haswell, 1 thread"], gpu="NVIDIA H100"),
        computed(),
    ]
    found = groups.by_computer(records)
    assert found["AMD EPYC, Haswell kernels (fast path)"] == records[1:3]
    assert list(found) == [
        "AMD EPYC (fast path)",
        "AMD EPYC (plain path)",
        "AMD EPYC, Haswell kernels (fast path)",
        "AMD EPYC, SkylakeX kernels (fast path)",
        "NVIDIA H100 (fast path)",
    ]


def test_kernels_are_read_from_what_a_record_of_this_machine_says():
    record = computed(**{**machine(chainer.get_device("@numpy")), "processor": "A processor"})
    kernels = {
        pool["architecture"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"] and "architecture" in pool
    }
    told = ", ".join(["A processor", *(f"{name} kernels" for name in sorted(kernels))])
    assert groups.computer(record) == f"{told} (fast path)"


def names(group):
    return [record["name"] for record in group.records]


def test_a_short_run_stands_beside_the_baselines_of_its_length():
    records = [
        make(method="fixed", width=784, epochs=8),
        make(method="dropout", epochs=8),
        make(method="fixed", width=784),
        make(epochs=4),
        make(epochs=5),
        make(),
    ]
    found = groups.by_schedule(records)
    assert [len(group.records) for group in found] == [2, 1, 3]
    assert [group.is_paper for group in found] == [True, False, False]
    assert [group.fraction for group in found] == [1, Fraction(1, 100), Fraction(1, 125)]
    assert names(found[2]) == [records[i]["name"] for i in (3, 0, 1)]
    assert found[0].schedule == "the paper's schedule"
    assert found[2].schedule == "a short run, 1/125 of the full length"
    assert found[2].title == "Unit selection on MNIST"
    assert [group.slug for group in found] == [
        "unit-selection-paper",
        "unit-selection-epochs-1-of-100",
        "unit-selection-epochs-1-of-125",
    ]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"units": 64}, "a full-length run with a changed setting, units=64"),
        ({"dataset": "fashion-mnist"}, "a full-length run with a changed setting"),
        ({"lr": 0.02}, "a full-length run with a changed setting, lr=0.02"),
        ({"examples": 600}, "a short run, 1/100 of the full length, examples=600"),
        (
            {"test_examples": 600},
            "a full-length run with a changed setting, test_examples=600",
        ),
        ({"batch_size": 64}, "a short run, 1/2 of the full length"),
        ({"epochs": 1000}, "a run of 2 times the full length"),
    ],
)
def test_other_settings_are_another_group(values, told):
    first, second = groups.by_schedule([make(**values), make()])
    assert first.is_paper
    assert not second.is_paper
    assert second.slug != first.slug
    assert second.schedule == told


def test_the_papers_runs_stand_beside_no_other_eta():
    records = [make(eta_factor=2.0), make(method="fixed")]
    assert [names(group) for group in groups.by_schedule(records)] == [
        [records[1]["name"]],
        [records[0]["name"]],
    ]


def test_another_eta_of_a_short_run_shares_its_baselines():
    fixed = make(method="fixed", epochs=8)
    records = [make(epochs=4), make(epochs=4, eta_factor=1.0), fixed]
    found = groups.by_schedule(records)
    assert sorted(map(names, found)) == sorted(
        [[record["name"], fixed["name"]] for record in records[:2]]
    )
    assert len({group.slug for group in found}) == 2
    (other,) = [group for group in found if records[1] in group.records]
    assert "eta_factor=1.0" in other.schedule
    # Where there is no run of the usual one, the baselines have no group of their own.
    (only,) = groups.by_schedule(records[1:])
    assert names(only) == [records[1]["name"], fixed["name"]]


def test_settings_are_in_the_papers_order_and_trials_in_that_of_their_seeds():
    records = [make(method="dropout"), make(method="fixed", width=205)]
    records += [make(method="fixed", width=52)]
    records += [make(epsilon0=parse_epsilon0(text)) for text in reversed(UNIT_EPSILON0)]
    records += [make(epsilon0=2.0**-7, seed=seed) for seed in (2, 1)]
    found = groups.by_setting(records)
    assert list(found) == [
        *(("sno", f"epsilon0={text}") for text in UNIT_EPSILON0),
        ("fixed", "width=52"),
        ("fixed", "width=205"),
        ("dropout", ""),
    ]
    trials = found["sno", "epsilon0=2^-7"]
    assert [record["settings"]["seed"] for record in trials] == [0, 1, 2]
    assert groups.count_trials(records) == "1 to 3 trials"
    assert groups.count_trials(trials) == "3 trials"
    assert groups.count_trials(trials[:1]) == "1 trial"
    random = [make(ConnectionSelection, method="random", usage_rate=r) for r in (1.0, 0.158)]
    assert [setting for _, setting in groups.by_setting(random)] == [
        "usage-rate=0.158",
        "usage-rate=1",
    ]


def test_names_of_files_are_safe_and_different():
    found = [make(epsilon0=parse_epsilon0(text))["name"] for text in UNIT_EPSILON0]
    safe = [groups.safe_name(name) for name in found]
    assert len(set(safe)) == len(found)
    assert safe[1] == "unit-selection_sno_epsilon0-2to-7_seed-0"
    assert groups.safe_name("../a b/c") == ".._a_b_c"
