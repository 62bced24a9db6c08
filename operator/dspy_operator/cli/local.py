"""Local mode: the same manifests, the same runner, a folder of files in place of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dspy_operator.api.objects import OptimizationRun, PromptProgram
from dspy_operator.cli.manifests import Manifests, ObjectId, one_run, read_manifests
from dspy_operator.contract.documents import Account, Result
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation
from dspy_operator.contract.runspec import Control, Incumbent, Paths, RunSpec
from dspy_operator.runner.progress import write_bytes, write_json

OLLAMA_URL = "http://127.0.0.1:11434/v1"
"""Where an Ollama of one's own listens."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to the manifests."""

    paths: Sequence[Path]
    output: Path
    run: str | None = None
    endpoints: Mapping[str, str] | None = None
    """Endpoint name -> URL."""
    api_key_files: Mapping[str, Path] | None = None
    """Endpoint name -> file of its API key."""
    incumbent: Path | None = None
    resume: bool = False
    estimate: bool = False


@dataclass(frozen=True)
class Local:
    """A run made ready in its folder."""

    spec: RunSpec
    control: Control
    folder: Path
    manifests: Manifests
    account: Path

    def failed_at(self, path: str | None) -> str | None:
        """File and line of the field that a failure names."""
        return _locate(self.manifests, self.spec.run.name, self.spec.program.name, path)


def prepare_run(options: Options) -> Local:
    """Read, resolve and lay out `OUTPUT/<run>/`: run.json, control.json, the rows.

    Raises:
        RunFailed: with the reason and, where one field is to blame, its path.
    """
    manifests = read_manifests(options.paths)
    run = one_run(manifests, options.run)
    if options.estimate:
        run = run.model_copy(update={"spec": run.spec.model_copy(update={"mode": "Estimate"})})
    program = _program_of(manifests, run)
    folder = options.output.absolute() / run.metadata.name
    account = options.output.absolute() / f"{program.metadata.name}.account.json"
    around = _surroundings(options, manifests, program, folder, account)
    endpoints = {f"{namespace}/{name}": endpoint for (namespace, name), endpoint in manifests.endpoints.items()}
    spec = resolve(run, program, endpoints, around)
    control = control_of(run)
    if run.spec.mode != "Estimate":
        spec = _same_inputs(options, folder, spec)
        _write(folder, spec, control)
    return Local(spec, control, folder, manifests, account)


def prepare_validation(options: Options) -> list[Local]:
    """The same for each program of the manifests; no run is needed."""
    manifests = read_manifests(options.paths)
    if not manifests.programs:
        raise RunFailed(Reason.PROGRAM_NOT_FOUND, f"no PromptProgram in {', '.join(map(str, options.paths))}")
    found = []
    for program in manifests.programs.values():
        folder = options.output.absolute() / program.metadata.name
        account = options.output.absolute() / f"{program.metadata.name}.account.json"
        spec = resolve_validation(program, _surroundings(options, manifests, program, folder, account))
        write_json(folder / "run.json", spec.document())
        found.append(Local(spec, Control.model_validate({"budget": {"calls": 1}}), folder, manifests, account))
    return found


def settle(local: Local, result: Result) -> None:
    """Keep what outlives the run: the looks at its test set."""
    if result.gate is None or result.dataset is None or result.gate.p is None:
        return
    known = _account(local.account).test_looks
    looks = max(known.get(result.dataset.test_digest, 0), result.gate.look)
    write_json(local.account, Account(test_looks={**known, result.dataset.test_digest: looks}).document())


def _program_of(manifests: Manifests, run: OptimizationRun) -> PromptProgram:
    key = (run.metadata.namespace, run.spec.program_ref.name)
    if (program := manifests.programs.get(key)) is not None:
        return program
    known = ", ".join(f"{namespace}/{name}" for namespace, name in manifests.programs) or "none"
    raise RunFailed(
        Reason.PROGRAM_NOT_FOUND,
        f"PromptProgram {key[0]}/{key[1]} does not exist (there are: {known})",
        path="spec.programRef.name",
    )


def _surroundings(
    options: Options, manifests: Manifests, program: PromptProgram, folder: Path, account: Path
) -> Surroundings:
    urls, key_files = _endpoint_urls(options, manifests)
    source = program.spec.dataset.source
    name = source.config_map.key if source.config_map else "inline.jsonl"
    paths = Paths(journal=str(folder / "journal.jsonl"), out=str(folder), control=str(folder / "control.json"))
    around = Surroundings(data_path=str(folder / "data" / name), paths=paths, urls=urls, key_files=key_files)
    _write_rows(folder, manifests, program)
    digest, test_digest = _digests(program, around)
    incumbent = None
    if options.incumbent is not None:
        if not (options.incumbent / "program.json").is_file():
            raise RunFailed(
                Reason.INVALID_MANIFEST,
                f"--incumbent {options.incumbent}: no program.json there; it names a folder `revision`",
            )
        incumbent = Incumbent(revision=options.incumbent.name, path=str(options.incumbent.absolute()))
    return replace(
        around, dataset_digest=digest, incumbent=incumbent, test_looks=_account(account).test_looks.get(test_digest, 0)
    )


