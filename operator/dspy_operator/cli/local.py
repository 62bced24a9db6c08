"""Local mode: the same manifests, the same runner, a folder of files in place of a cluster."""

from __future__ import annotations

import filecmp
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

from dspy_operator.api.code import CodeConfigMap
from dspy_operator.api.dataset import PartSource
from dspy_operator.api.objects import OptimizationRun, PromptProgram, field_path
from dspy_operator.api.optimizationrun import OptimizationRunSpec
from dspy_operator.api.program import codes_of
from dspy_operator.cli.manifests import FieldPath, Manifests, ObjectId, one_run, read_manifests
from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.documents import Account, AccountEntry, Result
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.names import inline_file, url_file
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation
from dspy_operator.contract.runspec import (
    CodePart,
    Control,
    DatasetPart,
    HTTPRows,
    Incumbent,
    Paths,
    RowsFile,
    RunSpec,
    S3Rows,
    Start,
)
from dspy_operator.runner.journal import holds_answers, is_full, refuse_second_process
from dspy_operator.runner.progress import copy_file, write_bytes, write_json

log = logging.getLogger(__name__)

OLLAMA_URL = "http://127.0.0.1:11434/v1"
"""Where an Ollama of one's own listens."""
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class Refused(RunFailed):
    """A mistake that is told before anything runs, with the place of the field to blame."""

    def __init__(self, failure: RunFailed, place: str | None) -> None:
        super().__init__(failure.reason, failure.message, path=failure.path)
        self.place = place
        """File and line; None where the mistake is not in a manifest."""


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
    volumes: Mapping[str, Path] | None = None
    """PersistentVolumeClaim name -> folder with its files."""
    revisions: Mapping[str, Path] | None = None
    """Name of a revision that a run starts from -> folder with its files."""
    secrets: Mapping[str, Path] | None = None
    """Name of a Secret that rows, or servers of a program, need -> folder with its keys."""


@dataclass(frozen=True)
class Local:
    """A run made ready in its folder."""

    spec: RunSpec
    control: Control
    folder: Path
    manifests: Manifests
    account: Path
    answers: tuple[Path, ...] = ()
    """Journals of the runs that `spec.answersFrom` names."""

    def failed_at(self, path: str | None) -> str | None:
        """File and line of the field that a failure names."""
        identity = self.spec.run
        return _locate(self.manifests, identity.namespace, identity.name, self.spec.program.name, path)


def prepare_run(options: Options) -> Local:
    """Read, resolve and lay out `OUTPUT/<run>/`: run.json, control.json, the rows. An estimate is made in a folder of its own.

    Raises:
        RunFailed: with the reason and, where one field is to blame, its path and place.
    """
    manifests = read_manifests(options.paths)
    return prepare_run_of(options, manifests, one_run(manifests, options.run))


def prepare_run_of(options: Options, manifests: Manifests, run: OptimizationRun) -> Local:
    """The same for one run of manifests that were read."""
    if options.estimate:
        run = run.model_copy(update={"spec": run.spec.model_copy(update={"mode": "Estimate"})})
    with (
        _placed(options, manifests, run.metadata.namespace, run.metadata.name, run.spec.program_ref.name),
        tempfile.TemporaryDirectory() as fetched,
    ):
        program = _program_of(manifests, run)
        estimate = run.spec.mode == "Estimate"
        # A name of ours has no dot: these folders are nobody's run.
        folder = options.output.absolute() / f"{run.metadata.name}{'.estimate' if estimate else ''}"
        account = options.output.absolute() / f"{program.metadata.name}.account.json"
        rows = _rows(options, manifests, program, folder, Path(fetched))
        around = _surroundings(options, manifests, program, folder, account, rows)
        around = replace(around, start=_start(options, run, around.incumbent))
        endpoints = {f"{namespace}/{name}": endpoint for (namespace, name), endpoint in manifests.endpoints.items()}
        spec = resolve(run, program, endpoints, around)
        control = control_of(run, endpoints)
        if not estimate:
            refuse_second_process(Path(spec.paths.journal))
            _check_key_files(manifests, spec)
            spec = _same_inputs(options, folder, spec)
            control = _next_control(folder, control)
            write_json(folder / "run.json", spec.document())
            write_json(folder / "control.json", control.document())
        _write_rows(spec.dataset, rows)
        _write_code(manifests, program, spec)
    return Local(spec, control, folder, manifests, account, _answers(options, run))


