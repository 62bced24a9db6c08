"""What objects are called and where things are in a pod: the one place that operator, runner and loader agree on.

A name carries its kind (`orun-`, `pp-`, `mep-`), since people name a program and its run alike; only what people mount or
call keeps the bare name: `<program>-current`, `<program>-account`, `<program>-<digest8>`, an endpoint's Service.
"""

from __future__ import annotations

import re
from enum import StrEnum

# --- labels and annotations of every object that the operator makes -------------------------------------------------

LABEL_KIND = "dspy-operator.io/kind"
"""Kind of the object that a child belongs to; the operator watches children by the presence of this label."""
LABEL_NAME = "dspy-operator.io/name"
"""Name of the object that a child belongs to; same namespace."""
LABEL_COMPONENT = "dspy-operator.io/component"
"""What the child is, a Component."""
LABEL_ATTEMPT = "dspy-operator.io/attempt"
LABEL_TRY = "dspy-operator.io/try"
ANNOTATION_APPLIED = "dspy-operator.io/applied"
"""Digest of what the operator applied last, so that nothing is written where nothing changed."""
ANNOTATION_DIGEST = "dspy-operator.io/digest"
"""Of a revision: its whole digest; of `<program>-current`: the digest that it follows."""
ANNOTATION_REVISION = "dspy-operator.io/revision"
"""Name of the revision whose files these are."""
ANNOTATION_PINNED = "dspy-operator.io/pinned"
""""true" while `spec.revision` asks for it, else "false"."""
ANNOTATION_PROMOTED = "dspy-operator.io/promoted-revision"
ANNOTATION_PROMOTED_DIGEST = "dspy-operator.io/promoted-digest"
ANNOTATION_PROMOTED_RUN = "dspy-operator.io/promoted-run"
ANNOTATION_PROMOTED_SCORE = "dspy-operator.io/promoted-score"
ANNOTATION_PROMOTED_AT = "dspy-operator.io/promoted-at"
ANNOTATION_RUN = "dspy-operator.io/run"
"""On a revision: the run that found it first; a baseline has none."""
ANNOTATION_MADE_BY = "dspy-operator.io/program-uid"
"""On a revision: uid of the program that made it. What a program made it collects; what it found, Git may own, and
would make again."""
ANNOTATION_EXECUTION = "dspy-operator.io/execution"
"""On a Job: digest of the Execution fields that it was made from; another digest replaces the pod."""
ANNOTATION_TEMPLATE = "dspy-operator.io/template"
"""On pods: digest of the template that they were made from. Pods of another one do not count: they serve another model."""


class Component(StrEnum):
    """Value of LABEL_COMPONENT."""

    JOB = "job"
    """Job and pod of a run's try, or of a program's validation."""
    SPEC = "spec"
    """Immutable ConfigMap with run.json."""
    CHANNEL = "channel"
    """ConfigMap that a pod gets and patches: control, progress, result, revision."""
    ACCESS = "access"
    """ServiceAccount, Role, RoleBinding of a pod."""
    JOURNAL = "journal"
    """PersistentVolumeClaim of a run's journal."""
    ACCOUNT = "account"
    REVISION = "revision"
    CURRENT = "current"
    SERVER = "server"
    """Deployment, Service, cache volume of an endpoint."""


# --- names of children ---------------------------------------------------------------------------------------------


def run_job(run: str, try_: int) -> str:
    """Job of one try; `try` never resets, so a name never means two Jobs."""
    return f"orun-{run}-{try_}"


def run_spec(run: str, attempt: int) -> str:
    """Immutable ConfigMap of one attempt's run.json: a new content is a new name, kubelets serve old content else."""
    return f"orun-{run}-{attempt}-spec"


def run_channel(run: str) -> str:
    """ConfigMap through which a run's pod and the operator talk; ServiceAccount, Role and RoleBinding share the name."""
    return f"orun-{run}-pod"


def run_journal(run: str) -> str:
    """PersistentVolumeClaim of a run's journal."""
    return f"orun-{run}-journal"


def validation_job(program: str, try_: int) -> str:
    """Job that validates a program."""
    return f"pp-{program}-{try_}"


def validation_spec(program: str, attempt: int) -> str:
    """Immutable ConfigMap of a validation's run.json."""
    return f"pp-{program}-{attempt}-spec"


def validation_channel(program: str) -> str:
    """ConfigMap through which a validation reports; ServiceAccount, Role and RoleBinding share the name."""
    return f"pp-{program}-pod"


def endpoint_channel(endpoint: str) -> str:
    """ConfigMap through which an endpoint's loaders report; ServiceAccount, Role and RoleBinding share the name."""
    return f"mep-{endpoint}-pod"


