"""A Ray cluster of two nodes and a head, killed piece by piece: `python -m tests.faults.on_ray [--kills N]`, by hand.

Its actors, its nodes, its head and the driver get a SIGKILL at random moments; a node may also be cut off, which is a
raylet that is stopped for longer than the head waits. The same command goes on, and its table of neighbours is that of
a single process, byte for byte; with --all, its words and photographs, too, whose actors take ten seconds to start. One
cluster serves as many caches as it takes. The last line of output is what happened, as JSON.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from ray.cluster_utils import Cluster

import pipeline.neighbours
from pipeline.encoder import Encoder
from pipeline.workers.driver import Driver
from pipeline.workers.on_ray import RayCrew
from tests.faults import job

SHARD, LABELS = 5, 1500
OFTEN = {"actor": 6, "driver": 3, "node": 3, "cut off": 1, "head": 1}  # how often each is killed, compared with others
STORE = 80 << 20  # bytes of a node's object store, which nobody uses: Ray wants no fewer
FORK = multiprocessing.get_context("fork")  # from a process that has imported everything, and has no thread of Ray's
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
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--all", action="store_true", help="words and photographs, too, and not the table alone")
    parser.add_argument("--seconds", type=float, default=1200, help="when to kill no more")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.update(HASTY)
    with tempfile.TemporaryDirectory() as folder:
        until = time.monotonic() + asked.seconds
        print(json.dumps(rounds(Path(folder), asked.kills, until, random.Random(asked.seed), asked.all)))


def rounds(folder: Path, count: int, until: float, random_: random.Random, everything: bool) -> Counter[str]:
    """Kill `count` times, and compare whenever a cache is complete: `everything` in it, or its last part alone."""
    done, encoder = Counter[str](), job.prepare(folder)
    if everything:  # an encoder that other processes can make, too
        encoder = Encoder("wordclip2", "untrained:1", precision="fp32", device="cpu")
    labels, first, pause = (LABELS // 5, 0, 30) if everything else (LABELS, 3, 4)
    for part in job.parts(encoder, labels)[:first]:
        part(folder / "before")
    pipeline.neighbours.SHARD = SHARD
    job.copy(folder / "before", folder / "whole")
    for part in job.parts(encoder, labels)[first:]:
        part(folder / "whole")

    def drive(address: str) -> None:
        for descriptor in (1, 2):  # Ray complains of what is killed
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        elsewhere = Driver(RayCrew(address, job.quiet), job.quiet)
        for part in job.parts(encoder, labels, elsewhere)[first:]:
            part(cut)

    expected, cut, cluster = job.files(folder / "whole"), folder / "cut", Kept()
    while done["kills"] < count and time.monotonic() < until:
        job.copy(folder / "before", cut)
        ended = False
        while not ended:
            driver = FORK.Process(target=drive, args=(cluster.address,))
            driver.start()
            while driver.exitcode is None:
                driver.join(random_.uniform(0, pause))
                if driver.exitcode is None and done["kills"] < count and time.monotonic() < until:
                    (what,) = random_.choices(list(OFTEN), list(OFTEN.values()))
                    if kill(what, cluster, driver):
                        done["kills"] += 1
                        done[what] += 1
                        print(dict(done), file=sys.stderr, flush=True)
            ended = driver.exitcode == 0
        assert job.files(cut) == expected
        done["finished byte-identical"] += 1
    cluster.end()
    return done


class Kept:
    """A cluster, in a process of its own: threads of Ray in this one would not survive its forks."""

    def __init__(self) -> None:
        self._pipe, theirs = FORK.Pipe()
        self._process = FORK.Process(target=_keep, args=(theirs,))
        self._process.start()
        self.address: str = self._pipe.recv()

    def ask(self, what: str) -> None:
        """Have something done that `_keep` knows, and wait for it."""
        self._pipe.send(what)
        self.address = self._pipe.recv()

    def end(self) -> None:
        """Stop it."""
        self._pipe.send("")
        self._process.join()


def _keep(pipe: Connection) -> None:
    cluster = _cluster()
    pipe.send(cluster.address)
    while what := pipe.recv():
        if what == "head":
            os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
        elif what == "anew":
            cluster.shutdown()
            cluster = _cluster()
        else:
            node = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
            if what == "cut off":
                raylet = node.all_processes["raylet"][0].process.pid
                os.kill(raylet, signal.SIGSTOP)
                time.sleep(5)
                os.kill(raylet, signal.SIGCONT)
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=False)
        pipe.send(cluster.address)
    cluster.shutdown()


def _cluster() -> Cluster:
    """A head, and two nodes for one worker each."""
    head = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    return cluster


def kill(what: str, cluster: Kept, driver: multiprocessing.Process) -> bool:
    """Kill a part, and put another in its place, unless that is the driver. False if there was none."""
    if what == "driver":
        driver.kill()
    elif what == "actor":
        found = actors()
        for number in found[:1]:
            os.kill(number, signal.SIGKILL)
        return bool(found)
    elif what == "head":
        cluster.ask("head")
        driver.join(40)
        driver.kill()
        cluster.ask("anew")
    else:
        cluster.ask(what)
    return True


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