def prepare_program(options: Options, manifests: Manifests, program: PromptProgram) -> Local:
    """The same for the validation of a program, in `OUTPUT/<program>.baseline/`; no run is needed."""
    name = program.metadata.name
    with (
        _placed(options, manifests, program.metadata.namespace, "", name),
        tempfile.TemporaryDirectory() as fetched,
    ):
        folder = options.output.absolute() / f"{name}.baseline"
        account = options.output.absolute() / f"{name}.account.json"
        rows = _rows(options, manifests, program, folder, Path(fetched))
        spec = resolve_validation(program, _surroundings(options, manifests, program, folder, account, rows))
        write_json(folder / "run.json", spec.document())
        _write_rows(spec.dataset, rows)
        _write_code(manifests, program, spec)
    return Local(spec, Control.model_validate({"budget": {"calls": 1}}), folder, manifests, account)


def settle(local: Local, result: Result) -> None:
    """Keep in the account what outlives the run: its spend, its result, its looks at the test set."""
    if result.dataset is None or local.spec.mode == "Estimate":
        return
    account, name = _account(local.account), local.spec.run.name
    before = account.root.get(name, AccountEntry())
    entry = before.judged(account, local.spec, result, local.control.budget)
    entry = entry.model_copy(update={"tries": before.tries + 1, "used": result.usage})
    try:
        write_json(local.account, Account({**account.root, name: entry}).document())
    except OSError as error:
        if not is_full(error):
            raise
        log.error("%s cannot be written: %s", local.account, error)


def _answers(options: Options, run: OptimizationRun) -> tuple[Path, ...]:
    if run.spec.answers_from is None:
        return ()
    found = []
    for number, name in enumerate(run.spec.answers_from.runs):
        journal = options.output.absolute() / name / "journal.jsonl"
        if not journal.is_file():
            raise RunFailed(
                Reason.INVALID_MANIFEST,
                f"{journal.parent} has no journal: run {name} first, with the same --output",
                path=f"spec.answersFrom.runs[{number}]",
            )
        found.append(journal)
    return tuple(found)


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
    options: Options,
    manifests: Manifests,
    program: PromptProgram,
    folder: Path,
    account: Path,
    rows: Mapping[str, bytes | Path],
) -> Surroundings:
    urls, key_files = _endpoint_urls(options, manifests)
    paths = Paths(journal=str(folder / "journal.jsonl"), out=str(folder), control=str(folder / "control.json"))
    headers = _headers(options, program)
    around = Surroundings(data_path="", paths=paths, urls=urls, key_files=key_files, headers=headers)
    around = replace(_with_data_in(around, program, folder), code=_code(manifests, program, folder))
    incumbent = _incumbent(options.incumbent) if options.incumbent is not None else None
    digest, test_digest = _digests(program, around, rows)
    return replace(around, dataset_digest=digest, incumbent=incumbent, test_looks=_account(account).looks(test_digest))


def _check_volumes(options: Options, manifests: Manifests) -> None:
    """A claim on the command line that no program reads from is a mistake."""
    claims = {
        source.persistent_volume_claim.claim_name
        for program in manifests.programs.values()
        for _, _, source in program.spec.dataset.sources()
        if source.persistent_volume_claim is not None
    }
    for name in options.volumes or {}:
        if name not in claims:
            raise RunFailed(
                Reason.INVALID_MANIFEST,
                f"--volume {name}=...: no program reads from PersistentVolumeClaim {name} "
                f"(there are: {', '.join(sorted(claims)) or 'none'})",
            )


def _incumbent(folder: Path) -> Incumbent:
    _check_revision(f"--incumbent {folder}", folder)
    return Incumbent(revision=folder.name, path=str(folder.absolute()))


