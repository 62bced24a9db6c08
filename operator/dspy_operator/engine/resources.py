"""Where the API server keeps which kind: from (apiVersion, kind) to a URL's path, without asking discovery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dspy_operator.engine.plan import Ref


@dataclass(frozen=True)
class Resource:
    """One namespaced kind."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The last part of apiVersion."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Of the collection in all namespaces, of one namespace's, of an object, or of its subresource."""
        parts = ["", "apis" if self.group else "api", self.api_version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)

    @property
    def crd(self) -> str:
        """Name of the CustomResourceDefinition that would make it known."""
        return f"{self.plural}.{self.group}"


CHILDREN = (
    Resource("batch/v1", "Job", "jobs"),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
)
"""What controllers make, and the pods that come of it: watched where they carry our label."""

EVENTS = Resource("v1", "Event", "events")


class UnknownKind(Exception):
    """A controller named a kind that nobody told the engine of: a bug."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.api_version} {ref.kind} is no resource that the engine knows")


class Resources:
    """Every kind that the engine can address.

    Args:
        own: kinds of ours, watched whole.
    """

    def __init__(self, own: Iterable[Resource], children: Iterable[Resource] = CHILDREN) -> None:
        self.own = tuple(own)
        self.children = tuple(children)
        self._known: dict[tuple[str, str], Resource] = {
            (resource.api_version, resource.kind): resource for resource in (*self, EVENTS)
        }

    def __iter__(self) -> Iterator[Resource]:
        """What is watched."""
        return iter((*self.own, *self.children))

    def of(self, ref: Ref) -> Resource:
        """Where an object is kept.

        Raises:
            UnknownKind: for a kind that is neither ours nor a child.
        """
        try:
            return self._known[ref.api_version, ref.kind]
        except KeyError:
            raise UnknownKind(ref) from None
