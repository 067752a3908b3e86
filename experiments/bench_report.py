"""What experiments.bench makes of its timings: statistics, a line a row, a summary, Markdown, a chart."""

import math
import statistics as stdlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

GROUPS = ("forward", "d-input", "d-kernel", "pools and norms", "in and out of scan", "train step")
PAIRS = {"stock": "accelerated", "nnx": "nnx accelerated", "equinox": "equinox accelerated"}
OURS = ("accelerated", "cnnjax", "nnx accelerated", "equinox accelerated")
UNSETTLED = 0.15
"""Interquartile range over median from which on a row is marked."""


def statistics(timings: Sequence[float]) -> dict[str, Any]:
    """Describe timings in seconds by their quartiles and extremes in milliseconds."""
    milliseconds = [1000 * timing for timing in timings]
    lower, median, upper = stdlib.quantiles(milliseconds, n=4, method="inclusive")
    return {
        "median": median,
        "lower": lower,
        "upper": upper,
        "min": min(milliseconds),
        "max": max(milliseconds),
        "timings": len(timings),
        "unsettled": (upper - lower) / median > UNSETTLED,
    }


def geometric_mean(ratios: Iterable[float]) -> float:
    """Take the mean of ratios under which a half and a double cancel."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms))


def ratio(row: Row, one: str, other: str, what: str = "median") -> float | None:
    """Divide what two contenders need; None where either has no such number."""
    above, below = (row["results"].get(name, {}).get(what) for name in (one, other))
    if above is None or below is None:
        return None
    least = 1.0 if what == "memory" else 0.0  # Below a megabyte it is the allocator that is measured.
    return max(above, least) / max(below, least)


def line(row: Row) -> str:
    """Write a row for the terminal."""
    cells = "   ".join(f"{name} {_cell(result)}" for name, result in row["results"].items())
    return f"{row['name']:<60} {cells}"


def summary(rows: Sequence[Row]) -> list[str]:
    """Say in sentences how the contenders compare, losses included."""
    return [
        *_means(rows),
        *_speedups(rows),
        *_scans(rows),
        _listed("More than 3 times as long as torch", _above_three(rows)),
        _listed("Slower than without acceleration, quartiles apart", _slower(rows)),
        *_costs(rows),
        _listed("Failures", [f"{row['name']}, {name}: {text}" for row, name, text in _failures(rows)]),
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """Write the whole result for docs/benchmarks.md."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    command = f"python -m experiments.bench{' --quick' if result['quick'] else ''}"
    parts = [
        "# Benchmarks",
        f"`{command}` on {result['date']}: {result['machine']}; {versions}. float32; each contender in a process of its"
        f" own with {result['threads']} threads, in turns.",
        "Median milliseconds and, in brackets, the quartiles. `~`: the quartiles are more than"
        f" {UNSETTLED:.0%} of the median apart. `*`: fewer timings than the others. torch: the better of its two"
        " memory layouts. Compilation and the first run (with it) in seconds; memory: the peak of a run in MB beyond"
        " inputs and program.",
        "\n".join(f"- {', '.join(names)}: {text}" for text, names in _by_greeting(result["contenders"]).items()),
        "\n".join(f"- {sentence}" for sentence in summary(result["rows"])),
        *(_section(group, [row for row in result["rows"] if row["group"] == group]) for group in GROUPS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def chart(result: Mapping[str, Any]) -> "Figure":
    """Draw every row's times relative to torch, or to the first contender where there is no torch."""
    from cnnjax.explain import _style as style

    groups = [group for group in GROUPS if any(row["group"] == group for row in result["rows"])]
    columns = min(3, len(groups))
    lines = math.ceil(len(groups) / columns)
    figure, panels = style.axes(lines, columns, size=(6.5 * columns, 6.5 * lines))
    for panel in panels[len(groups) :]:
        panel.set_visible(False)
    for panel, group in zip(panels, groups, strict=False):
        _draw(panel, [row for row in result["rows"] if row["group"] == group][::-1])
        panel.set_title(group)
    low, high = (limit(panel.get_xlim()[end] for panel in panels[: len(groups)]) for end, limit in ((0, min), (1, max)))
    for panel in panels:
        panel.set_xlim(low, high)
    return figure


def _draw(panel: "Axes", rows: Sequence[Row]) -> None:
    from cnnjax.explain import _style as style

    markers = {"equinox": "s", "equinox accelerated": "s", "cnnjax": "D"}
    for name in _contenders(rows):
        points = [(ratio(row, name, _reference(row)), y) for y, row in enumerate(rows)]
        known = [(x, y) for x, y in points if x is not None]
        colour = style.BLUE if name in OURS else style.ORANGE
        marker = markers.get(name, "o")
        panel.plot([x for x, _ in known], [y for _, y in known], marker, color=colour, label=name, alpha=0.8)
    panel.axvline(1, color=style.INK, linewidth=1)
    panel.set_xscale("log")
    ticks = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.set_yticks(range(len(rows)), [_title(row) for row in rows], fontsize=7)
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.set_xlabel("time relative to torch")
    panel.grid(axis="x", alpha=0.25)
    panel.legend(frameon=False, fontsize=8)


def _means(rows: Sequence[Row]) -> list[str]:
    lines = []
    for group in GROUPS:
        chosen = [row for row in rows if row["group"] == group]
        means = [_mean(name, [ratio(row, name, "torch") for row in chosen]) for name in _contenders(chosen)]
        if any(means):
            lines.append(f"Time relative to torch, {group}: {', '.join(mean for mean in means if mean)}.")
    return lines


def _mean(name: str, ratios: Sequence[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{name} {geometric_mean(known):.2f}" if known else ""


def _speedups(rows: Sequence[Row]) -> list[str]:
    """How many times faster the line makes whole train steps."""
    lines = []
    for stock, fast in PAIRS.items():
        found = [(row, ratio(row, stock, fast)) for row in rows if row["group"] == "train step"]
        times = [f"{row['name'].partition(',')[0]} {speedup:.1f}" for row, speedup in found if speedup is not None]
        if times:
            lines.append(f"Times faster with acceleration, {stock}: {', '.join(times)}.")
    return lines


def _scans(rows: Sequence[Row]) -> list[str]:
    alone = {row["name"]: row for row in rows}
    lines = []
    for row in rows:
        outside = alone.get(row["name"].removesuffix(" in scan"), row)
        for name in ("stock", "accelerated") if outside is not row else ():
            inside, alone_ms = (one["results"].get(name, {}).get("median") for one in (row, outside))
            if inside and alone_ms:
                lines.append(f"{row['name']}, {name}: {inside / alone_ms:.2f} times as long as outside.")
    return lines


def _above_three(rows: Sequence[Row]) -> list[str]:
    found = [(row, name, ratio(row, name, "torch")) for row in rows for name in OURS]
    return [f"{row['name']}, {name}: {times:.1f}" for row, name, times in found if times is not None and times > 3]


def _slower(rows: Sequence[Row]) -> list[str]:
    found = []
    for row in rows:
        for stock, fast in PAIRS.items():
            times = ratio(row, fast, stock)
            if times is not None and row["results"][fast]["lower"] > row["results"][stock]["upper"]:
                found.append(f"{row['name']}, {fast}: {times:.2f}")
    return found


def _costs(rows: Sequence[Row]) -> list[str]:
    """Compilation, first run and memory relative to stock: the mean, and the worst row."""
    lines = []
    for what, title in (("compile_seconds", "compilation"), ("first_seconds", "first run"), ("memory", "peak memory")):
        found = [(ratio(row, fast, stock, what), row, fast) for row in rows for stock, fast in PAIRS.items()]
        known = [(times, row["name"], fast) for times, row, fast in found if times is not None]
        if known:
            worst, name, fast = max(known)
            mean = geometric_mean(times for times, _, _ in known)
            lines.append(f"Relative to stock, {title}: {mean:.2f}; at most {worst:.2f} ({name}, {fast}).")
    return lines


def _failures(rows: Sequence[Row]) -> list[tuple[Row, str, str]]:
    results = [(row, name, result) for row in rows for name, result in row["results"].items()]
    return [(row, name, result["failure"]) for row, name, result in results if "failure" in result]


def _listed(title: str, found: Sequence[str]) -> str:
    return f"{title}: {'; '.join(found) if found else 'none'}."


def _contenders(rows: Sequence[Row]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row["results"]) if name != "torch"]


def _reference(row: Row) -> str:
    return "torch" if "median" in row["results"].get("torch", {}) else next(iter(row["results"]))


def _title(row: Row) -> str:
    """The name, without what the heading says already."""
    return row["name"].removesuffix(f": {row['group']}")


def _by_greeting(greetings: Mapping[str, str]) -> dict[str, list[str]]:
    return {text: [name for name in greetings if greetings[name] == text] for text in greetings.values() if text}


def _section(group: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row["results"]))
    found = [(row, [row["results"].get(name) for name in names]) for row in rows]
    times = [[_title(row), _gflop(row), *(_cell(one, quartiles=True) for one in results)] for row, results in found]
    costs = [[_title(row), *map(_cost, results)] for row, results in found]
    return "\n\n".join(
        [
            f"## {group.capitalize()}",
            _table(["ms", "GFLOP", *names], times),
            "Compilation, first run, peak memory:",
            _table(["s, s, MB", *names], costs),
        ]
    )


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(result: Mapping[str, Any] | None, *, quartiles: bool = False) -> str:
    if result is None or "median" not in result:
        return "" if result is None else "failed"
    marks = "~" * result["unsettled"] + "*" * result["few"]
    spread = f" ({_number(result['lower'])}–{_number(result['upper'])})" if quartiles else ""
    return f"{_number(result['median'])}{marks}{spread}"


def _cost(result: Mapping[str, Any] | None) -> str:
    if result is None or "failure" in result:
        return "" if result is None else "failed"
    memory = "?" if result["memory"] is None else f"{result['memory']:.0f}"
    return f"{result['compile_seconds']:.2f}, {result['first_seconds']:.2f}, {memory}"


def _gflop(row: Row) -> str:
    return "" if row["gflop"] is None else _number(row["gflop"])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
