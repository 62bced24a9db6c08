"""`dspy-operator`: the command line."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dspy_operator import __version__
from dspy_operator.cli.export import Target
from dspy_operator.cli.findings import Format, Severity, annotation, as_json, text
from dspy_operator.contract.exits import Exit, Reason, RunFailed

if TYPE_CHECKING:
    from dspy_operator.contract.documents import Result

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # DSPy would fetch a price list from the network

CLICK_USAGE = 2
"""How click ends on a flag that it does not know; the contract says 64."""

app = typer.Typer(
    help="Prompt optimization with hard budgets, exact resume and proof on held-out data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Paths = Annotated[
    list[Path], typer.Argument(help="Folders or files with manifests; - reads standard input.", show_default=False)
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for results; each run gets a folder of its name in it.")
]
Volumes = Annotated[
    list[str] | None,
    typer.Option(
        "--volume", metavar="CLAIM=FOLDER", help="Folder with the files of a PersistentVolumeClaim that has rows."
    ),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME=FOLDER",
        help="Folder with the keys of a Secret that rows, tools or lookups need, each a file.",
    ),
]
Plain = Annotated[
    bool, typer.Option("--json", help="JSON lines instead of a progress bar; the default where stdout is no terminal.")
]


@app.command()
def run(
    paths: Paths,
    output: Output = Path("out"),
    name: Annotated[str | None, typer.Option("--run", help="Which OptimizationRun, where there are several.")] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", metavar="NAME=URL", help="URL of a ModelEndpoint, up to and including /v1."),
    ] = None,
    api_key_file: Annotated[
        list[str] | None,
        typer.Option("--api-key-file", metavar="NAME=FILE", help="File with the API key of a ModelEndpoint."),
    ] = None,
    volume: Volumes = None,
    secret: Secrets = None,
    revision: Annotated[
        list[str] | None,
        typer.Option(
            "--revision", metavar="NAME=FOLDER", help="Folder of the revision that spec.startFrom names by NAME."
        ),
    ] = None,
    incumbent: Annotated[
        Path | None,
        typer.Option("--incumbent", help="Folder of the revision that is served now; the candidate must beat it."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, crashed, or ran out of budget.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Validate, and estimate calls, tokens and cost; no model is called.")
    ] = False,
    plain: Plain = False,
) -> None:
    """Optimize a program: manifests in, a proven revision out."""
    _fix_hash_seed()
    from dspy_operator.cli.local import Options, prepare_run, settle
    from dspy_operator.runner.logs import log_to, progress_logger

    options = Options(
        paths,
        output,
        name,
        _pairs("--endpoint", "NAME=URL", endpoint),
        {key: Path(value) for key, value in _pairs("--api-key-file", "NAME=FILE", api_key_file).items()},
        incumbent,
        resume,
        estimate,
        _volumes(volume),
        {name: Path(folder) for name, folder in _pairs("--revision", "NAME=FOLDER", revision).items()},
        _secrets(secret),
    )
    terminal = sys.stdout.isatty() and not plain
    log = logging.getLogger("dspy_operator.run")
    try:
        local = prepare_run(options)
    except RunFailed as failure:
        if not terminal:
            log_to(sys.stdout)
            log.error(failure.message, extra={"reason": failure.reason, "result": _refusal(failure).document()})
        _refuse(failure)
    from dspy_operator.runner.process import leave_process, run_process  # brings DSPy, 3 s: mistakes are told before

    if not terminal:
        log_to(sys.stdout)
        report = progress_logger(log)

        def finish(result: Result) -> None:
            settle(local, result)
            where = local.failed_at(result.path)
            _say_failure(result, where)
            log.info(result.message or result.reason, extra={"reason": result.reason, "result": result.document()})

    else:
        from rich.console import Console

        from dspy_operator.cli.screen import Bar, estimate_screen, last_screen

        local.folder.mkdir(parents=True, exist_ok=True)
        console = Console(file=sys.stdout)
        log_to((local.folder / "log.jsonl").open("a", encoding="utf-8"))
        bar = Bar(console, local.spec)
        report = bar.show

        def finish(result: Result) -> None:
            bar.close()
            settle(local, result)
            where = local.failed_at(result.path)
            if local.spec.mode == "Estimate" and result.exit == 0:
                estimate_screen(console, local.spec, result)
            elif result.candidate is not None:
                last_screen(console, local.spec, result, local.folder)
            _say_failure(result, where)

    leave_process(run_process(local.spec, local.control, listener=report, finish=finish, answers=local.answers))


@app.command()
def validate(
    paths: Paths,
    output: Output = Path("out"),
    volume: Volumes = None,
    secret: Secrets = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="text: a line for each finding. json: a list of them. github: annotations of a pull request's lines.",
        ),
    ] = Format.TEXT,
) -> None:
    """Check manifests without a cluster, before they are applied or merged; no model is called.

    Everything wrong is told at once, with file and line: YAML, fields and rules as the API server has them, what the
    objects say of each other, then rows, types, metric and budget. Warnings name what could not be checked here,
    such as an endpoint that only the cluster has. Kinds that are not ours are named once and left alone.

    Each right program's baseline revision is written to OUTPUT/<program>.baseline/revision.

    Folders are read without their subfolders. Kustomize and Helm: `kustomize build . | dspy-operator validate -`

    Exit code: 0 when all is right (warnings do not count); else that of the first error: 64 a manifest, 40 the program,
    41 its rows, 42 its metric, 43 the budget.
    """
    _fix_hash_seed()
    from dspy_operator.cli.check import check

    checked = check(paths, output, volumes=_volumes(volume), secrets=_secrets(secret))
    match format_:
        case Format.JSON:
            _say(as_json(checked.findings))
        case Format.GITHUB:
            for finding in checked.findings:
                _say(annotation(finding))
        case Format.TEXT:
            for finding in checked.findings:
                _say(text(finding), error=finding.severity is Severity.ERROR)
    if format_ is not Format.JSON:
        for line in checked.valid:
            _say(line)
    raise typer.Exit(checked.exit)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder of a finished run, for example out/triage.")]) -> None:
    """Replay a finished run from its journal with the network denied: the same revision, or where it parts."""
    _fix_hash_seed()
    import time

    from dspy_operator.runner.logs import log_to
    from dspy_operator.runner.process import leave_process, verify_process

    log_to(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
    started = time.monotonic()
    try:
        replayed, recorded = verify_process(folder)
    except RunFailed as failure:
        _refuse(failure)
    seconds = time.monotonic() - started
    if replayed.candidate != recorded.candidate or replayed.exit not in (0, int(Exit.BUDGET_EXHAUSTED)):
        _say(f"{replayed.reason}: {replayed.message}", error=True)
        leave_process(replayed.exit or int(Exit.VERIFY_FAILED))
    calls = replayed.usage.replayed
    _say(
        f"verified: {recorded.candidate}, {calls} calls replayed in {seconds:.1f} s ({calls / seconds:.0f}/s), none sent"
    )
    leave_process(0)


@app.command()
def export(
    revision: Annotated[
        str, typer.Argument(help="A run's folder, or a file with a revision's ConfigMap; - is standard input.")
    ],
    target: Annotated[
        Target,
        typer.Option(
            "--to",
            help="python: a module without dependencies. openai: the body of a request. langchain: a ChatPromptTemplate. "
            "mlflow: arguments of register_prompt. promptfoo: a promptfooconfig.yaml.",
        ),
    ] = Target.PYTHON,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it, standard output.")
    ] = None,
) -> None:
    """Write a revision for programs without DSPy: the same messages, as another library reads them. No model is called.

    From a cluster: kubectl get cm sentiment-current -o yaml | dspy-operator export - --to langchain -o sentiment.json
    """
    from dspy_operator.cli.export import export as exported
    from dspy_operator.cli.revisions import read_revision

    try:
        text = exported(read_revision(revision), target)
    except RunFailed as failure:
        _refuse(failure)
    if output is None:
        _say(text.removesuffix("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        _refuse(RunFailed(Reason.INVALID_MANIFEST, f"--output {output}: {error.strerror}"))


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="A run's folder, or a file with a revision's ConfigMap; - is standard input.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; without it, report.html in the run's folder, else here."),
    ] = None,
) -> None:
    """Write one HTML file about a run: verdict, scores, rows gained and lost, prompts, spend. It needs no network.

    A run's folder has it all; a ConfigMap has neither the rows' texts nor the baseline's prompt. No model is called.
    """
    from dspy_operator.cli.report import report as made

    folder = Path(run)
    path = output or (folder / "report.html" if run != "-" and folder.is_dir() else Path("report.html"))
    try:
        path.write_bytes(made(run))
    except RunFailed as failure:
        _refuse(failure)
    except OSError as error:
        _refuse(RunFailed(Reason.INVALID_MANIFEST, f"--output {path}: {error.strerror}"))
    _say(str(path))


@app.command()
def diff(
    old: Annotated[
        str, typer.Argument(help="A run's folder, or a file with a revision's ConfigMap; - is standard input.")
    ],
    new: Annotated[str, typer.Argument(help="The revision to compare it with.")],
    document: Annotated[
        bool, typer.Option("--json", help="One JSON document, with every gained and lost row.")
    ] = False,
) -> None:
    """Compare two revisions: held-out rows gained and lost, and what the model is told differently. No model is called.

    From a cluster: dspy-operator diff <(kubectl get cm OLD -o yaml) <(kubectl get cm NEW -o yaml)

    Exit code, as of diff: 0 the same revision, 1 they differ; 64 one of them cannot be read.
    """
    from dspy_operator.cli.compare import compare
    from dspy_operator.cli.revisions import read_revision

    try:
        compared = compare(read_revision(old), read_revision(new))
    except RunFailed as failure:
        _refuse(failure)
    _say(json.dumps(compared.document(), ensure_ascii=False, indent=2) if document else compared.text())
    raise typer.Exit(1 if compared.differs else 0)


@app.command()
def crdgen(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is not up to date.")] = False,
    root: Annotated[Path, typer.Option("--root", help="The repository.")] = Path(),
) -> None:
    """Write what is generated from the models of the API: CustomResourceDefinitions, for kubectl and the chart, and the reference."""
    from dspy_operator.cli import crdgen

    for path in crdgen.drift(root) if check else crdgen.write(root):
        _say(f"{path}: {'not up to date, run `dspy-operator crdgen`' if check else 'written'}", error=check)
    if check and crdgen.drift(root):
        raise typer.Exit(1)


@app.command()
def schemas(folder: Annotated[Path, typer.Argument(help="Where to write them; made where it is missing.")]) -> None:
    """Write JSON Schemas of the kinds, for editors: completion, texts and mistakes while typing.

    In a manifest: `# yaml-language-server: $schema=FOLDER/all.json`
    """
    from dspy_operator.cli import editorschemas

    for path in editorschemas.write(folder):
        _say(str(path))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point; a bug of ours is a short message, and its traceback one line of JSON."""
    try:
        app()
    except SystemExit as end:
        if end.code == CLICK_USAGE:
            sys.exit(int(Exit.USAGE))
        raise
    except Exception as error:  # whatever it is, it is a bug: what can be wrong with the input is a RunFailed
        from dspy_operator.runner.logs import log_to

        assert sys.__stderr__ is not None
        log_to(sys.__stderr__)
        logging.getLogger("dspy_operator").error("internal error", exc_info=True)
        _say(f"{Reason.INTERNAL_ERROR}: {type(error).__name__}: {error}; please report the line above", error=True)
        sys.exit(int(Exit.INTERNAL_ERROR))


