"""What the largest and strangest requests and replies cost: CPU time and memory of this program."""

import json
import pathlib
import tempfile

from listener import Listener

HEADER = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port\n"
)
INFO = "Name: HAProxy\nVersion: 3.0.11\nNbproc: 1\nPid: 7\nUptime_sec: 100\nStart_time_sec: 1700000000\nStopping: 0\n"
STAT = "# pxname,svname,qcur,scur,stot,status,weight,check_status,check_code,tracked,bck,iid,sid,throttle,check_rise,check_fall,check_health\n"
MIB = 1 << 20


class Peer(Listener):
    """Answers like a HAProxy with these servers, each a backend's number, its name and the server's name.

    All are in maint after the first `set server`. With `turns`, every second dump is in the opposite order.
    """

    def __init__(self, path, servers, turns=False):
        self.servers = servers
        self.turns = turns
        self.dumps = 0
        self.bytes = 0
        self.state = 0
        super().__init__(path)

    def serve(self, client):
        try:
            with client, client.makefile("r", buffering=1 << 16) as lines:
                for line in lines:
                    for piece in self.answer(line.strip()):
                        client.sendall(piece.encode())
        except OSError:
            pass  # the program has left

    def answer(self, line):
        if line == "show info":
            yield INFO
        elif line == "show cli level":
            yield "admin\n"
        elif line.startswith("show servers state"):
            yield from self.rows()
        elif line.startswith("show stat"):
            yield STAT
            for some in pieces(self.servers()):
                yield "".join(f"{name},{server},0,0,0,UP,1,,,,0,{number},{number},,,,\n" for number, name, server in some)
        elif line.startswith("set server"):
            self.state = 1
        yield "\n> "

    def rows(self):
        servers = self.servers()
        self.dumps += 1
        if self.turns and self.dumps % 2 == 0:
            servers = reversed(list(servers))
        yield HEADER
        self.bytes = 0
        op = 0 if self.state else 2
        for some in pieces(servers):
            text = "".join(
                f"{number} {name} {number} {server} 127.0.0.1 {op} {self.state} 1 1 5 1 0 2 0 0 0 0 - 9 - 0 0 - - 0\n"
                for number, name, server in some
            )
            self.bytes += len(text)
            yield text


def pieces(servers):
    some = []
    for server in servers:
        some.append(server)
        if len(some) == 1000:
            yield some
            some = []
    yield some


def measure(tools):
    """Each once: the bytes of the rows, or of the request, the CPU time and the peak memory."""
    many = lambda count, name: lambda: ((number, name(number), "s") for number in range(2, count + 2))  # noqa: E731
    names = many(600_000, lambda number: f"backend-{number % 300_000:015}")
    long = many(1_000_000, lambda number: f"b{number:0199}")
    ten_thousand = many(10_000, lambda number: f"b{number}")
    patterns = [f"b{number}*/s" for number in range(60_000)]
    cases = {
        "names": (names, False, {"server": "none-*", "on_missing": "ignore"}),
        "reordered": (many(40_000, lambda number: f"b{number}"), True, {"server": "s", "state": "maint"}),
        "patterns": (ten_thousand, False, {"server": patterns, "on_missing": "ignore"}),
        "rows": (long, False, {"server": "s", "state": "ready"}),
    }
    return {name: one(tools, *case) for name, case in cases.items()}


def one(tools, servers, turns, request):
    with tempfile.TemporaryDirectory(prefix="hb-") as folder:
        place = pathlib.Path(folder)
        peer = Peer(place / "peer.sock", servers, turns)
        file = place / "request.json"
        file.write_text(json.dumps({**request, "instances": [peer.path], "timeout": 60}))
        took = tools.run([str(tools.binary)], file)
        return {
            "request_mb": round(file.stat().st_size / 1e6, 2),
            "rows_mb": round(peer.bytes / 1e6, 1),
            "cpu_seconds": round(took.cpu_seconds, 3),
            "peak_mb": round(took.megabytes * MIB / 1e6, 1),
        }
