"""What a runner's pod is made of: builders shared by runs and validations. Pure; the engine applies what they return.

A try is one Job with one pod. What the pod is to do lies in an immutable ConfigMap (`spec_config_map`), what it says and
hears goes through the channel, and the one thing of the cluster that it may touch is that channel (`access`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dspy_operator.api.fields import API_VERSION
from dspy_operator.contract import names
from dspy_operator.contract.runspec import Control, RunSpec
from dspy_operator.engine.plan import Body

USER = 65532
"""`nonroot` of distroless images; user, group and owner of the pod's volumes."""
GRACE_SECONDS = 10
"""From SIGTERM to SIGKILL. A runner leaves within 2 s; a suspended run has to be gone within 10 s."""
DEFAULT_JOURNAL_SIZE = "1Gi"
DEFAULT_REQUESTS: Mapping[str, str] = {"cpu": "100m", "memory": "256Mi"}
"""What a pod asks for where `podTemplate.resources` is not written: a runner mostly waits for answers."""


class _Mount(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class KeyRef(_Mount):
    """A key of a ConfigMap or Secret."""

    name: str
    key: str


class DataMount(_Mount):
    """Where one source of rows is; with neither ConfigMap nor claim the spec ConfigMap has it, under the file's name."""

    file: str
    """In the source's folder."""
    config_map: str | None = None
    claim: str | None = None
    """PersistentVolumeClaim, mounted as a whole, read-only."""
    fetched: bool = False
    """The pod gets it from a server: nothing is mounted."""
    headers: str | None = None
    """Secret with the headers that it asks with."""
    credentials: str | None = None
    """Secret with the credentials of a bucket."""


class Mounts(_Mount):
    """What the pod mounts beside its own ConfigMaps, frozen with run.json.

    A later try of the same attempt is built from this and not from objects that have changed since.
    """

    data: tuple[DataMount, ...] = (DataMount(file=names.inline_file("JSONL")),)
    """Of each source of rows, in the order of Dataset.sources()."""
    code: tuple[KeyRef | None, ...] = ()
    """Of each piece of code that the program names; None where the image has it."""
    incumbent: str | None = None
    """Name of the revision ConfigMap that is served."""
    start: str | None = None
    """Name of the revision ConfigMap that the optimizer begins with."""
    headers: tuple[str, ...] | None = None
    """Secrets that servers of the program are asked with."""
    keys: dict[str, KeyRef] = Field(default_factory=dict)
    """Role -> Secret and key that hold its endpoint's API key."""
    image: str = ""
    """Of the runner, as it was configured when the inputs were frozen; or the program's own, made from it."""
    uids: dict[str, str] = Field(default_factory=dict)
    """Role -> uid of its endpoint, which a name alone does not pin."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier(cls, written: Any) -> Any:
        """Of an operator that knew one source: `rows` was its ConfigMap, else it was inline."""
        if not isinstance(written, dict) or not (rows := written.get("rows")):
            return written
        return {**written, "data": [{"file": rows["key"], "config_map": rows["name"]}]}

    @property
    def data_path(self) -> str:
        """Where the pod finds the rows of `dataset.source`."""
        return f"{names.DATA_FOLDER}/{self.data[0].file}"


@dataclass(frozen=True)
class Owner:
    """The run or program that a pod works for."""

    kind: str
    namespace: str
    name: str
    uid: str

    @staticmethod
    def of(body: Body) -> Owner:
        """Of one of our objects."""
        metadata = body["metadata"]
        return Owner(body["kind"], metadata["namespace"], metadata["name"], metadata["uid"])

    def metadata(self, name: str, component: names.Component, **labels: str) -> dict[str, Any]:
        """Metadata of a child that goes with its owner.

        Without `blockOwnerDeletion`, which would need a right on the owner's finalizers.
        """
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(component) | labels,
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": self.kind, "name": self.name, "uid": self.uid, "controller": True}
            ],
        }

    def labels(self, component: names.Component) -> dict[str, str]:
        """Labels by which a child is found again."""
        return {
            "app.kubernetes.io/managed-by": "dspy-operator",
            names.LABEL_KIND: self.kind,
            names.LABEL_NAME: self.name,
            names.LABEL_COMPONENT: component.value,
        }


def owned_by(child: Body, uid: str) -> bool:
    """Whether a child belongs to this very object, and not to an earlier one of the same name."""
    return any(reference.get("uid") == uid for reference in child["metadata"].get("ownerReferences", ()))


def spec_config_map(
    owner: Owner, name: str, spec: RunSpec, mounts: Mounts, *, inline: Mapping[str, str] | None = None, **labels: str
) -> Body:
    """The immutable ConfigMap with run.json; a new content is a new name, for a kubelet may serve the old one.

    Args:
        inline: key -> rows that are written in the program itself.
        labels: LABEL_ATTEMPT by its value.
    """
    data = {
        names.KEY_RUN_SPEC: _json(spec.document()),
        names.KEY_MOUNTS: _json(mounts.model_dump(mode="json", exclude_none=True)),
        **(inline or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(name, names.Component.SPEC, **labels),
        "immutable": True,
        "data": data,
    }


def channel(owner: Owner, name: str, control: Control | None = None) -> Body:
    """The ConfigMap through which pod and operator talk, as far as it is ours: the pod's keys are the pod's.

    Args:
        control: the live part of a run; a validation has none.
    """
    body: Body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(name, names.Component.CHANNEL),
    }
    if control is not None:
        body["data"] = {names.KEY_CONTROL: _json(control.document())}
    return body


def access(owner: Owner, channel_name: str) -> tuple[Body, ...]:
    """ServiceAccount, Role and RoleBinding of the pod, named as its channel: get and patch that one object, nothing else."""

    def metadata() -> dict[str, Any]:
        return owner.metadata(channel_name, names.Component.ACCESS)

    return (
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(),
            "automountServiceAccountToken": False,  # the pod asks for the token itself
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata(),
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["configmaps"],
                    "resourceNames": [channel_name],
                    "verbs": ["get", "patch"],
                }
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": channel_name},
            "subjects": [{"kind": "ServiceAccount", "name": channel_name, "namespace": owner.namespace}],
        },
    )


def journal(owner: Owner, name: str, size: str = DEFAULT_JOURNAL_SIZE, storage_class: str | None = None) -> Body:
    """The volume that outlives a pod: what was answered is not paid twice.

    Args:
        size: a Kubernetes quantity.
        storage_class: None leaves it to the cluster.
    """
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": owner.metadata(name, names.Component.JOURNAL),
        "spec": spec,
    }


@dataclass(frozen=True)
class Pod:
    """What differs between one runner's pod and another."""

    attempt: int
    try_: int
    spec_name: str
    channel_name: str
    mounts: Mounts
    pull_policy: str = "IfNotPresent"
    journal_claim: str | None = None
    """PersistentVolumeClaim of the work volume; None is an EmptyDir, which dies with the pod."""
    template: Mapping[str, Any] | None = None
    """`podTemplate` as written, in Kubernetes' own names."""
    priority_class: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    """Run whose answers may be taken -> PersistentVolumeClaim of its journal."""
    execution: str = ""
    """Digest for names.ANNOTATION_EXECUTION."""


def job(owner: Owner, name: str, pod: Pod) -> Body:
    """The Job of one try. It never retries by itself: backoff is the operator's, which knows the reasons."""
    template = pod.template or {}
    labels = {names.LABEL_ATTEMPT: str(pod.attempt), names.LABEL_TRY: str(pod.try_)}
    metadata = owner.metadata(name, names.Component.JOB, **labels)
    if pod.execution:
        metadata["annotations"] = {names.ANNOTATION_EXECUTION: pod.execution}
    pod_metadata: dict[str, Any] = {
        "labels": {**template.get("labels", {}), **owner.labels(names.Component.JOB), **labels}
    }
    if annotations := template.get("annotations"):
        pod_metadata["annotations"] = dict(annotations)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "template": {"metadata": pod_metadata, "spec": _pod_spec(pod, template)},
        },
    }


