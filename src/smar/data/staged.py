"""What the readers of text files tell about a file beside the Parquet copy that they made of it."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

BadLine: TypeAlias = tuple[str, str]
"""Start of a line that is no row, and the reason with its place."""
Written: TypeAlias = Literal["cell", "number", "flag", "string", "text"]
"""What a text column's values were: cells of CSV, JSON's numbers, truth values or strings; text: several kinds."""


@dataclass
class Staged:
    """What a text file holds."""

    bad_lines: list[BadLine] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)
    """Text columns of the Parquet file."""
    notes: list[str] = field(default_factory=list)
