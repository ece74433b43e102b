from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.failures import BACKOFF_FIRST_S, BACKOFF_MAX_S, RULES, FailureKind, is_last_try, retry_delay_s

LOST, CRASH, TIMEOUT = FailureKind.LOST, FailureKind.CRASH, FailureKind.TIMEOUT
jitters = st.floats(0, 1)


def test_every_kind_has_a_rule() -> None:
    assert set(RULES) == set(FailureKind)
    assert all(rule.attempts_max >= 1 for rule in RULES.values())


@pytest.mark.parametrize("kind", [FailureKind.MISSING_FILE, FailureKind.BAD_FILE, FailureKind.SCRIPT_ERROR])
def test_what_would_fail_everywhere_is_not_tried_again(kind: FailureKind) -> None:
    assert retry_delay_s([kind], jitter=0.5) is None
    assert not RULES[kind].blames_worker


def test_a_vanished_node_is_no_fault_of_frame_or_worker() -> None:
    assert not RULES[LOST].blames_worker
    assert retry_delay_s([LOST] * 10, jitter=1.0) is not None


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_kind_is_tried_as_often_as_its_rule_says(kind: FailureKind) -> None:
    most = RULES[kind].attempts_max
    delays = [retry_delay_s([kind] * count, jitter=0.5) for count in range(1, most + 2)]
    assert all(delay is not None for delay in delays[: most - 1])
    assert delays[most - 1 :] == [None, None]


@pytest.mark.parametrize("kind", list(FailureKind))
def test_the_last_try_is_known_before(kind: FailureKind) -> None:
    most = RULES[kind].attempts_max
    known = [is_last_try([LOST] * 3 * (kind is not LOST) + [kind] * failed, kind) for failed in range(most)]
    assert known == [False] * (most - 1) + [True]


def test_a_picture_that_looks_wrong_goes_elsewhere_but_sets_nobody_aside() -> None:
    assert (RULES[FailureKind.FLAWED].blames_worker, RULES[FailureKind.FLAWED].is_recorded) == (True, False)


def test_other_kinds_do_not_use_up_the_tries() -> None:
    assert retry_delay_s([CRASH, LOST, TIMEOUT, CRASH], jitter=0.0) is not None
    assert retry_delay_s([CRASH, LOST, CRASH, CRASH], jitter=0.0) is None


@pytest.mark.parametrize(
    ("failures", "jitter", "delay_s"),
    [
        ([CRASH], 0.0, BACKOFF_FIRST_S / 2),
        ([CRASH], 1.0, BACKOFF_FIRST_S),
        ([CRASH, CRASH], 1.0, BACKOFF_FIRST_S * 2),
        ([LOST, LOST, LOST, CRASH], 1.0, BACKOFF_FIRST_S * 8),
        ([LOST] * 19, 1.0, BACKOFF_MAX_S),
        ([LOST] * 19, 0.0, BACKOFF_MAX_S / 2),
    ],
)
def test_the_wait_doubles_up_to_a_limit(failures: list[FailureKind], jitter: float, delay_s: float) -> None:
    assert retry_delay_s(failures, jitter) == pytest.approx(delay_s)


@given(st.lists(st.sampled_from(FailureKind), min_size=1, max_size=60), jitters)
def test_a_wait_is_never_long_and_never_nothing(failures: list[FailureKind], jitter: float) -> None:
    delay_s = retry_delay_s(failures, jitter)
    assert delay_s is None or BACKOFF_FIRST_S / 2 <= delay_s <= BACKOFF_MAX_S


@given(st.lists(st.sampled_from(FailureKind), min_size=1, max_size=60))
def test_jitter_spreads_over_half_the_step(failures: list[FailureKind]) -> None:
    shortest, longest = retry_delay_s(failures, 0.0), retry_delay_s(failures, 1.0)
    assert (shortest is None) == (longest is None)
    if shortest is not None and longest is not None:
        assert longest == pytest.approx(2 * shortest)


@given(st.lists(st.sampled_from(FailureKind), max_size=20), st.sampled_from(FailureKind))
def test_tries_come_to_an_end(earlier: list[FailureKind], kind: FailureKind) -> None:
    assert retry_delay_s([*earlier, *[kind] * RULES[kind].attempts_max], jitter=0.5) is None
