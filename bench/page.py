"""Writes the numbers of bench/results.json into the tables of docs/performance.md, each between its two marks."""

import json
import pathlib
import re

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def main():
    results = json.loads((REPOSITORY / "bench/results.json").read_text())
    page = REPOSITORY / "docs/performance.md"
    text = page.read_text()
    for name, lines in tables(results).items():
        mark = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        body = "\n".join(["", "", *lines, "", ""])
        text, count = re.subn(f"{re.escape(mark[0])}.*?{re.escape(mark[1])}", lambda _: body.join(mark), text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"bench: docs/performance.md needs the marks of '{name}' once")
    page.write_text(text)


def tables(results):
    return {
        "machine": [machine(results)],
        "cases": list(cases(results["cases"])),
        "asked": list(asked(results["asked"])) if "asked" in results else ["Not measured yet."],
        "unchanged": list(unchanged(results["cases"])),
        "resources": list(resources(results["cases"])),
        "waiting": list(waiting(results["polling"])),
        "bounds": list(bounds(results["bounds"])) if "bounds" in results else ["Not measured yet."],
        "targets": list(targets(results)),
    }


def machine(results):
    here, runs = results["machine"], results["runs"]
    return (f"Measured with HAProxy {here['haproxy']} on {here['cores']} cores of {here['cpu']}, medians of {runs} changes to "
            f"maint and {runs} back.")


def ms(seconds):
    return f"{seconds * 1e3:,.1f} ms"


def in_floors(case):
    return case["seconds"]["ours"] / case["seconds"]["floor"]


def times(case, peer="peer"):
    """How many times as long as this program a peer takes, at least where it was stopped."""
    return int(case[peer]["seconds"] / case["seconds"]["ours"])


def cases(cases):
    yield ("| case | instances | servers | changed | floor | this program | in floors | `community.general.haproxy` | times as long | "
           "`haproxytool` | times as long |")
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, case in cases.items():
        took = case["seconds"]
        peers = []
        for peer in ("peer", "haproxytool"):
            if measured := case.get(peer):
                more = "more than " if measured["is_capped"] else ""
                peers += [f"{more}{measured['seconds']:.1f} s", f"{more}{times(case, peer):,}"]
            else:
                peers += ["–", "–"]
        yield (f"| {name} | {case['instances']} | {case['servers']:,} | {case['matched']:,} | {ms(took['floor'])} | "
               f"{ms(took['ours'])} | {in_floors(case):.2f} | {' | '.join(peers)} |")


def asked(asked):
    """What is asked for at huge, beside what it is compared with, by whether servers have health checks."""
    yield "| at *huge*: 10,000 backends of 10 servers | without health checks | | peak memory | each with one | | peak memory |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    over = lambda name: lambda took: f"{ms(took[name] - took['start'])} over a start ({ms(took['start'])})"  # noqa: E731
    times = lambda name, than: lambda took: f"{took[name] / took[than]:.2f} times the plain change"  # noqa: E731
    alone = lambda took: f"{took['status'] / took['show_stat']:.2f} times `show stat` alone ({ms(took['show_stat'])})"  # noqa: E731
    for name, what, compared in (
        ("one", "one server of one backend", over("one")),
        ("six", "one server of each of six backends", over("six")),
        ("everywhere", "one server of every backend", lambda _: ""),
        ("one_guarded", "one server, with a guard", times("one_guarded", "one")),
        ("six_guarded", "six servers, with a guard", times("six_guarded", "six")),
        ("everywhere_guarded", "everywhere, with a guard", times("everywhere_guarded", "everywhere")),
        ("status_one", "a status of one backend", over("status_one")),
        ("status", "a status of everything", alone),
    ):
        kinds = (asked["unchecked"], asked["checked"])
        cells = [f"{ms(kind['seconds'][name])} | {compared(kind['seconds'])} | {kind['peak_mb'][name]:.1f} MB" for kind in kinds]
        yield f"| {what} | {' | '.join(cells)} |"


def unchanged(cases):
    yield "| nothing to change | one raw dump of each instance | this program | |"
    yield "| --- | --- | --- | --- |"
    for name, case in cases.items():
        raw, ours = case["seconds"]["raw"], case["seconds"]["unchanged"]
        yield f"| {name} | {ms(raw)} | {ms(ours)} | {ours / raw:.2f} times, +{ms(ours - raw)} |"


def resources(cases):
    yield f"| | {' | '.join(cases)} |"
    yield "| --- |" + " --- |" * len(cases)
    for what, number in {
        "peak memory of this program, MB": lambda case: case["peak_mb"]["ours"],
        "HAProxy's CPU time for the floor, ms": lambda case: case["haproxy_cpu_seconds"]["floor"] * 1e3,
        "HAProxy's CPU time for this program, ms": lambda case: case["haproxy_cpu_seconds"]["ours"] * 1e3,
    }.items():
        yield f"| {what} | " + " | ".join(f"{number(case):.1f}" for case in cases.values()) + " |"


def waiting(polling):
    yield "| pending | of | for | polls a second | bytes from HAProxy per poll | CPU time of HAProxy, of one core |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for look in polling.values():
        yield (f"| {look['matched']:,} | {look['servers']:,} | {look['seconds']} s | {look['looks_a_second']} | {look['bytes_a_look']:,} | "
               f"{look['haproxy_cpu_percent']:.2f} % |")