def _check_revision(flag: str, folder: Path) -> None:
    def is_revision(of: Path) -> bool:
        return (of / "program.json").is_file() and (of / "program.py").is_file()

    if not is_revision(folder):
        hint = folder / "revision" if is_revision(folder / "revision") else "the folder `revision` of a run"
        raise RunFailed(Reason.INVALID_MANIFEST, f"{flag}: there is no revision in this folder; give it {hint}")


def _start(options: Options, run: OptimizationRun, incumbent: Incumbent | None) -> Start | None:
    """What `startFrom` means here: Current is --incumbent, a revision by name is the folder that --revision gives."""
    start, given = run.spec.start_from, options.revisions or {}
    wanted = start.revision.name if start is not None and start.revision is not None else None
    for name in given:
        if name != wanted:
            raise RunFailed(
                Reason.INVALID_MANIFEST, f"--revision {name}=...: spec.startFrom names {wanted or 'no revision'}"
            )
    if wanted is not None:
        if wanted not in given:
            message = f"revision {wanted} is in the cluster; here --revision {wanted}=FOLDER gives its files"
            raise RunFailed(Reason.INVALID_MANIFEST, message, path="spec.startFrom.revision.name")
        flag, folder = f"--revision {wanted}={given[wanted]}", given[wanted].absolute()
    elif start is not None and start.type == "Current" and incumbent is not None:
        wanted, flag, folder = incumbent.revision, f"--incumbent {options.incumbent}", Path(incumbent.path)
    else:
        return None
    _check_revision(flag, folder)
    from dspy_operator.runner.publish import digest_in  # brings DSPy, 3 s: mistakes are told before

    digest = digest_in(folder)
    if digest is None:
        raise RunFailed(Reason.INVALID_MANIFEST, f"{flag}: there is no prompts.json in this folder")
    return Start(revision=wanted, digest=digest, path=str(folder))


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
    for name, given_url in (options.endpoints or {}).items():
        if not _URL.fullmatch(given_url):
            raise RunFailed(
                Reason.INVALID_MANIFEST,
                f"--endpoint {name}={given_url}: a URL is wanted, up to and including /v1, for example http://127.0.0.1:8000/v1",
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
            openai = endpoint.spec.provider.openai
            if openai is None or openai.api_key_secret is None:
                raise RunFailed(
                    Reason.INVALID_MANIFEST,
                    f"--api-key-file {name}={file}: ModelEndpoint {name} sends no key; "
                    "spec.provider.openai.apiKeySecret says that it does",
                )
            key_files[key] = str(file.absolute())
    return urls, key_files


def _rows(
    options: Options, manifests: Manifests, program: PromptProgram, folder: Path, fetched: Path
) -> Mapping[str, bytes | Path]:
    """Part ("" is the dataset's own) -> what its source holds, or the file that does.

    Args:
        folder: of the run; what a URL gave to it is not asked for again where it is resumed.
        fetched: of the moment, for what a URL gives now.
    """
    _check_volumes(options, manifests)
    kept = _files_in(folder, program)
    found: dict[str, bytes | Path] = {}
    for of in program.spec.dataset.sources():
        before = Path(kept[of.part].path)
        if not of.source.is_fetched:
            found[of.part] = _content(options, manifests, program.metadata.namespace, of)
        elif options.resume and before.is_file():
            found[of.part] = before
        else:
            found[of.part] = _fetched(options, of, fetched / of.part / before.name)
    return found


def _fetched(options: Options, of: PartSource, path: Path) -> Path:
    secret, keys = of.source.secret(), None
    if secret is not None:
        keys = _secret_folder(options, secret.name, ".".join((of.path, *secret.path)))
    name = secret.name if secret is not None else None
    if (http := of.source.http) is not None:
        from dspy_operator.runner.fetch import fetch

        asked = HTTPRows(url=http.url, headers_folder=keys, headers_secret=name)
        fetch(RowsFile(path=str(path), sha256=http.sha256, http=asked), field=of.path)
    elif (s3 := of.source.s3) is not None:
        from dspy_operator.runner.bucket import fetch_object

        wanted = S3Rows(
            endpoint=s3.endpoint,
            bucket=s3.bucket,
            key=s3.key,
            region=s3.region,
            credentials_folder=keys,
            credentials_secret=name,
        )
        fetch_object(RowsFile(path=str(path), sha256=s3.sha256, s3=wanted), field=of.path)
    return path


def _headers(options: Options, program: PromptProgram) -> dict[str, str]:
    """Secret that a server of the program is asked with -> folder with its keys."""
    return {
        secret.name: _secret_folder(options, secret.name, field_path((*server.path, "headersSecret", "name")))
        for server in program.spec.program.servers
        if (secret := server.http.headers_secret) is not None
    }


def _secret_folder(options: Options, name: str, path: str) -> str:
    folder = (options.secrets or {}).get(name)
    if folder is None:
        message = f"Secret {name} is in the cluster; here --secret {name}=FOLDER gives its keys, each a file"
        raise RunFailed(Reason.SECRET_MISSING, message, path=path)
    return str(folder)


def _content(options: Options, manifests: Manifests, namespace: str, of: PartSource) -> bytes | Path:
    source = of.source
    if source.inline is not None:
        return source.inline.data.encode()
    if (claim := source.persistent_volume_claim) is not None:
        path = f"{of.path}.persistentVolumeClaim"
        folder = (options.volumes or {}).get(claim.claim_name)
        if folder is None:
            message = f"PersistentVolumeClaim {claim.claim_name} is a volume; here --volume {claim.claim_name}=FOLDER gives its files"
            raise RunFailed(Reason.DATASET_NOT_FOUND, message, path=f"{path}.claimName")
        if not (folder / claim.path).is_file():
            message = f"--volume {claim.claim_name}={folder}: there is no file {claim.path}"
            raise RunFailed(Reason.DATASET_NOT_FOUND, message, path=f"{path}.path")
        return (folder / claim.path).absolute()
    assert source.config_map is not None
    wanted, path = source.config_map, f"{of.path}.configMap"
    return _key_of(manifests, namespace, wanted.name, wanted.key, path, Reason.DATASET_NOT_FOUND)


def _key_of(manifests: Manifests, namespace: str, name: str, key: str, path: str, reason: Reason) -> bytes:
    """What a key of a ConfigMap holds.

    Args:
        path: of the field that names them.
        reason: of their absence.
    """
    data = manifests.config_maps.get((namespace, name))
    if data is None:
        known = ", ".join(known for where, known in manifests.config_maps if where == namespace) or "none"
        message = f"ConfigMap {namespace}/{name} does not exist (there are: {known})"
        raise RunFailed(reason, message, path=f"{path}.name")
    if key not in data:
        message = f'ConfigMap {name} has no key "{key}" (keys: {", ".join(sorted(data)) or "none"})'
        raise RunFailed(reason, message, path=f"{path}.key")
    found = data[key]
    return found.encode() if isinstance(found, str) else found


def _code(manifests: Manifests, program: PromptProgram, folder: Path) -> dict[str, CodePart]:
    """Path in the program -> the function that stands there, with the digest of what it says now."""
    from dspy_operator.runner.code import digest_of

    found = {}
    for number, (path, ref) in enumerate(codes_of(program.spec.program, program.spec.metric).items()):
        if ref.config_map is None:
            assert ref.image is not None
            part = CodePart(entrypoint=ref.entrypoint, source=f"image {ref.image}")
            found[path] = part.model_copy(update={"sha256": digest_of(path, part)})
            continue
        found[path] = CodePart(
            entrypoint=ref.entrypoint,
            file=str(folder / "code" / str(number) / ref.config_map.key),
            source=f"ConfigMap {ref.config_map.name}, key {ref.config_map.key}",
            sha256=f"sha256:{sha256_hex(_code_text(manifests, program.metadata.namespace, path, ref.config_map))}",
        )
    return found


def _code_text(manifests: Manifests, namespace: str, path: str, wanted: CodeConfigMap) -> bytes:
    return _key_of(manifests, namespace, wanted.name, wanted.key, f"{path}.configMap", Reason.CODE_NOT_FOUND)


def _write_code(manifests: Manifests, program: PromptProgram, spec: RunSpec) -> None:
    """Keep what the run calls beside its journal, as its rows."""
    for path, ref in codes_of(program.spec.program, program.spec.metric).items():
        file = spec.code[path].file
        if file is not None and ref.config_map is not None:
            write_bytes(Path(file), _code_text(manifests, program.metadata.namespace, path, ref.config_map))


def _with_data_in(around: Surroundings, program: PromptProgram, folder: Path) -> Surroundings:
    files = _files_in(folder, program)
    return replace(around, data_path=files[""].path, files=files)


def _files_in(folder: Path, program: PromptProgram) -> dict[str, RowsFile]:
    """The rows of each part in `data`, `data-1`, `data-2` of this folder, as in a pod under /data."""
    files: dict[str, RowsFile] = {}
    for number, (part, _, source) in enumerate(program.spec.dataset.sources()):
        if source.config_map is not None:
            name = source.config_map.key
        elif source.persistent_volume_claim is not None:
            name = Path(source.persistent_volume_claim.path).name
        elif source.http is not None:
            name = url_file(source.http.url)
        elif source.s3 is not None:
            name = url_file(source.s3.key)
        else:
            name = inline_file(program.spec.dataset.format, number)
        files[part] = RowsFile(path=str(folder / (f"data-{number}" if number else "data") / name))
    return files


def _write_rows(dataset: DatasetPart, rows: Mapping[str, bytes | Path]) -> None:
    """Keep what the run reads beside its journal: `verify` wants it, and a volume's file may change meanwhile."""
    files = dataset.files()
    for part, content in rows.items():
        path = Path(files[part].path)
        if isinstance(content, Path):
            if not path.is_file() or not filecmp.cmp(path, content, shallow=False):
                copy_file(content, path)
        elif not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)


