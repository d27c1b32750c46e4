"""Markdown that survives any title of a shop."""

from collections.abc import Sequence

from smar.evaluation.bootstrap import Interval
from smar.evaluation.measure import ComparisonRow, MetricRow


def cell(text: object) -> str:
    """Text of the user's data inside a Markdown table or list."""
    plain = " ".join(str(text).split())
    for sign in "\\|`*<[":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def table(head: Sequence[str], lines: Sequence[Sequence[object]], left: int = 1) -> str:
    """A Markdown table: the first `left` columns to the left, the others to the right."""
    ruler = ["---"] * min(left, len(head)) + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ruler, *lines)) + "\n"


def ranged(row: MetricRow | ComparisonRow | Interval, sign: str = "") -> str:
    """A figure with its standard deviation over seeds, where there are several, and its interval."""
    return f"{figure(row, sign)} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]"


def figure(row: MetricRow | ComparisonRow | Interval, sign: str = "") -> str:
    """A figure, with its standard deviation over seeds where there are several."""
    sd = row.sd if isinstance(row, MetricRow) else None
    return f"{row.value:{sign}.3f}" + (f" ± {sd:.3f}" if sd is not None else "")


def difference(row: ComparisonRow) -> str:
    """A difference with its interval, bold where its corrected p says that it is no chance."""
    text = ranged(row, "+")
    return f"**{text}**" if row.significant else text


def chance(row: ComparisonRow) -> str:
    """A difference with its p and its corrected p."""
    text = f"{row.value:+.3f}"
    return f"{f'**{text}**' if row.significant else text}; {p_value(row.p)}; {p_value(row.p_holm)}"


def p_value(value: float) -> str:
    """A p: four places where it is small, two where it tells nothing."""
    return f"{value:.4f}" if value < 0.0995 else f"{value:.2f}"


def picture(path: str | None, title: str) -> str:
    """A small picture above its title, inside a table."""
    shown = f'<img src="{path}" height="84" alt=""><br>' if path else ""
    return shown + cell(title)
