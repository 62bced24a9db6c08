"""Runs other programs. A failure names the program, its exit code, its log file and the log's last lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# util-linux, essential on Debian: a killed parent then takes the build with it, so that no second one meets it.
_DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


# A process namespace besides: with its first process go all that it started, and its mounts. mmdebstrap needs that: it goes
# on after a TERM, and two of them then hang up each other.
_ALL_DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--pid", "--kill-child", "--mount-proc"]


class Failed(Exception):
    """Something a person has to read: what went wrong and what to do. Printed without a traceback."""


def run(
    args: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    contained: bool = False,
) -> None:
    """Runs a program to its end, its output appended to `log`.

    It ends when we are killed; contained (only as root), so does every process that it has started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = _words(args)
    with log.open("a") as output:
        output.write(f"$ {' '.join(words)}\n")
        output.flush()
        try:
            ended = subprocess.run(
                [*_tied_to_us(contained), *words],
                input=stdin.encode() if stdin is not None else None,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                check=False,
            )
        except FileNotFoundError as error:
            raise Failed(f"{words[0]} is not installed") from error
    if ended.returncode:
        raise Failed(f"{words[0]} ended with {ended.returncode}; the end of {log}:\n{last_lines(log, 15)}")


def run_beside(
    commands: Sequence[tuple[Sequence[str | Path], Mapping[str, str]]], *, log: Path, contained: bool = False
) -> None:
    """Runs programs beside each other, each with what it has in its environment besides ours, as `run` does one."""
    with log.open("a") as output:
        started = []
        for args, environment in commands:
            output.write(f"$ {' '.join(_words(args))}\n")
            output.flush()
            words = [*_tied_to_us(contained), *_words(args)]
            environment = {**os.environ, **environment}
            program = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
            started.append(program)
        try:
            codes = [program.wait() for program in started]
        finally:
            for program in started:
                program.kill()  # only where we are interrupted: each has ended else
    if any(codes):
        names = ", ".join(str(args[0]) for args, _ in commands)
        raise Failed(f"{names} ended with {codes}; the end of {log}:\n{last_lines(log, 15)}")


def exit_code(act: Callable[[], None], *, interrupted: str) -> int:
    """Of a command that acts: what a person has to read is printed without a traceback.

    Args:
        interrupted: what to say after Ctrl-C.
    """
    try:
        act()
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0


def _words(args: Sequence[str | Path]) -> list[str]:
    return [str(word) for word in args]


def _tied_to_us(contained: bool) -> list[str]:
    return _ALL_DIE_WITH_PARENT if contained else _DIE_WITH_PARENT


def pipe(source: Sequence[str | Path], sink: Sequence[str | Path], *, log: Path) -> None:
    """`source | sink`, failing if either does."""
    with log.open("a") as output:
        output.write(f"$ {' '.join(map(str, source))} | {' '.join(map(str, sink))}\n")
        output.flush()
        first = subprocess.Popen([*_DIE_WITH_PARENT, *map(str, source)], stdout=subprocess.PIPE, stderr=output)
        second = subprocess.run([*map(str, sink)], stdin=first.stdout, stdout=output, stderr=output, check=False)
        assert first.stdout is not None
        first.stdout.close()
        first.wait()
    if first.returncode or second.returncode:
        raise Failed(
            f"{source[0]} | {sink[0]} ended with {first.returncode} and {second.returncode}; "
            f"the end of {log}:\n{last_lines(log, 15)}"
        )


def ask(args: Sequence[str | Path], *, timeout_seconds: float = 30, stdin: str | None = None) -> tuple[int, str]:
    """The exit code and the output of a short command; (127, why) where it cannot run, (124, "") past its time."""
    try:
        ended = subprocess.run(
            [str(word) for word in args],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, ""
    return ended.returncode, ended.stdout


def succeeds(args: Sequence[str | Path], *, timeout_seconds: float = 30) -> bool:
    return ask(args, timeout_seconds=timeout_seconds)[0] == 0


def output_of(args: Sequence[str | Path], *, timeout_seconds: float = 60, stdin: str | None = None) -> str:
    code, output = ask(args, timeout_seconds=timeout_seconds, stdin=stdin)
    if code:
        raise Failed(f"{' '.join(map(str, args))} ended with {code}:\n{output.strip()[-2000:]}")
    return output


def last_lines(path: Path, count: int) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
