"""A Summary as text and as HTML."""

import html as escaping
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax.explain.summary import Row, Summary

_HEADS = ("layer", "kind", "output", "size", "params", "mult-adds", "memory", "field", "jump", "if dense")
_LEFT = 4
_DILATED = re.compile(r"- (\d+)·\((\d+) - 1\) - 1\)")
# 120 columns without the two blanks between them.
_ROOM = 120 - 2 * (len(_HEADS) - 1)
_NOTES = (
    "Per example. field: input pixels that a unit sees; jump: how far neighbouring units are apart in the input",
    "(0: all see the same); if dense: parameters that a fully connected layer would have needed instead.",
)

_STYLE = """
.cnnjax-summary table {border-collapse: collapse; font-size: 0.9em; color: inherit; background: none}
.cnnjax-summary th, .cnnjax-summary td {
  padding: 0.2em 0.7em; text-align: right; white-space: nowrap; background: none; color: inherit;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.25); font-variant-numeric: tabular-nums}
.cnnjax-summary thead th, .cnnjax-summary tfoot td {border-bottom: 1px solid rgba(128, 128, 128, 0.8)}
.cnnjax-summary tfoot td {font-weight: bold}
.cnnjax-summary .left {text-align: left}
.cnnjax-summary .size {font-family: monospace; font-size: 0.92em}
.cnnjax-summary caption, .cnnjax-summary p {text-align: left; color: inherit; font-size: 0.9em; margin: 0.4em 0}
"""


def text(summary: "Summary") -> str:
    """The table in 120 columns: a second axis' formula goes below the first's, long numbers and names are cut."""
    table = _table(summary, short=True, digits=9)
    if sum(_widths(table)) > _ROOM:
        table = _table(summary, short=True, digits=6)
    widths = _widths(table)
    for column, least in ((0, 12), (1, 8), (0, 8)):
        widths[column] = min(widths[column], max(widths[column] + _ROOM - sum(widths), least))
    head, *middle, total = (line for cells in table for line in _lines(cells, widths))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([_title(summary), rule, head, rule, *middle, rule, total, rule, *_NOTES, *_unused(summary)])


def html(summary: "Summary") -> str:
    """The table as HTML that takes its colours from the page."""
    _, *rows, totals = _table(summary, short=False, digits=12)
    heads = "".join(f"<th{_class(i)}>{head}</th>" for i, head in enumerate(_HEADS))
    body = "".join(map(_html_row, rows))
    notes = "".join(f"<p>{escaping.escape(note)}</p>" for note in (" ".join(_NOTES), *_unused(summary)))
    return (
        f'<div class="cnnjax-summary"><style>{_STYLE}</style><table><caption>{escaping.escape(_title(summary))}'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
        f"<tfoot>{_html_row(totals)}</tfoot></table>{notes}</div>"
    )


def _table(summary: "Summary", *, short: bool, digits: int) -> list[list[list[str]]]:
    rows = [_cells(row, short=short, digits=digits) for row in summary.rows]
    numbers = [_number(summary.parameters, 12), _number(summary.multiply_adds, digits), _bytes(summary.memory)]
    dense = _number(summary.dense_parameters, digits)
    totals = ["total", "", "", "", *numbers, "", "", dense]
    return [[[head] for head in _HEADS], *rows, [[total] for total in totals]]


def _widths(table: list[list[list[str]]]) -> list[int]:
    return [max(len(line) for cells in table for line in cells[column]) for column in range(len(_HEADS))]


def _html_row(cells: list[list[str]]) -> str:
    columns = ("<br>".join(map(escaping.escape, lines)) for lines in cells)
    return "<tr>" + "".join(f"<td{_class(i)}>{cell}</td>" for i, cell in enumerate(columns)) + "</tr>"


def _class(column: int) -> str:
    names = ["left"] * (column < _LEFT) + ["size"] * (column == 3)
    return f' class="{" ".join(names)}"' if names else ""


def _cells(row: "Row", *, short: bool, digits: int) -> list[list[str]]:
    formulas = list(dict.fromkeys(row.formula))
    if short:
        formulas = [formula.replace("floor(", "⌊").replace(") + 1 =", "⌋ + 1 =") for formula in formulas]
        formulas = list(dict.fromkeys(map(_tight, formulas)))
    return [
        [row.name],
        [" + ".join([row.kind, *row.activation])],
        ["×".join(map(str, row.shape))],
        formulas or [""],
        [_number(row.parameters, 12)],
        [_number(row.multiply_adds, digits)],
        [_bytes(row.memory)],
        [_axes([field.size for field in row.field])],
        [_axes(list(row.jump))],
        ["" if row.dense_parameters is None else _number(row.dense_parameters, digits)],
    ]


def _tight(formula: str) -> str:
    """Without the blanks, and a dilated window by what it spans: ⌊(28+2·2-5)/1⌋+1 = 28."""
    formula = _DILATED.sub(lambda m: f"- {int(m[1]) * (int(m[2]) - 1) + 1})", formula)
    left, right = formula.rsplit(" = ", 1)
    return f"{left.replace(' ', '')} = {right}"


def _title(summary: "Summary") -> str:
    return f"{summary.model} on {'×'.join(map(str, summary.input_shape))}"


def _unused(summary: "Summary") -> list[str]:
    unused = summary.parameters - sum(row.parameters for row in summary.rows)
    return [f"{unused:,} of the parameters are in none of these layers."] if unused else []


def _lines(cells: list[list[str]], widths: list[int]) -> list[str]:
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        # A long path tells more by its end, a long kind by its beginning.
        parts[0] = parts[0] if len(parts[0]) <= widths[0] else "…" + parts[0][1 - widths[0] :]
        parts[1] = parts[1] if len(parts[1]) <= widths[1] else parts[1][: widths[1] - 1] + "…"
        aligned = [
            part.ljust(width) if column < _LEFT else part.rjust(width)
            for column, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def _axes(values: list[Any]) -> str:
    return "×".join(map(str, values[:1] if len(set(values)) == 1 else values))


def _number(value: int, digits: int) -> str:
    """In full up to so many digits, beyond that three of them; nothing for 0."""
    if value < 10**digits:
        return f"{value:,}" if value else ""
    power = min(int(math.log10(value * 1.0005)) // 3, 5)
    return f"{value / 1000**power:.3g} {' kMGTP'[power]}"


def _bytes(value: int) -> str:
    power = min(int(math.log2(max(value, 1) * 1.0005) // 10), 4)
    if value >= 1000 * 1024**power:
        power = min(power + 1, 4)
    return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
