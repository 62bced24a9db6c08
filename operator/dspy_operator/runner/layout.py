"""How generated Python is laid out: as `ruff format` leaves it."""

from __future__ import annotations

import inspect
import unicodedata

from dspy_operator.api.signature_types import escaped, python_string

WIDTH = 120


def call(opening: str, arguments: list[str], closing: str, indent: int) -> str:
    """One line where it fits, else one for each argument; the comma at the end keeps a formatter from joining them.

    Args:
        indent: of the line, and what may stand behind it.
    """
    line = opening + ", ".join(arguments) + closing
    if not arguments or (_columns(line) + indent <= WIDTH and "\n" not in line):
        return line
    return opening + "\n" + "".join(f"{indented(argument)},\n" for argument in arguments) + closing


def _columns(line: str) -> int:
    """As a formatter counts them: two for a letter of Chinese, none for an accent of its own."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in line)
    return len(line) + wide - sum(unicodedata.combining(char) > 0 for char in line)


def literal(value: object, indent: int, beside: int = 0) -> str:
    """A value of JSON as Python.

    Args:
        indent: of its line in the file.
        beside: further columns of the line that are taken, before it and behind it.
    """
    match value:
        case str():
            return python_string(value)
        case dict():
            named = [(f"{python_string(name)}: ", item) for name, item in value.items()]
            return call(
                "{",
                [name + literal(item, indent + 4, _columns(name) + 1) for name, item in named],
                "}",
                indent + beside,
            )
        case list():
            return call("[", [literal(item, indent + 4, 1) for item in value], "]", indent + beside)
    return repr(value).replace("e+", "e")


def indented(text: str) -> str:
    """Each line that has something in it, by one step."""
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


def settled_instructions(text: str) -> str:
    """The instructions as DSPy keeps them: no white space around, no common indentation, tabs as spaces.

    DSPy reads a signature's instructions through `inspect.cleandoc` each time that it copies the signature. A text that
    begins with an empty line loses more indentation at the second copy; what this gives changes no more.
    """
    return inspect.cleandoc(text.strip())


def docstring(text: str) -> str:
    """A docstring that `inspect.cleandoc` reads back as the text, for every settled text."""
    several = "\n" in text
    # A formatter takes white space away at the end of a line, and parts a quote from the closing ones.
    lines = [_last_escaped(line) if line.endswith(" ") else escaped(line) for line in text.split("\n")]
    if not several and text.endswith('"'):
        lines = [_last_escaped(text)]
    lines = [line.replace('"""', r"\"\"\"") for line in lines]
    opening = '"""\\' if lines[0].startswith('"') else '"""'
    return opening + "\n".join(lines) + ('\n"""' if several else '"""')


def _last_escaped(text: str) -> str:
    return f"{escaped(text[:-1])}\\x{ord(text[-1]):02x}"