def _digests(program: PromptProgram, around: Surroundings, rows: Mapping[str, bytes | Path]) -> tuple[str, str]:
    """(digest of the dataset, of its test part), as `validate` would see them.

    Read from a folder of the moment: rows that are refused must not replace those of a run that is there.
    """
    from dspy_operator.runner.prepare import read_parts

    with tempfile.TemporaryDirectory() as folder:
        spec = resolve_validation(program, _with_data_in(around, program, Path(folder)))
        _write_rows(spec.dataset, rows)
        parts = read_parts(spec)[1]
    return parts.digest, parts.test_digest


def _check_key_files(manifests: Manifests, spec: RunSpec) -> None:
    """The key of each endpoint that asks for one, told before anything is loaded and with the flag that gives it."""
    for endpoint in spec.endpoints.values():
        if endpoint.api_key_source is None:
            continue
        namespace, name = endpoint.name.split("/")
        flag = f"--api-key-file {name}="
        if endpoint.api_key_file is None:
            problem = f"{endpoint.name} needs {endpoint.api_key_source}; here {flag}FILE gives it"
        else:
            try:
                if Path(endpoint.api_key_file).read_text(encoding="utf-8").strip():
                    continue
                problem = f"{flag}{endpoint.api_key_file}: the file is empty"
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                problem = f"{flag}{endpoint.api_key_file}: cannot be read: {why}"
        path = ("spec", "provider", "openai", "apiKeySecret")
        place = manifests.locate(ObjectId("ModelEndpoint", namespace, name), path)
        raise Refused(RunFailed(Reason.SECRET_MISSING, problem, path=".".join(path)), place)


