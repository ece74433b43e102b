"""What the supervisor makes of its workers' answers, and of their silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.exceptions import ActorUnschedulableError, RayTaskError

import actors.supervisor
from actors.messages import Outcome, Pulse
from actors.supervisor import Loss, Supervisor, as_worker
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.needs import share_bytes
from renderfarm.settings import Settings
from tests.unit.actors.fake_ray import DEAD, IDLE, INFO, NODE, UNAVAILABLE, FakeRay, Handle, lease, outcome, placed

BROKEN = RayTaskError("execute", "Traceback\nConflict: vm-0 is busy", ValueError("busy"))


class World:
    def __init__(self, ray: FakeRay, workers: int = 1) -> None:
        self.ray = ray
        settings = Settings(workers=workers, lease_s=15.0)
        self.supervisor = Supervisor(settings, ray.start_worker, lambda: None, lambda: ray.now)

    def tick(self, after_s: float = 1.0) -> tuple[list[Outcome], list[Loss]]:
        self.ray.now += after_s
        self.supervisor.ensure_workers(self.ray.now)
        return self.supervisor.listen(self.ray.now)

    @property
    def handle(self) -> Handle:
        return self.ray.handles[-1]

    def in_service(self) -> None:
        """Start the worker and hear from it."""
        self.tick()
        self.handle.describe.last.give(INFO)
        self.tick()
        self.tick()
        self.pulse(IDLE)
        assert self.is_free()

    def pulse(self, pulse: Pulse | Exception) -> None:
        """Answer the ping under way."""
        self.handle.ping.last.give(pulse)
        self.tick()
        self.tick()

    def is_free(self) -> bool:
        slots = self.supervisor.slots(self.ray.now)
        return bool(slots) and slots[0].free


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    ray = FakeRay()
    monkeypatch.setattr(actors.supervisor, "ray", ray)
    return World(ray)


def test_a_worker_is_free_once_its_pulse_says_so(world: World) -> None:
    world.in_service()


def test_an_attempts_way(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed()])
    world.pulse(IDLE)  # asked for before the lease reached the worker
    assert not world.is_free()
    world.handle.execute.last.give([outcome()])
    outcomes, _ = world.tick()
    assert outcomes == [outcome()]
    assert world.is_free()
    assert world.supervisor.members["vm-0"].open_scene == "scene"


@pytest.mark.parametrize("error", [UNAVAILABLE, BROKEN])
def test_a_pulse_that_fails_is_asked_for_again(world: World, error: Exception) -> None:
    world.in_service()
    world.pulse(error)
    assert not world.is_free()
    world.pulse(IDLE)
    assert world.is_free()


@pytest.mark.parametrize("error", [UNAVAILABLE, BROKEN])
def test_an_outcome_that_is_unknown_leaves_the_lease_until_a_fresh_pulse(world: World, error: Exception) -> None:
    world.in_service()
    world.supervisor.dispatch([placed()])
    world.tick()
    stale = world.handle.ping.last
    world.handle.execute.last.give(error)
    world.tick()
    member = world.supervisor.members["vm-0"]
    assert (list(member.leases), world.is_free()) == ([lease()], False)
    stale.give(IDLE)  # asked for while the attempt was thought to run
    world.tick()
    world.tick()
    assert (list(member.leases), world.is_free()) == ([lease()], False)
    world.pulse(Pulse(leases=(lease(),), open_scene=None))
    assert (list(member.leases), world.is_free()) == ([lease()], False)
    world.pulse(IDLE)
    assert (list(member.leases), world.is_free()) == ([], True)


@pytest.mark.parametrize("error", [UNAVAILABLE, BROKEN])
def test_a_description_that_fails_is_asked_for_again(world: World, error: Exception) -> None:
    world.tick()
    world.handle.describe.last.give(error)
    world.tick()
    world.tick()
    assert len(world.handle.describe.calls) == 2
    world.handle.describe.last.give(INFO)
    world.tick()
    assert world.supervisor.trouble is None


@pytest.mark.parametrize("error", [DEAD, ActorUnschedulableError("the node is gone")])
def test_a_worker_that_dies_is_lost_and_started_again(world: World, error: Exception) -> None:
    world.in_service()
    world.handle.ping.last.give(error)
    _, [loss] = world.tick()
    assert loss.member.worker_id == "vm-0"
    assert (world.supervisor.trouble or "").startswith("vm-0 has died: ")
    world.tick(2.9)
    assert len(world.ray.handles) == 1
    world.in_service()
    assert len(world.ray.handles) == 2
    assert world.supervisor.trouble is None


def test_a_worker_that_keeps_dying_at_its_start_is_started_ever_less_often(world: World) -> None:
    assert world.supervisor.trouble == "no node with processors is known yet"
    world.tick()
    assert world.supervisor.trouble == "vm-0 has not started yet"
    for pause_s in (3, 6, 12, 24, 48, 60, 60):
        starts = len(world.ray.handles)
        world.handle.describe.last.give(DEAD)
        world.tick()
        assert (world.supervisor.trouble or "").startswith("vm-0 does not start: ")
        world.tick(pause_s - 0.5)
        assert len(world.ray.handles) == starts
        world.tick(0.5)
        assert len(world.ray.handles) == starts + 1


def test_a_worker_that_is_silent_is_killed(world: World) -> None:
    world.in_service()
    losses: list[Loss] = []
    for second in range(1, 70):
        losses += world.tick()[1]
        assert bool(losses) == (second > 59), second
        if losses:
            break
    assert world.ray.killed == [losses[0].member.handle]
    assert "no sign of life for 61 s" in losses[0].reason


def test_a_worker_that_stays_unreachable_is_killed(world: World) -> None:
    world.in_service()
    while not world.ray.killed:
        assert len(world.handle.ping.calls) < 50
        world.pulse(UNAVAILABLE)
    assert len(world.ray.killed) == 1


def test_a_scheduler_that_did_not_listen_blames_nobody(world: World) -> None:
    world.in_service()
    world.handle.ping.last.give(IDLE)
    world.tick(3600.0)
    world.tick(3600.0)  # the question is only now asked
    world.handle.ping.last.give(IDLE)
    world.tick()
    assert not world.ray.killed


def test_workers_start_in_their_places_and_are_known_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = {"CPU": 3.0, "GPU": 1.0}
    ray = FakeRay(all_nodes=[NODE | {"Resources": resources, "Labels": {"pool": "fast"}}])
    monkeypatch.setattr(actors.supervisor, "ray", ray)
    world = World(ray, workers=2)
    world.tick()
    for handle in ray.handles:
        handle.describe.last.give(INFO)
    world.tick()
    assert [place.cpus for place in ray.places] == [1.0, 2.0]
    slots = {slot.worker_id: slot for slot in world.supervisor.slots(ray.now)}
    assert {name: slot.gpus for name, slot in slots.items()} == {"vm-0": 1, "vm-1": 0}
    assert {slot.memory_bytes for slot in slots.values()} == {share_bytes(INFO.memory_bytes, 2)}
    assert world.supervisor.least_memory_bytes == share_bytes(INFO.memory_bytes, 2)
    workers = [as_worker(member) for member in world.supervisor.members.values()]
    assert [(worker.gpus, worker.labels) for worker in workers if worker] == [
        (1, {"pool": "fast"}),
        (0, {"pool": "fast"}),
    ]


def test_a_node_without_cpus_gets_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(all_nodes=[NODE | {"Resources": {}}, NODE | {"Alive": False}])
    monkeypatch.setattr(actors.supervisor, "ray", ray)
    World(ray).tick()
    assert not ray.handles


# --- units given ahead -------------------------------------------------------------------------------------------


def test_a_worker_whose_units_are_short_may_be_given_more(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(1, 0.1), placed(2, 0.2)])
    [slot] = world.supervisor.slots(world.ray.now)
    assert (slot.free, slot.units, slot.may_take()) == (False, 2, True)
    assert slot.backlog_s == pytest.approx(0.3)
    world.supervisor.dispatch([placed(3, None)])
    [slot] = world.supervisor.slots(world.ray.now)
    assert (slot.units, slot.may_take()) == (3, False)


def test_many_units_go_in_several_calls_so_that_answers_come_before_the_last(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(number, 0.001) for number in range(120)])
    calls = world.handle.execute.calls
    assert len(calls) == 3
    calls[0].give([replace(outcome(), lease=lease(number)) for number in range(50)])
    outcomes, _ = world.tick()
    assert len(outcomes) == 50
    [slot] = world.supervisor.slots(world.ray.now)
    assert slot.units == 70


def test_a_call_is_of_two_seconds_of_work_at_most(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(number, 0.8) for number in range(4)] + [placed(9, 3.0)])
    assert len(world.handle.execute.calls) == 3


def test_what_a_worker_has_left_grows_less_with_time_and_with_what_it_has_done(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(1, 2.0), placed(2, 2.0)])
    world.tick(after_s=1.5)
    [slot] = world.supervisor.slots(world.ray.now)
    assert slot.backlog_s == pytest.approx(2.5)
    world.handle.execute.calls[0].give([replace(outcome(), since_turn_s=0.1)])
    world.tick(after_s=0.5)
    [slot] = world.supervisor.slots(world.ray.now)
    assert slot.backlog_s == pytest.approx(1.9)


def test_an_attempt_that_had_no_turn_tells_nothing_of_how_far_the_worker_is(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(1, 2.0), placed(2, 2.0)])
    world.handle.execute.calls[0].give([outcome()])
    world.tick(after_s=1.5)
    [slot] = world.supervisor.slots(world.ray.now)
    assert slot.backlog_s == pytest.approx(0.5)


def test_of_a_worker_that_is_late_by_much_nobody_knows_when_it_will_be_done(world: World) -> None:
    world.in_service()
    world.supervisor.dispatch([placed(1, 0.5)])
    world.tick(after_s=2.0)
    [slot] = world.supervisor.slots(world.ray.now)
    assert (slot.backlog_s, slot.may_take()) == (0.0, True)
    world.tick(after_s=2.0)
    [slot] = world.supervisor.slots(world.ray.now)
    assert not slot.may_take()


def test_a_worker_is_not_asked_all_the_time_what_it_does(world: World) -> None:
    world.in_service()
    world.handle.ping.last.give(IDLE)
    asked = len(world.handle.ping.calls)
    for _ in range(10):
        world.tick(after_s=0.01)
    assert len(world.handle.ping.calls) <= asked + 1


def test_a_worker_whose_leases_are_those_of_a_former_scheduler_is_given_nothing(world: World) -> None:
    world.in_service()
    world.pulse(Pulse(leases=(lease(1), lease(2)), open_scene=None))
    [slot] = world.supervisor.slots(world.ray.now)
    assert (slot.units, slot.may_take()) == (2, False)


@pytest.mark.parametrize(("kind", "counted"), [(FailureKind.CRASH, 1), (FailureKind.FLAWED, 0), (FailureKind.LOST, 0)])
def test_what_may_be_the_scenes_own_doing_is_not_on_the_workers_record(
    world: World, kind: FailureKind, counted: int
) -> None:
    world.in_service()
    world.supervisor.dispatch([placed()])
    world.handle.execute.last.give([replace(outcome(), failure=kind)])
    world.tick()
    assert world.supervisor.members["vm-0"].consecutive_failures == counted
