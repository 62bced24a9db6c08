"""SIGKILL for the first process of a pod, as an out-of-memory killer would: the pod itself stays and ends."""

from __future__ import annotations

from e2e.cluster.command import output_of
from e2e.demo.apiserver import Body


def sigkill(pod: Body) -> None:
    """Kills the first container's process on the pod's node."""
    node = pod["spec"]["nodeName"]
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    # Not crictl: the node that we build has a stand-in of it. Columns: task, process, status.
    tasks = output_of(["docker", "exec", node, "ctr", "--namespace", "k8s.io", "task", "list"])
    (pid,) = (words[1] for words in map(str.split, tasks.splitlines()) if words[0] == container)
    output_of(["docker", "exec", node, "kill", "-9", pid])