def _fix_hash_seed() -> None:
    from dspy_operator.runner.fixed_hash import fix_hash_seed

    fix_hash_seed()


def _volumes(given: list[str] | None) -> dict[str, Path]:
    pairs = _pairs("--volume", "CLAIM=FOLDER", given, of="PersistentVolumeClaim")
    return {name: Path(folder) for name, folder in pairs.items()}


def _secrets(given: list[str] | None) -> dict[str, Path]:
    pairs = _pairs("--secret", "NAME=FOLDER", given, of="Secret")
    return {name: Path(folder).absolute() for name, folder in pairs.items()}


def _pairs(flag: str, form: str, given: list[str] | None, *, of: str = "ModelEndpoint") -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            _say(f"{Reason.INVALID_MANIFEST}: {flag} {pair}: write {form}, with the name of a {of}", error=True)
            raise typer.Exit(int(Exit.USAGE))
        pairs[name] = value
    return pairs


def _refuse(failure: RunFailed) -> NoReturn:
    from dspy_operator.cli.local import Refused

    _say_failure(_refusal(failure), failure.place if isinstance(failure, Refused) else None)
    raise typer.Exit(int(failure.exit))


def _refusal(failure: RunFailed) -> Result:
    from dspy_operator.contract.documents import Result

    return Result(exit=int(failure.exit), reason=failure.reason, message=failure.message, path=failure.path)


def _say_failure(result: Result, where: str | None) -> None:
    """One line on stderr for an end that a person has to act on."""
    if result.exit in (0, int(Exit.BUDGET_EXHAUSTED)):
        return
    parts = [str(result.reason), where, result.path, result.message]
    advice = "; --endpoint NAME=URL says where it is" if result.reason is Reason.ENDPOINT_UNAVAILABLE else ""
    _say(": ".join(part for part in parts if part) + advice, error=True)


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.__stderr__ if error else sys.__stdout__
    print(text, file=stream, flush=True)


if __name__ == "__main__":
    main()