def bounds(bounds):
    """What is largest or strangest, and what this program spends on it."""
    yield f"On one core of {bounds['cpu']}:"
    yield ""
    yield "| case | request | rows | own CPU time | peak memory |"
    yield "| --- | --- | --- | --- | --- |"
    for name, what in (
        ("names", "600,000 servers, every backend name there twice, none of them matched"),
        ("reordered", "40,000 servers taken out, and read back in the opposite order"),
        ("patterns", "60,000 patterns, 10,000 backends, nothing matched"),
        ("rows", "one million matched servers, with names of 200 characters"),
    ):
        case = bounds[name]
        yield f"| {what} | {case['request_mb']:.2f} MB | {case['rows_mb']:.1f} MB | {case['cpu_seconds']:.2f} s | {case['peak_mb']:.0f} MB |"


def targets(results):
    """What the target is, what was measured, and whether that meets it."""
    cases, program, playbook, polling = (results[name] for name in ("cases", "program", "playbook", "polling"))
    yield "| target | measured | met |"
    yield "| --- | --- | --- |"

    def row(wanted, reached, is_enough):
        return f"| {wanted} | {reached} | {'yes' if is_enough else '**no**'} |"

    big = {name: in_floors(cases[name]) for name in ("large", "wide", "huge")}
    shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in big.items())
    yield row("at most 1.2 floors at large, wide and huge", shown, max(big.values()) <= 1.2)
    seed = cases["seed"]["seconds"]
    yield row("at most 3 ms over the floor at seed", ms(seed["ours"] - seed["floor"]), seed["ours"] - seed["floor"] <= 0.003)
    allowed = {name: 1.2 * case["seconds"]["raw"] + 0.003 for name, case in cases.items()}
    yield row(
        "nothing to change: at most 1.2 dumps and 3 ms",
        ", ".join(f"{name} {case['seconds']['unchanged'] * 1e3:.1f} of {allowed[name] * 1e3:.1f} ms" for name, case in cases.items()),
        all(case["seconds"]["unchanged"] <= allowed[name] for name, case in cases.items()),
    )
    mid, large = times(cases["mid"]), times(cases["large"])
    more = "more than " if cases["large"]["peer"]["is_capped"] else ""
    yield row(
        "500 times as fast as `community.general.haproxy` at mid, 5,000 times at large",
        f"{mid:,} and {more}{large:,} times", mid >= 500 and large >= 5_000,
    )
    over = playbook["more_seconds_a_task"] - playbook["program_seconds"]
    parts = ", ".join(f"{playbook[name] * 1e3:.1f}" for name in ("ours_seconds_a_task", "raw_seconds_a_task", "program_seconds"))
    yield row("a task at most 5 ms more than `raw` and the program's own time", f"{ms(over)} ({parts})", over <= 0.005)
    memory = cases["large"]["peak_mb"]["ours"], cases["huge"]["peak_mb"]["ours"]
    yield row("at most 6 MB at large and 12 MB at huge", f"{memory[0]:.1f} and {memory[1]:.1f} MB", memory[0] <= 6 and memory[1] <= 12)
    few, many = polling["few_of_100000"]["haproxy_cpu_percent"], polling["many_of_100000"]["haproxy_cpu_percent"]
    yield row(
        "waiting for up to 10 of 100,000 servers under 1 % of a core, for more under 5 %",
        f"{few:.2f} and {many:.2f} %", few < 1 and many < 5,
    )
    if "asked" in results:
        asked = {kind: results["asked"][kind]["seconds"] for kind in ("unchecked", "checked")}
        unchecked, checked = asked.values()
        over = {name: [each[name] - each["start"] for each in asked.values()] for name in ("one", "six", "status_one")}
        both = {name: f"{ms(without)}, with checks {ms(with_)}" for name, (without, with_) in over.items()}
        yield row("at huge, one server by name at most 3 ms over a start", both["one"], max(over["one"]) <= 0.003)
        yield row("one in each of six backends at most 5 ms", both["six"], max(over["six"]) <= 0.005)
        yield row("a status of one backend at most 3 ms", both["status_one"], max(over["status_one"]) <= 0.003)
        guarded = {
            f"{name}{more}": each[f"{name}_guarded"] / each[name]
            for each, more in ((unchecked, ""), (checked, " with checks")) for name in ("one", "six", "everywhere")
        }
        yield row(
            "a guard where nothing tracks: at most 1.3 times the plain change",
            ", ".join(f"{name} {ratio:.2f}" for name, ratio in guarded.items()), max(guarded.values()) <= 1.3,
        )
        status = unchecked["status"] / unchecked["show_stat"]
        yield row("a status of everything at huge: at most 1.15 times `show stat` alone", f"{status:.2f} times", status <= 1.15)
    yield row(
        "a start of less than 2 ms", f"{ms(program['start_seconds'])} (`/bin/true`: {ms(program['true_seconds'])})",
        program["start_seconds"] < 0.002,
    )
    wide = cases["wide"]["seconds"]
    yield row(
        "all 16 instances of wide at most 1.5 times as long as the slowest of them alone, adjusted for the cores",
        f"{wide['unchanged'] / wide['one']:.1f} times on {results['machine']['cores']} cores, see [below](#where-the-time-goes)",
        wide["unchanged"] / wide["one"] <= 1.5 * 16 / results["machine"]["cores"],
    )


if __name__ == "__main__":
    main()