def endpoint_server(endpoint: str) -> str:
    """Deployment (and cache volume) of an Ollama endpoint; its Service keeps the bare name, which is in URLs."""
    return f"mep-{endpoint}"


def program_account(program: str) -> str:
    """ConfigMap of what outlives runs: spend, kept results, looks at test sets. One data key a run name."""
    return f"{program}-account"


def program_current(program: str) -> str:
    """ConfigMap that follows the served revision: what applications mount."""
    return f"{program}-current"


def program_revision(program: str, digest: str, length: int = 8) -> str:
    """Immutable ConfigMap of a revision; a collision extends the digest.

    Args:
        digest: with or without its `v1:` or `sha256:` prefix.
    """
    return f"{program}-{digest.rsplit(':', 1)[-1][:length]}"


# --- keys of a channel ConfigMap ---------------------------------------------------------------------------------------

KEY_CONTROL = "control.json"
"""Operator -> pod."""
KEY_PROGRESS = "progress.json"
KEY_RESULT = "result.json"
KEY_REVISION = "revision."
"""Prefix of a revision's files: `revision.program.py`, ..."""
KEY_RUN_SPEC = "run.json"
"""Of a spec ConfigMap."""
KEY_MOUNTS = "mounts.json"
"""Key of the spec ConfigMap beside run.json, for the operator alone."""


def loader_key(pod: str) -> str:
    """Key of one replica's loader in its endpoint's channel."""
    return f"progress.{pod}.json"


REVISION_PROGRAM = ("program.py", "program.json", "prompts.json")
"""The files that are a revision: its digest is theirs."""
REVISION_FILES = (*REVISION_PROGRAM, "report.json", "provenance.json")
"""All of a revision: the last two lie beside it."""
REVISION_BYTES = 900 * 1024
"""Of a revision's files together: an object of Kubernetes holds 1 MiB, and names, control, progress and result want theirs."""

# --- every pod of ours ---------------------------------------------------------------------------------------------------

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet mounts a ServiceAccount's `token`, which it renews, and `ca.crt`."""


def api_server(host: str, port: str) -> str:
    """URL of the API server, from the KUBERNETES_SERVICE_HOST and _PORT that every pod has; an IPv6 address has no brackets there."""
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


# --- the runner's pod ------------------------------------------------------------------------------------------------

SPEC_FOLDER = "/etc/dspy-operator"
RUN_JSON = f"{SPEC_FOLDER}/{KEY_RUN_SPEC}"
DATA_FOLDER = "/data/0"
"""Of `dataset.source`."""


def data_folder(number: int) -> str:
    """Of each source of rows, in the order of Dataset.sources()."""
    return f"/data/{number}"


def inline_file(format_: str, number: int = 0) -> str:
    """File, and key of the spec ConfigMap, with the rows that a program has in itself.

    Args:
        number: of the source.
    """
    return f"inline{f'-{number}' if number else ''}.{format_.lower()}"


def code_folder(number: int) -> str:
    """Of each piece of code that a ConfigMap has, in the order of `codes_of`; read-only, and mounted only where there is one."""
    return f"/code/{number}"


INCUMBENT_FOLDER = "/incumbent"
START_FOLDER = "/start"
ANSWERS_FOLDER = "/answers"
"""A folder for each run whose answers may be taken: its journal's volume, read only."""
WORK_FOLDER = "/work"
JOURNAL_FILE = f"{WORK_FOLDER}/journal.jsonl"
OUT_FOLDER = f"{WORK_FOLDER}/out"
CONTROL_FILE = f"{WORK_FOLDER}/control.json"
"""Where the runner keeps the last control document that it was given; the truth is in its channel."""


def url_file(url: str) -> str:
    """The file that the rows of a URL, or of an object's key, are kept in: its last part, as far as it is a name."""
    last = re.sub(r"[^A-Za-z0-9._-]", "_", url.partition("?")[0].rstrip("/").rpartition("/")[2])[-100:]
    return last if last.strip("._") else "rows"


def rows_secret_folder(number: int) -> str:
    """Files of the Secret that a source of rows is asked with; an optional mount."""
    return f"/secrets/data-{number}"


def headers_folder(secret: str) -> str:
    """Files of a Secret that a server of the program is asked with, one for each header; an optional mount."""
    return f"/secrets/headers/{secret}"


def key_file(role: str) -> str:
    """File of a role's API key: an optional mount, so that its absence is a typed exit."""
    return f"/secrets/{role}/api-key"


ENV_TRY = "DSPY_OPERATOR_TRY"
"""Number of this try."""
ENV_CHANNEL = "DSPY_OPERATOR_CHANNEL"
"""Name of the channel ConfigMap, in run.json's namespace; unset outside a cluster, where documents are files."""
ENV_IMAGE = "DSPY_OPERATOR_IMAGE"
"""Reference of the runner's own image, for provenance and result."""
