"""Runs of the things that are compared."""

import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile


@dataclasses.dataclass
class Took:
    """What one run took."""

    seconds: float
    megabytes: float
    cpu_seconds: float = 0.0
    is_capped: bool = False


class Tools:
    """The program, the floor and the peers, each started by `launch`, which measures."""

    def __init__(self, repository):
        self.binary = repository / "target/release/haproxy_server"
        self.examples = repository / "target/release/examples"
        self.python = repository / ".cache/bench/bin/python"
        if folder := os.environ.get("CARGO_TARGET_DIR"):
            self.binary = pathlib.Path(folder) / "release/haproxy_server"
            self.examples = pathlib.Path(folder) / "release/examples"

    def run(self, command, stdin="/dev/null", cap=600):
        """Runs a command, which must succeed."""
        # In memory, as the pipe is from which a host reads.
        with tempfile.NamedTemporaryFile(prefix="hb-", dir="/dev/shm") as output:
            launch = [str(self.examples / "launch"), str(stdin), output.name, *command]
            process = subprocess.Popen(launch, stdout=subprocess.PIPE, text=True, start_new_session=True)
            try:
                line, _ = process.communicate(timeout=cap)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.communicate()
                return Took(float(cap), 0.0, is_capped=True)
            nanoseconds, cpu, peak, code = map(int, line.split())
            if code != 0:
                raise RuntimeError(f"{command} ended with {code}: {output.read()[:2000]!r}")
            return Took(nanoseconds / 1e9, peak / 1024, cpu / 1e9)

    def program(self, request, binary=None):
        return self.run([str(binary or self.binary)], request)

    def floor(self, arguments):
        return self.run([str(self.examples / "floor"), *arguments])

    def peer(self, arguments, cap):
        """community.general.haproxy as a bare Python module, with no Ansible around it."""
        module = "ansible_collections.community.general.plugins.modules.haproxy"
        words = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
        return self.run([str(self.python), "-m", module, words], cap=cap)

    def haproxytool(self, socket, state, cap):
        """haproxytool for every server `s1` behind a socket; it asks on a terminal before it takes several out."""
        words = {"maint": ["--force", "--maintenance"], "ready": ["--ready"]}[state]
        return self.run([str(self.python.parent / "haproxytool"), "server", "--file", socket, *words, "s1"], cap=cap)
