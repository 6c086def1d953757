"""Values of others: of their type, in their range, of a bounded length; anything else is one sentence."""

from dataclasses import dataclass
from typing import Any

import pytest

from border import checked, checked_dataclass


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([[1], []], list[list[int]], [[1], []]),
        (None, list[str] | None, None),
        ("a", str | list[str], "a"),
        (["a"], str | list[str], ["a"]),
        ({"a": {"b": 1}}, dict[str, Any], {"a": {"b": 1}}),
        (False, bool, False),
    ],
)
def test_values_of_their_type(value, kind, expected):
    found = checked(value, kind, "x")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "x must be a whole number, found True"),
        (True, float, "x must be a number, found True"),
        (1.0, int, "x must be a whole number, found 1.0"),
        ("1", int, "x must be a whole number, found '1'"),
        (1, bool, "x must be true or false, found 1"),
        (None, str, "x must be a text, found None"),
        ({}, list[int], "x must be a list, found {}"),
        ([], dict[str, Any], r"x must be an object, found \[\]"),
        ([1, "2"], list[int], r"x\[1\] must be a whole number, found '2'"),
        ({"a": {"b": []}}, dict[str, dict[str, int]], r"x\['a'\]\['b'\] must be a whole number"),
        (float("nan"), float, "x must be a finite number, found nan"),
        (float("inf"), float, "x must be a finite number, found inf"),
        (10**400, float, "x must be a finite number, found a long number"),
        (10**400, int, "x must be a finite number, found a long number"),
        ("a" * 200_000, str, "x has 200,000 characters"),
        ("a" * 1000, int, r"found 'aaa.*\.\.\.$"),
        ({}, int | list[int] | None, "x must be a list, found"),
    ],
)
def test_values_of_another_type(value, kind, message):
    with pytest.raises(ValueError, match=message) as error:
        checked(value, kind, "x")
    assert len(str(error.value)) < 200


def test_ranges_and_lengths():
    assert checked([0, 5], list[int], "x", 0, 5) == [0, 5]
    for value in ([-1], [6]):
        with pytest.raises(ValueError, match=r"x\[0\] must be at least 0 and at most 5, found"):
            checked(value, list[int], "x", 0, 5)
    with pytest.raises(ValueError, match="x has 1,000,001 entries"):
        checked([0] * 1_000_001, list[int], "x")


@dataclass
class Shape:
    width: int
    heads: tuple[int, ...] = (1,)
    scale: float = 1.0


def test_a_dataclass_from_a_file():
    limits = {"width": (1, 100)}
    assert checked_dataclass(Shape, {"width": 4, "heads": [1, 2], "scale": 2}, limits) == Shape(4, (1, 2), 2.0)
    for values, message in (
        ({"width": 0}, "width must be at least 1 and at most 100, found 0"),
        ({"width": "4"}, "width must be a whole number"),
        ({"width": 4, "heads": 2}, "heads must be a list, found 2"),
        ({"width": 4, "depth": 2}, "Shape has no field 'depth'"),
        ({}, "Shape needs width"),
    ):
        with pytest.raises(ValueError, match=message):
            checked_dataclass(Shape, values, limits)