_PLACEMENT = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "runtimeClassName",
    "imagePullSecrets",
)


def _pod_spec(pod: Pod, template: Mapping[str, Any]) -> dict[str, Any]:
    volumes, volume_mounts = _volumes(pod)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": pod.channel_name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                # Neither command nor arguments: where run.json lies is the contract, how it is run is the image's own.
                "name": "runner",
                "image": pod.mounts.image,
                "imagePullPolicy": pod.pull_policy,
                "env": [
                    {"name": names.ENV_TRY, "value": str(pod.try_)},
                    {"name": names.ENV_CHANNEL, "value": pod.channel_name},
                    {"name": names.ENV_IMAGE, "value": pod.mounts.image},
                ],
                "resources": template.get("resources", {"requests": dict(DEFAULT_REQUESTS)}),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": volume_mounts,
            }
        ],
        "volumes": volumes,
    }
    if pod.priority_class is not None:
        spec["priorityClassName"] = pod.priority_class
    return spec | {name: template[name] for name in _PLACEMENT if name in template}


def _volumes(pod: Pod) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mounts = pod.mounts
    volumes: list[dict[str, Any]] = [
        _config_map("spec", pod.spec_name, names.KEY_RUN_SPEC),
        {"name": "work"}
        | ({"persistentVolumeClaim": {"claimName": pod.journal_claim}} if pod.journal_claim else {"emptyDir": {}}),
        {"name": "tmp", "emptyDir": {}},
    ]
    where = {"spec": names.SPEC_FOLDER, "work": names.WORK_FOLDER, "tmp": "/tmp"}
    for number, data in enumerate(mounts.data):
        volume = f"data-{number}" if number else "data"
        if not data.fetched:
            volumes.append(_data(volume, data, pod.spec_name))
            where[volume] = names.data_folder(number)
        elif data.headers is not None:
            volumes.append({"name": f"headers-{number}", "secret": {"secretName": data.headers, "optional": True}})
            where[f"headers-{number}"] = names.rows_secret_folder(number)
        elif data.credentials is not None:
            secret = {"secretName": data.credentials, "optional": True}
            volumes.append({"name": f"credentials-{number}", "secret": secret})
            where[f"credentials-{number}"] = names.rows_secret_folder(number)
    for number, ref in enumerate(mounts.code):
        if ref is not None:
            volumes.append(_config_map(f"code-{number}", ref.name, ref.key, optional=True))
            where[f"code-{number}"] = names.code_folder(number)
    for number, (run, claim) in enumerate(sorted(pod.answers.items())):
        source = {"claimName": claim, "readOnly": True}
        volumes.append({"name": f"answers-{number}", "persistentVolumeClaim": source})
        where[f"answers-{number}"] = f"{names.ANSWERS_FOLDER}/{run}"
    if mounts.incumbent is not None:
        volumes.append({"name": "incumbent", "configMap": {"name": mounts.incumbent}})
        where["incumbent"] = names.INCUMBENT_FOLDER
    if mounts.start is not None:
        volumes.append({"name": "start", "configMap": {"name": mounts.start}})
        where["start"] = names.START_FOLDER
    for number, secret_name in enumerate(mounts.headers or ()):
        source = {"secretName": secret_name, "optional": True}
        volumes.append({"name": f"program-headers-{number}", "secret": source})
        where[f"program-headers-{number}"] = names.headers_folder(secret_name)
    for role, ref in sorted(mounts.keys.items()):
        folder, _, file = names.key_file(role).rpartition("/")
        volumes.append(
            {
                "name": f"key-{role}",
                # Optional, since the operator cannot read Secrets: an absent one is a typed exit of the pod, not a pod that hangs.
                "secret": {
                    "secretName": ref.name,
                    "items": [{"key": ref.key, "path": file}],
                    "optional": True,
                },
            }
        )
        where[f"key-{role}"] = folder
    writable = {"work", "tmp"}
    return volumes, [
        {"name": name, "mountPath": path} | ({} if name in writable else {"readOnly": True})
        for name, path in where.items()
    ]


def _data(volume: str, data: DataMount, spec_name: str) -> dict[str, Any]:
    if data.claim is None:
        return _config_map(volume, data.config_map or spec_name, data.file, optional=True)
    # Read-only at the volume too, not just at the mount: the kubelet then leaves the files' owners and modes alone.
    return {"name": volume, "persistentVolumeClaim": {"claimName": data.claim, "readOnly": True}}


def _config_map(volume: str, name: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    """One key of a ConfigMap as a volume; where that may be gone, the pod says so by its exit instead of hanging."""
    source: dict[str, Any] = {"name": name, "items": [{"key": key, "path": key}]}
    return {"name": volume, "configMap": source | ({"optional": True} if optional else {})}


def _json(document: Any) -> str:
    """One byte form, so that the same document is never a difference."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
