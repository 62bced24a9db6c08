"""How generated Python is laid out: as `ruff format` leaves it."""

from __future__ import annotations

WIDTH = 120


def call(opening: str, arguments: list[str], closing: str, indent: int) -> str:
    """One line where it fits, else one for each argument; the comma at the end keeps a formatter from joining them.

    Args:
        indent: of the line, and what may stand behind it.
    """
    line = opening + ", ".join(arguments) + closing
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    return opening + "\n" + "".join(f"{indented(argument)},\n" for argument in arguments) + closing


def indented(text: str) -> str:
    """Each line that has something in it, by one step."""
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
