"""Suggestions for misspelt names."""

import pytest

from banyan.spelling import closest, listed, unknown

FIELDS = ("name", "command", "state", "priority", "progress", "timeout", "dependencies", "tags", "stdin")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("nmae", "name"), ("comand", "command"), ("dependancies", "dependencies"), ("tag", "tags")),
        *(("naem", "name"), ("atgs", "tags")),
        *(("Time-Out", "timeout"), ("prio", "priority"), ("STATE", "state")),
    ],
)
def test_a_name_that_is_alike_is_found(given: str, meant: str) -> None:
    assert closest(given, FIELDS) == meant


@pytest.mark.parametrize("given", ["cores", "memory", "x", "", "nothing like it", "comments", "p", "n" * 100_000])
def test_a_name_that_is_not_alike_is_not_guessed(given: str) -> None:
    assert closest(given, FIELDS) is None


def test_a_word_of_another_system_stands_for_ours_where_ours_is_known() -> None:
    words = {"ram": "memory"}
    assert closest("RAM", ["cores", "memory"], words) == "memory"
    assert closest("ram", ["cores"], words) is None


def test_a_beginning_of_two_names_is_not_guessed() -> None:
    assert closest("max", ["max_retry_count", "max_shutdown_time"]) is None
    assert closest("max_r", ["max_retry_count", "max_shutdown_time"]) == "max_retry_count"


def test_the_sentence_says_what_is_missing_what_was_meant_and_what_there_is() -> None:
    assert unknown("queue", "gpus", ["gpu", "default"]) == (
        "there is no queue 'gpus'; did you mean 'gpu'? (there are: default, gpu)"
    )
    assert unknown("queue", "nope", ["gpu", "default"]) == "there is no queue 'nope'; there are: default, gpu"
    assert unknown("queue", "nope", []) == "there is no queue 'nope'; there are: none"


def test_a_long_list_is_cut() -> None:
    assert listed([str(number) for number in range(10, 40)], most=3) == "10, 11, 12 and 27 more"
