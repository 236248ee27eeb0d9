"""A Ray cluster of two nodes and a head, killed piece by piece: `python -m tests.faults.on_ray [--kills N]`, by hand.

Its actors, its nodes, its head and the driver get a SIGKILL at random moments; a node may also be cut off, which is a
raylet that is stopped for longer than the head waits. The same command goes on, and its table of neighbours is that of
a single process, byte for byte. The last line of output is what happened, as JSON.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ray.cluster_utils import Cluster

import pipeline.neighbours
from cache.space import open_space
from pipeline.neighbours import neighbours
from pipeline.workers.driver import Driver
from pipeline.workers.on_ray import RayCrew
from tests.faults import job

SHARD = 5
# a head that is gone, and a node that does not answer, are given up after seconds, not minutes
HASTY = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=600, help="when to begin no further round")
    parser.add_argument("--drive", nargs=2, help="be the driver: address of the cluster, and cache")
    asked = parser.parse_args()
    pipeline.neighbours.SHARD = SHARD
    if asked.drive:
        crew = RayCrew(asked.drive[0], print)
        neighbours(open_space(Path(asked.drive[1])), "two", "noise", 3, job.quiet, Driver(crew, job.quiet))
    else:
        os.environ.update(HASTY)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(rounds(Path(folder), asked.kills, time.monotonic() + asked.seconds)))


def rounds(folder: Path, count: int, until: float) -> Counter[str]:
    """Kill `count` times, and compare whenever a table is complete."""
    random_, done = random.Random(0), Counter[str]()
    *others, last = job.parts(job.prepare(folder), 1500)
    for part in others:
        part(folder / "before")
    pipeline.neighbours.SHARD = SHARD
    last(job.copy(folder / "before", folder / "whole"))
    expected, cut, cluster = job.files(folder / "whole"), folder / "cut", started()
    while done["kills"] < count and time.monotonic() < until:
        job.copy(folder / "before", cut)
        ended = False
        while not ended:
            command = [sys.executable, "-m", "tests.faults.on_ray", "--drive", cluster.address, str(cut)]
            driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while driver.poll() is None:
                time.sleep(random_.uniform(1, 8))
                what = random_.choice(["actor", "actor", "actor", "driver", "node", "cut off", "head"])
                if driver.poll() is None and done["kills"] < count:
                    cluster = kill(what, cluster, driver)
                    done["kills"] += 1
                    done[what] += 1
                    print(dict(done), file=sys.stderr, flush=True)
            ended = driver.returncode == 0
        assert job.files(cut) == expected
        done["finished byte-identical"] += 1
    cluster.shutdown()
    return done


def started() -> Cluster:
    """A head, and two nodes for one worker each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    return cluster


def kill(what: str, cluster: Cluster, driver: subprocess.Popen) -> Cluster:
    """Kill a part; returns the cluster, or a new one if its head is dead."""
    if what == "driver":
        driver.kill()
    elif what == "actor":
        for number in actors()[:1]:
            os.kill(number, signal.SIGKILL)
    elif what == "head":
        os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
        try:
            driver.wait(40)
        except subprocess.TimeoutExpired:
            driver.kill()
        cluster.shutdown()
        return started()
    else:
        node = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
        if what == "cut off":
            raylet = node.all_processes["raylet"][0].process.pid
            os.kill(raylet, signal.SIGSTOP)
            time.sleep(5)
            os.kill(raylet, signal.SIGCONT)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
    return cluster


def actors() -> list[int]:
    """The numbers of the processes that are workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Worker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