def _endpoint_urls(options: Options, manifests: Manifests) -> tuple[dict[str, str], dict[str, str]]:
    """URL and key file of each endpoint; a name on the command line that no manifest has is a mistake."""
    names = {name for _, name in manifests.endpoints}
    for flag, given in (("--endpoint", options.endpoints or {}), ("--api-key-file", options.api_key_files or {})):
        for name in given:
            if name not in names:
                raise RunFailed(
                    Reason.ENDPOINT_NOT_FOUND,
                    f"{flag} {name}=...: there is no ModelEndpoint {name} (there are: {', '.join(sorted(names)) or 'none'})",
                )
    urls: dict[str, str] = {}
    key_files: dict[str, str] = {}
    for (namespace, name), endpoint in manifests.endpoints.items():
        key = f"{namespace}/{name}"
        if (url := (options.endpoints or {}).get(name)) is not None:
            urls[key] = url
        elif endpoint.spec.provider.type == "Ollama":
            urls[key] = OLLAMA_URL
        if (file := (options.api_key_files or {}).get(name)) is not None:
            key_files[key] = str(file.absolute())
    return urls, key_files


def _rows(manifests: Manifests, program: PromptProgram) -> str:
    source = program.spec.dataset.source
    if source.inline is not None:
        return source.inline.data
    assert source.config_map is not None
    wanted = source.config_map
    data = manifests.config_maps.get((program.metadata.namespace, wanted.name))
    if data is None:
        known = (
            ", ".join(name for namespace, name in manifests.config_maps if namespace == program.metadata.namespace)
            or "none"
        )
        message = f"ConfigMap {program.metadata.namespace}/{wanted.name} does not exist (there are: {known})"
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path="spec.dataset.source.configMap.name")
    if wanted.key not in data:
        message = f'ConfigMap {wanted.name} has no key "{wanted.key}" (keys: {", ".join(sorted(data)) or "none"})'
        raise RunFailed(Reason.DATASET_NOT_FOUND, message, path="spec.dataset.source.configMap.key")
    return data[wanted.key]


def _write_rows(folder: Path, manifests: Manifests, program: PromptProgram) -> None:
    source = program.spec.dataset.source
    name = source.config_map.key if source.config_map else "inline.jsonl"
    path, content = folder / "data" / name, _rows(manifests, program).encode()
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def _digests(program: PromptProgram, around: Surroundings) -> tuple[str, str]:
    """(digest of the dataset, of its test part), as `validate` would see them."""
    from dspy_operator.runner.prepare import read_parts

    parts = read_parts(resolve_validation(program, around))[1]
    return parts.digest, parts.test_digest


def _same_inputs(options: Options, folder: Path, spec: RunSpec) -> RunSpec:
    """The frozen run.json of a run that is resumed; else the folder must be new."""
    path = folder / "run.json"
    if not path.is_file():
        return spec
    if not options.resume:
        raise RunFailed(
            Reason.INVALID_MANIFEST,
            f"{folder} holds this run already: --resume goes on with it, --output or `rm -r` starts anew",
        )
    before = RunSpec.model_validate_json(path.read_bytes())
    if before.input_digest != spec.input_digest:
        raise RunFailed(
            Reason.INVALID_MANIFEST,
            f"{folder} was started with other inputs ({before.input_digest[:11]}, now {spec.input_digest[:11]}): "
            "undo the change of program, rows, optimizer, seed or models, or use another --output",
        )
    # What was frozen stays: looks, incumbent. Where things are may have moved: URLs, keys, paths, prices.
    return spec.model_copy(update={"test_looks": before.test_looks, "incumbent": before.incumbent})


def _write(folder: Path, spec: RunSpec, control: Control) -> None:
    write_json(folder / "run.json", spec.document())
    write_json(folder / "control.json", control.document())


def _account(path: Path) -> Account:
    try:
        return Account.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Account()
    except ValueError as error:
        raise RunFailed(
            Reason.INVALID_MANIFEST,
            f"{path} cannot be read ({error}): it counts the looks at test sets; repair or remove it",
        ) from None


def _locate(manifests: Manifests, run: str, program: str, path: str | None) -> str | None:
    """File and line of a field, wherever of run, program and endpoint it stands."""
    if path is None:
        return None
    parts: list[str | int] = []
    for part in path.replace("]", "").replace("[", ".").split("."):
        parts.append(int(part) if part.isdigit() else part)
    of_run = {"programRef", "optimizer", "endpoints", "budget", "seed", "concurrency", "mode"}
    kind, name = ("OptimizationRun", run) if len(parts) > 1 and parts[1] in of_run else ("PromptProgram", program)
    for key in manifests.origins:
        if key.kind == kind and key.name == name:
            return manifests.locate(ObjectId(kind, key.namespace, name), tuple(parts))
    return None
