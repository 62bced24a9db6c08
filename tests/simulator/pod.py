"""A pod as its container sees it: environment, files, and the API server as its own ServiceAccount."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspy_operator.contract import names
from tests.simulator.api import Api, Body, Refused


class Denied(Exception):
    """The pod's Role is gone: so will the pod be in a moment."""


class ChannelGone(Exception):
    """The channel's ConfigMap does not exist: the run's object is gone."""


@dataclass(frozen=True)
class Files:
    """What is mounted."""

    content: Mapping[str, str]
    """Absolute path -> text, of ConfigMaps and Secrets."""
    work: str
    """Which volume WORK_FOLDER is; one of its own for each pod where it is an EmptyDir."""

    def below(self, folder: str) -> dict[str, str]:
        """File name -> text of one mounted folder."""
        return {path.removeprefix(folder + "/"): text for path, text in self.content.items() if path.startswith(folder)}


@dataclass
class Container:
    """The main container of a pod that runs."""

    api: Api
    body: Body
    files: Files
    terminated: asyncio.Event = field(default_factory=asyncio.Event)
    """SIGTERM came."""

    @property
    def namespace(self) -> str:
        return str(self.body["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def owner(self) -> str:
        """Name of the run, program or endpoint."""
        return str(self.body["metadata"]["labels"][names.LABEL_NAME])

    @property
    def environment(self) -> dict[str, str]:
        """Plain values only."""
        return {entry["name"]: entry.get("value", "") for entry in main_container(self.body).get("env", ())}

    @property
    def user(self) -> str:
        """Its ServiceAccount, as the API server names it."""
        return f"system:serviceaccount:{self.namespace}:{self.body['spec'].get('serviceAccountName', 'default')}"

    async def read_channel(self, channel: str) -> dict[str, str]:
        """The keys of a ConfigMap.

        Raises:
            ChannelGone: there is none.
        """
        return await self._channel("GET", channel)

    async def write_channel(self, channel: str, keys: Mapping[str, str]) -> dict[str, str]:
        """Set keys, and get all of them back.

        Raises:
            ChannelGone: there is none.
            Denied: the pod may not.
        """
        return await self._channel("PATCH", channel, {"data": dict(keys)})

    async def _channel(self, method: str, channel: str, body: object = None) -> dict[str, str]:
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{channel}"
        try:
            found = await self.api.do(method, path, body, kind="merge-patch+json", user=self.user)
        except Refused as refused:
            if refused.code == 404:
                raise ChannelGone from None
            if refused.code == 403:
                raise Denied from None
            raise
        return dict(found.get("data") or {})


def main_container(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The first one, which for our pods is the runner or the model server."""
    return dict(pod["spec"]["containers"][0])


async def mount(api: Api, pod: Body) -> Files | str:
    """What a kubelet would mount, or which object it waits for."""
    namespace, volumes = (
        pod["metadata"]["namespace"],
        {volume["name"]: volume for volume in pod["spec"].get("volumes", ())},
    )
    content: dict[str, str] = {}
    work = f"pod {pod['metadata']['uid']}"
    for entry in main_container(pod).get("volumeMounts", ()):
        volume, folder = volumes[entry["name"]], entry["mountPath"]
        if folder == names.WORK_FOLDER and "persistentVolumeClaim" in volume:
            work = f"claim {namespace}/{volume['persistentVolumeClaim']['claimName']}"
        for source in [volume, *(volume.get("projected") or {}).get("sources", ())]:
            files = await _source(api, namespace, source)
            if isinstance(files, str):
                return files
            single = entry.get("subPath")
            for path, text in files.items():
                if single is None:
                    content[f"{folder}/{path}"] = text
                elif path == single:
                    content[folder] = text
    return Files(content, work)


async def _source(api: Api, namespace: str, volume: Mapping[str, Any]) -> dict[str, str] | str:
    for kind, resource in (("configMap", "configmaps"), ("secret", "secrets")):
        if (wanted := volume.get(kind)) is None:
            continue
        name = wanted.get("name") or wanted.get("secretName")
        found = await api.find(f"/api/v1/namespaces/{namespace}/{resource}/{name}")
        if found is None:
            return {} if wanted.get("optional") else f"{kind} {name}"
        data = dict(found.get("data") or {})
        if kind == "secret":
            data = {key: base64.b64decode(value).decode() for key, value in data.items()}
        items = wanted.get("items")
        if items is None:
            return data
        absent = [item["key"] for item in items if item["key"] not in data]
        if absent and not wanted.get("optional"):
            return f"key {absent[0]} of {kind} {name}"
        return {item["path"]: data[item["key"]] for item in items if item["key"] in data}
    return {}


def parsed(text: str | None) -> Any:
    """A channel's document, or None."""
    return json.loads(text) if text else None
