"""One worker for each GPU, and each of them sees its own: Ray is real, its two GPUs are only a number."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from actors.places import NO_GPUS

_REPOSITORY = Path(__file__).parents[2]

#: Starts the workers of a node with the farm's own code, but for the worker inside each actor, and asks what they see.
_LOOK = """
import json, os, sys
from renderfarm.settings import Settings, prepare_ray_environment

prepare_ray_environment()
import ray
from actors import factory
from actors.handles import NAMESPACE
from actors.places import NO_GPUS, worker_places


class Probe:
    def __init__(self, settings, place):
        factory.open_farm = lambda *_: None
        factory.Worker = lambda farm, worker_id, address, threads, workers: (threads, workers)
        factory.WorkerActor.__init__(self, settings, place)  # there, it is the farm's own

    async def look(self):
        return {name: os.environ.get(name) for name in NO_GPUS}, *self._worker


factory.WorkerActor = Probe
ray.init(
    address="local", namespace=NAMESPACE, num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False,
    object_store_memory=80 * 2**20, _temp_dir=sys.argv[1], _node_ip_address="127.0.0.1",
)
settings = Settings(workers=3)
places = list(worker_places(ray.nodes(), settings.workers))
actors = [factory.start_worker(settings, place) for place in places]
seen = ray.get([actor.look.remote() for actor in actors], timeout=60)
print(json.dumps([[place.worker_id[-2:], place.cpus, *look] for place, look in zip(places, seen)]))
ray.shutdown()
"""


def test_each_worker_sees_its_own_gpu() -> None:
    with tempfile.TemporaryDirectory(prefix="renderfarm-ray-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-c", _LOOK, folder]
        done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout.splitlines()[-1])
    assert [worker[:2] for worker in (first, second, third)] == [["-0", 1.0], ["-1", 1.0], ["-2", 2.0]]
    # A session inherits this. Ray says which GPU by the variable of its kind, CUDA's for those that it is only told of.
    cuda = [worker[2]["CUDA_VISIBLE_DEVICES"] for worker in (first, second)]
    assert sorted(cuda) == ["0", "1"]
    assert third[2] == NO_GPUS
    assert {worker[-1] for worker in (first, second, third)} == {3}, "they share the node's memory by three"
    assert all(threads >= 1 for *_, threads, _ in (first, second, third))
