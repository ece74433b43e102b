from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.blender_versions import choose_blender, matches, version_key
from renderfarm.errors import InvalidAsset, InvalidSettings

FARM = ("4.5.15", "5.2.3", "3.4.1")
"""In order of preference."""

versions = st.tuples(st.integers(2, 6), st.integers(0, 12), st.integers(0, 20)).map(
    lambda parts: ".".join(map(str, parts))
)


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("4.5.15", "4", True),
        ("4.5.15", "4.5", True),
        ("4.5.15", "4.5.15", True),
        ("4.5.15", "4.5.1", False),
        ("4.50.0", "4.5", False),
        ("5.2.3", "4.5", False),
    ],
)
def test_a_shorter_version_asks_for_any_that_begins_so(version: str, wanted: str, fits: bool) -> None:
    assert matches(version, wanted) is fits


def test_versions_compare_as_numbers() -> None:
    assert version_key("4.10.0") > version_key("4.9.9")


@pytest.mark.parametrize(
    ("file_version", "wanted", "chosen"),
    [
        ("4.5", None, "4.5.15"),  # the first that can
        ("2.79", None, "4.5.15"),
        ("5.0", None, "5.2.3"),  # the first is too old for the file
        ("5.2", None, "5.2.3"),
        ("4.5", "5", "5.2.3"),
        ("3.0", "3.4", "3.4.1"),
        ("4.5", "4.5.15", "4.5.15"),
    ],
)
def test_chooses_the_first_that_can_open_the_file(file_version: str, wanted: str | None, chosen: str) -> None:
    assert choose_blender(FARM, file_version, wanted) == chosen


def test_a_file_from_a_newer_blender_is_refused() -> None:
    with pytest.raises(InvalidAsset, match=r"saved by Blender 6\.0, newer than any available here: 4\.5\.15"):
        choose_blender(FARM, "6.0")


def test_a_file_newer_than_the_blender_wanted_is_refused() -> None:
    with pytest.raises(InvalidAsset, match=r"saved by Blender 4\.5, newer .*: 3\.4\.1$"):
        choose_blender(FARM, "4.5", "3.4")


@pytest.mark.parametrize("wanted", ["6", "4.4", "4.5.14"])
def test_a_version_that_the_farm_lacks_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidSettings, match=f"no Blender {wanted} on this farm; it has: 4.5.15, 5.2.3, 3.4.1"):
        choose_blender(FARM, "4.5", wanted)


@pytest.mark.parametrize("wanted", ["", "latest", "4.5.15.1", "4.x", "4,5", "-4", "४.५", "4.5\n", "9" * 5000])
def test_what_is_no_version_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidSettings, match="is not a Blender version"):
        choose_blender(FARM, "4.5", wanted)


def test_a_farm_without_blender_says_so() -> None:
    with pytest.raises(InvalidSettings, match="no Blender on this farm; it has: none"):
        choose_blender((), "4.5")


@given(st.lists(versions, min_size=1, max_size=5), versions)
def test_the_chosen_one_is_never_older_than_the_file(available: list[str], file_version: str) -> None:
    new_enough = [v for v in available if version_key(v)[:2] >= version_key(file_version)[:2]]
    if new_enough:
        assert choose_blender(available, file_version) == new_enough[0]
    else:
        with pytest.raises(InvalidAsset):
            choose_blender(available, file_version)
