"""Draws docs/performance-*.svg from bench/results.json."""

import json
import pathlib

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    # The same bytes for the same numbers, and text that stays text.
    "svg.hashsalt": "haproxy_server", "svg.fonttype": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "font.size": 10,
})
from matplotlib import pyplot  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
OURS, FLOOR, PEER = ("haproxy_server", "#0b6e4f"), ("floor", "#8d99ae"), ("community.general.haproxy", "#c1440e")
HAPROXYTOOL = ("haproxytool", "#e0a458")
NAMED = ("haproxy_server, one server by name", "#3f88c5")


def main():
    results = json.loads((REPOSITORY / "bench/results.json").read_text())
    growth = results["growth"]
    compared = [point for point in growth if "peer_seconds" in point]
    time(growth, compared)
    memory(growth, compared)
    cases(results["cases"])


def time(growth, compared):
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    line(axes, growth, "floor_seconds", FLOOR, "--")
    line(axes, growth, "ours_seconds", OURS, "-")
    line(axes, [point for point in growth if "named_seconds" in point], "named_seconds", NAMED, "-")
    line(axes, compared, "peer_seconds", PEER, "-")
    line(axes, [point for point in growth if "haproxytool_seconds" in point], "haproxytool_seconds", HAPROXYTOOL, "-")
    axes.set(xscale="log", yscale="log", xlabel="servers of the HAProxy (a tenth of them is changed, or one by name)", ylabel="seconds")
    save(figure, axes, "time", "One change, read back: time by the number of servers")


def memory(growth, compared):
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    line(axes, growth, "ours_peak_mb", OURS, "-")
    line(axes, compared, "peer_peak_mb", PEER, "-")
    line(axes, [point for point in growth if "haproxytool_peak_mb" in point], "haproxytool_peak_mb", HAPROXYTOOL, "-")
    axes.set(xscale="log", xlabel="servers of the HAProxy (a tenth of them is changed)", ylabel="peak memory, MB")
    axes.set_ylim(bottom=0)
    save(figure, axes, "memory", "Peak memory by the number of servers")


def cases(measured):
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    places = range(len(measured))
    ratios = [case["seconds"]["ours"] / case["seconds"]["floor"] for case in measured.values()]
    bars = axes.bar(places, ratios, color=OURS[1], width=0.55)
    axes.bar_label(bars, [f"{case['seconds']['ours'] * 1e3:.1f} ms" for case in measured.values()])
    axes.axhline(1, color=FLOOR[1], linestyle="--", label="the floor: HAProxy's own work, answers thrown away")
    axes.set_xticks(places, measured)
    axes.set(ylabel="time, in floors")
    axes.grid(axis="x", visible=False)
    save(figure, axes, "cases", "One server in every backend, to maint or back")


def line(axes, points, key, name_and_color, style):
    name, color = name_and_color
    servers = [point["servers"] for point in points]
    axes.plot(servers, [point[key] for point in points], style, marker="o", markersize=4, color=color, label=name)


def save(figure, axes, name, title):
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(REPOSITORY / f"docs/performance-{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