def _same_inputs(options: Options, folder: Path, spec: RunSpec) -> RunSpec:
    """The frozen run.json of a run that is resumed; else the folder must be new."""
    path, shown = folder / "run.json", options.output / folder.name
    if not path.is_file() and options.resume:
        # Starting anew instead would pay a second time for a run that lies in another --output.
        raise RunFailed(
            Reason.INVALID_MANIFEST, f"--resume: there is no run in {shown}; without --resume one is started"
        )
    journal = folder / "journal.jsonl"
    if not path.is_file() or not journal.is_file():
        return spec  # nothing was asked yet, whatever went wrong before
    if not options.resume and not holds_answers(journal):
        journal.unlink()  # nobody was there: the same command starts anew, with whatever was corrected
        return spec
    if not options.resume:
        raise RunFailed(
            Reason.INVALID_MANIFEST,
            f"{shown} holds this run already: --resume goes on with it, --output or `rm -r` starts anew",
        )
    try:
        before = RunSpec.model_validate_json(path.read_bytes())
    except ValueError:
        raise RunFailed(Reason.INVALID_MANIFEST, f"{shown / 'run.json'} is damaged: use another --output") from None
    if before.input_digest != spec.input_digest:
        raise RunFailed(
            Reason.INVALID_MANIFEST,
            f"{shown} was started with other inputs: {', '.join(_changed(before, spec))} changed since; "
            "undo that, or use another --output",
        )
    # What was frozen stays: looks, incumbent. Where things are may have moved: URLs, keys, paths, prices.
    return spec.model_copy(update={"test_looks": before.test_looks, "incumbent": before.incumbent})


