"""What a task of the collection costs in ansible-playbook, beside one of `raw`."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from stage import Instance

TASKS = 50
RUNS = 9


def measure(repository, tools, haproxy):
    """Seconds a task, without what ansible-playbook takes to start."""
    playbook = repository / ".cache/bench/bin/ansible-playbook"
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(repository / "modules/ansible", folder / "ansible_collections/lbops/haproxy")
        instance = Instance(haproxy, folder, "http", 6, 3)
        try:
            request = {"server": "s1", "state": "ready", "instances": [instance.socket]}
            (folder / "request.json").write_text(json.dumps(request))
            ours = {"lbops.haproxy.haproxy_server": {**request, "executable": str(tools.binary)}}
            plays = {
                "none": [{"meta": "noop"}],
                "raw": [{"raw": "true"}] * TASKS,
                "ours": [ours] * TASKS,
            }
            environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_HOME": str(folder / "home")}
            took = {name: [] for name in plays}
            for name, tasks in plays.items():
                play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
                (folder / f"{name}.json").write_text(json.dumps(play))
            for _ in range(RUNS):
                for name in plays:
                    command = [str(playbook), "-i", "localhost,", str(folder / f"{name}.json")]
                    took[name].append(timed(command, environment))
            alone = statistics.median(tools.program(folder / "request.json").seconds for _ in range(20))
            # What ran right after one another is compared, because a machine may be slower for a while.
            def a_task(name, than):
                return round(statistics.median(one - other for one, other in zip(took[name], took[than])) / TASKS, 6)

            return {
                "raw_seconds_a_task": a_task("raw", "none"),
                "ours_seconds_a_task": a_task("ours", "none"),
                "more_seconds_a_task": a_task("ours", "raw"),
                "program_seconds": round(alone, 6),
            }
        finally:
            instance.stop()


def timed(command, environment):
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"ansible-playbook ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start
