"""Shards made by many processes, on any machines that see the cache's folder, to the bytes that one process writes.

A driver (driver.py) holds the space's lock. It plans which words or pictures make each shard and writes what a shard is
made from to the job's folder (plan.py). Workers (worker.py) claim one at a time (claim.py), make it and leave it there.
The driver adds the shards to the manifest, in order. So there is one writer, the manifest stays the only truth, and it
does not matter which worker made a shard, how many there are, or when one dies.

Workers are plain processes that somebody starts (`dptr worker`), or actors of Ray (on_ray.py), or a job array of Slurm
(on_slurm.py). The last two only start them: neither Ray nor Slurm sees what is computed.
"""