def _changed(before: RunSpec, now: RunSpec) -> list[str]:
    """Which of the inputs differ, in people's words."""
    models = [{role: (of.model, of.request) for role, of in spec.endpoints.items()} for spec in (before, now)]
    pairs = {
        "the program": (before.program.digest, now.program.digest),
        "the rows": (before.dataset.digest, now.dataset.digest),
        "the optimizer": (before.optimizer, now.optimizer),
        "the goal": (before.goal, now.goal),
        "what it starts from": (_digest_of(before.start_from), _digest_of(now.start_from)),
        "the seed": (before.seed, now.seed),
        "the model or its request": (models[0], models[1]),
    }
    return [name for name, (old, new) in pairs.items() if old != new]


def _digest_of(start: Start | None) -> str | None:
    return start.digest if start is not None else None


def _next_control(folder: Path, control: Control) -> Control:
    """A changed document gets the next generation, so that `effective` shows which one is in force."""
    try:
        before = Control.model_validate_json((folder / "control.json").read_bytes())
    except (OSError, ValueError):
        return control
    same = control.model_copy(update={"generation": before.generation})
    return before if same == before else control.model_copy(update={"generation": before.generation + 1})


def _account(path: Path) -> Account:
    try:
        return Account.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Account({})
    except ValueError:
        raise RunFailed(
            Reason.INVALID_MANIFEST, f"{path} is damaged: it counts the looks at test sets; repair or remove it"
        ) from None


@contextmanager
def _placed(options: Options, manifests: Manifests, namespace: str, run: str, program: str) -> Iterator[None]:
    """What fails inside is told with the file and line of its field; a folder that takes no files is a mistake, no bug."""
    try:
        yield
    except Refused:
        raise
    except RunFailed as failure:
        raise Refused(failure, _locate(manifests, namespace, run, program, failure.path)) from None
    except OSError as error:
        message = f"--output {options.output} cannot be used: {error.strerror}"
        raise RunFailed(Reason.INVALID_MANIFEST, message) from None


def _locate(manifests: Manifests, namespace: str, run: str, program: str, path: str | None) -> str | None:
    """File and line of a field, wherever of run and program it stands."""
    if path is None:
        return None
    identity, parts = owner_of(namespace, run, program, path)
    return manifests.locate(identity, parts) if identity in manifests.origins else None


def owner_of(namespace: str, run: str, program: str, path: str) -> tuple[ObjectId, FieldPath]:
    """Which of run and program has a field, and its path in it."""
    parts: list[str | int] = []
    for part in path.replace("]", "").replace("[", ".").split("."):
        parts.append(int(part) if part.isdigit() else part)
    if len(parts) > 1 and parts[1] in _fields(OptimizationRunSpec):
        return ObjectId("OptimizationRun", namespace, run), tuple(parts)
    return ObjectId("PromptProgram", namespace, program), tuple(parts)


def _fields(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}
