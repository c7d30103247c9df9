"""HAProxy instances of any size, for measuring: idle, on Unix sockets and, for their checks, loopback."""

import os
import pathlib
import signal
import socket
import subprocess
import time

LIMIT = 120


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Instance:
    """One HAProxy in the foreground with `backends` of `servers` servers each; `s1` is in all of them.

    In the first `failing` backends `s1` has a health check that fails. With `checked` every server has one, which has
    passed and is not run again.
    """

    def __init__(self, haproxy, folder, name, backends, servers, failing=0, checked=False):
        self.name = name
        self.backends = backends
        self.servers = servers
        self.socket = str(folder / f"{name}.sock")
        config = folder / f"{name}.cfg"
        with config.open("w") as out:
            out.write("global\n    nbthread 1\n    maxconn 1000\n")
            if checked:
                # Each check counts as a file descriptor, though few are ever open.
                out.write("    no strict-limits\n    max-spread-checks 20000\n")
            out.write(f"    stats socket {self.socket} mode 600 level admin\n    stats timeout 5m\n")
            out.write("defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n")
            port = free_port() if checked else None
            bind = f"127.0.0.1:{port}" if checked else f"unix@{folder}/{name}-in.sock"
            out.write(f"frontend in\n    bind {bind}\n    default_backend b1\n")
            for backend in range(1, backends + 1):
                out.write(f"backend b{backend}\n")
                for server in range(1, servers + 1):
                    check = f" check inter 24h addr 127.0.0.1 port {port}" if checked else ""
                    if server == 1 and backend <= failing:
                        check = " check inter 60s fastinter 60s downinter 60s fall 1"
                    address = f"127.0.{backend // 250}.{backend % 250 + 1}:{8000 + server}"
                    out.write(f"    server s{server} {address}{check}\n")
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [haproxy, "-db", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + LIMIT
        while not self.is_up(checked):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{name} does not start: {(folder / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.5 if checked else 0.05)

    def is_up(self, checked):
        """Whether it answers, and where its servers have checks, whether all have passed."""
        try:
            rows = self.ask("show servers state" if checked else "show info").splitlines()[2:]
        except OSError:
            return False
        return not checked or all(row.split()[11] == "3" for row in rows if row)

    def ask(self, command):
        """Sends one command and returns the answer."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(LIMIT)
            stream.connect(self.socket)
            stream.sendall(command.encode() + b"\n")
            answer = bytearray()
            while piece := stream.recv(1 << 20):
                answer += piece
            return answer.decode()

    def states(self, server="s1"):
        """The set of administrative masks that a server has in all backends."""
        rows = (row.split() for row in self.ask("show servers state").splitlines()[2:] if row)
        return {row[6] for row in rows if row[3] == server}

    def await_down(self, count):
        """Waits until the checks of that many servers have failed."""
        end = time.monotonic() + LIMIT
        while True:
            rows = (row.split() for row in self.ask("show servers state").splitlines()[2:] if row)
            down = sum(row[5] == "0" for row in rows)
            if down == count:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{down} servers are down, not {count}")
            time.sleep(0.5)

    def cpu(self):
        """Seconds of CPU time that the process has used."""
        nanoseconds = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def commands(self, state):
        """The lines that bring `s1` to a state in all backends."""
        return "".join(f"set server b{backend}/s1 state {state}\n" for backend in range(1, self.backends + 1))

    def stop(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
