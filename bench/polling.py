"""What waiting costs: bytes that are read a look, and HAProxy's own CPU time."""

import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

from listener import Listener
from stage import Instance

# How long a wait lasts: long enough for several looks, which are further apart where more is looked at.
SECONDS = {"few_of_100": 20, "few_of_100000": 20, "many_of_100000": 75}


class Tap(Listener):
    """Stands between the program and a stats socket, and counts what comes back on each connection."""

    def __init__(self, path, target):
        self.target = target
        self.replies = []
        super().__init__(path)

    def serve(self, client):
        began = time.monotonic()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.target)
            threading.Thread(target=forward, args=[client, server], daemon=True).start()
            self.replies.append((began, forward(server, client)))


def forward(source, target):
    count = 0
    try:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
            count += len(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return count


def wait(tools, folder, address, servers, seconds):
    """Starts a wait for servers that never come up; returns the process."""
    request = {"server": servers, "state": "ready", "wait": {"timeout": seconds}, "instances": [address], "timeout": 60}
    file = folder / "wait.json"
    file.write_text(json.dumps(request))
    return subprocess.Popen([tools.binary], stdin=file.open(), stdout=subprocess.DEVNULL)


def measure(tools, haproxy):
    cases = {"few_of_100": (10, 10), "few_of_100000": (10_000, 10), "many_of_100000": (10_000, 1_000)}
    return {name: look(tools, haproxy, *case, SECONDS[name]) for name, case in cases.items()}


def look(tools, haproxy, backends, matched, seconds):
    """Waits for `matched` servers that are down; the first and the last look are not counted."""
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder:
        folder = pathlib.Path(folder)
        instance = Instance(haproxy, folder, "polled", backends, 10, failing=matched)
        try:
            instance.await_down(matched)
            idle = instance.cpu()
            time.sleep(5)
            idle = (instance.cpu() - idle) / 5
            names = [f"b{backend}/s1" for backend in range(1, matched + 1)]
            # Through the tap for the bytes, and without it for the time, because HAProxy would wait for the tap.
            tap = Tap(folder / "tap.sock", instance.socket)
            waiting = wait(tools, folder, tap.path, names, seconds)
            began = time.monotonic()
            waiting.wait(seconds + 60)
            looks = sorted(it for it in tap.replies if began + 5 < it[0] < began + seconds - 3)
            bytes_a_look = sum(count for _, count in looks) / max(len(looks), 1)
            waiting = wait(tools, folder, instance.socket, names, seconds)
            time.sleep(5)
            spent, since = instance.cpu(), time.monotonic()
            time.sleep(seconds - 8)
            share = (instance.cpu() - spent) / (time.monotonic() - since) - idle
            waiting.wait(60)
            return {
                "seconds": seconds,
                "matched": matched,
                "servers": backends * 10,
                "looks_a_second": round(len(looks) / (seconds - 8), 2),
                "bytes_a_look": round(bytes_a_look),
                "haproxy_cpu_percent": round(100 * share, 2),
            }
        finally:
            instance.stop()
