"""Pods, Services by name, exec, memory limits, admission, images: what any cluster should do."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .. import images, kubectl, paths
from .pods import IMAGE, NAMESPACE, RESTRICTED, eventually, in_namespace, make, output_of_pod, pod_spec

_GROUP = "cluster-proof.test"
CRD_NAME = f"widgets.{_GROUP}"
_FETCH = """python3 -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode().strip())' """
# An address of the Services' range that no Service has.
_NOBODY = "10.96.255.254"


def an_image_is_loaded() -> str:
    """An image that was just built is loaded, and a pod runs it."""
    image = "dspy-operator/cluster-proof:1"
    log = paths.logs() / "proof.log"
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        stamp = context.name
        (context / "stamp").write_text(stamp)
        (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY stamp /stamp\n")
        images.build(context=context, dockerfile=context / "Dockerfile", tags=[image], log=log)
    images.load(image, log=log)
    said = output_of_pod("image", pod_spec("cat /stamp", image=image))
    assert said == stamp, said
    return said


def a_job_completes() -> None:
    """A Job runs to completion."""
    template = {"spec": pod_spec("echo the job ran on $(hostname)")}
    make("Job", "hello", {"backoffLimit": 0, "template": template}, version="batch/v1")
    in_namespace("wait", "job/hello", "--for=condition=complete", "--timeout=60s")


def logs_are_read() -> str:
    """Its log is read."""
    said = in_namespace("logs", "job/hello")
    assert said.startswith("the job ran on hello-"), said
    return said.strip()


def exec_works() -> None:
    """A command runs inside a pod (exec), as user 65532."""
    make("Pod", "client", pod_spec("sleep 100000"))
    in_namespace("wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
    said = _in_client("echo $(hostname) $(id -u)").split()
    assert said == ["client", "65532"], said


def services_answer_by_name() -> str:
    """A Service answers by its short and its full DNS name, with the right content, from both replicas."""
    serve = "mkdir /tmp/www && hostname >/tmp/www/index.html && exec python3 -m http.server -d /tmp/www 8080"
    labels = {"app": "web"}
    spec = pod_spec(serve, restart="Always")
    spec["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    make("Deployment", "web", deployment, version="apps/v1")
    make("Service", "web", {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]})
    in_namespace("rollout", "status", "deployment/web", "--timeout=60s")
    pods = {item["metadata"]["name"] for item in kubectl.read("-n", NAMESPACE, "pods", "-l", "app=web")["items"]}

    def answered(host: str) -> set[str]:
        code, said = kubectl.tried(
            *["-n", NAMESPACE, "exec", "client", "--", "sh", "-c"],
            f"for i in 1 2 3 4; do {_FETCH} http://{host}/; done",
        )
        return set(said.split()) if code == 0 else set()

    for host in ("web", f"web.{NAMESPACE}.svc.cluster.local"):
        seen: set[str] = set()

        def both(host: str = host, seen: set[str] = seen) -> bool:
            seen |= answered(host)
            return seen >= pods

        eventually(f"both replicas answer at {host}", both)
        assert seen == pods, f"{seen} answered, the pods are {pods}"
    return " ".join(sorted(pods))


def the_api_answers_a_pod() -> None:
    """A pod reaches the API server by its Service, and is told what it is."""
    script = """python3 -c '
import json, ssl, urllib.request
root = "/var/run/secrets/kubernetes.io/serviceaccount/"
asked = urllib.request.Request("https://kubernetes.default.svc/version",
                               headers={"Authorization": "Bearer " + open(root + "token").read()})
trusted = ssl.create_default_context(cafile=root + "ca.crt")
print(json.load(urllib.request.urlopen(asked, context=trusted, timeout=5))["gitVersion"])'"""
    said = _in_client(script).strip()
    server = json.loads(kubectl.kubectl("get", "--raw=/version"))["gitVersion"]
    assert said == server, said


def a_lost_address_fails() -> str:
    """An address of the Services' range that no Service has is not answered by something outside."""
    code, said = kubectl.tried("-n", NAMESPACE, "exec", "client", "--", "sh", "-c", f"{_FETCH} http://{_NOBODY}/")
    assert code != 0, f"something answered: {said}"
    return said.strip().splitlines()[-2] if "terminated" in said else said.strip().splitlines()[-1]


def cel_refuses() -> str:
    """A CRD's CEL rules refuse: a value, and a change."""
    kubectl.apply(_crd())
    kubectl.kubectl("wait", f"crd/{CRD_NAME}", "--for=condition=Established", "--timeout=30s")
    make("Widget", "one", {"size": 3, "owner": "a"}, version=f"{_GROUP}/v1")
    refusals = []
    for spec, message in (
        ({"size": 30, "owner": "a"}, "size is over max"),
        ({"size": 3, "owner": "b"}, "owner cannot be changed"),
    ):
        code, said = kubectl.tried(
            "-n", NAMESPACE, "patch", "widget/one", "--type=merge", "-p", json.dumps({"spec": spec})
        )
        assert code != 0 and message in said, said
        refusals.append(message)
    return "; ".join(refusals)


def memory_is_limited() -> None:
    """A container over its memory limit is OOMKilled."""
    make("Pod", "hog", pod_spec("python3 -c 'b\"x\" * 300_000_000'", memory="32Mi"))
    reason = "jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    eventually("the pod ends", lambda: in_namespace("get", "pod/hog", f"-o={reason}") != "")
    said = in_namespace("get", "pod/hog", f"-o={reason}")
    assert said == "OOMKilled", said


def restricted_pods_only() -> str:
    """A namespace at the restricted Pod Security level refuses a root pod and runs ours."""
    rooted = pod_spec("true")
    rooted["securityContext"] = {}
    rooted["containers"][0]["securityContext"] = {"privileged": True}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rooted"}, "spec": rooted}
    code, said = kubectl.tried("-n", RESTRICTED, "apply", "-f", "-", stdin=json.dumps(manifest))
    assert code != 0 and 'violates PodSecurity "restricted' in said, said
    make("Pod", "ours", pod_spec("true"), namespace=RESTRICTED)
    kubectl.kubectl(
        *["-n", RESTRICTED, "wait", "pod/ours", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"]
    )
    return said.strip()[:150]


CHECKS = [
    an_image_is_loaded,
    a_job_completes,
    logs_are_read,
    exec_works,
    services_answer_by_name,
    the_api_answers_a_pod,
    a_lost_address_fails,
    cel_refuses,
    memory_is_limited,
    restricted_pods_only,
]


def _in_client(script: str) -> str:
    return in_namespace("exec", "client", "--", "sh", "-c", script)


def _crd() -> dict[str, Any]:
    spec = {
        "type": "object",
        "required": ["size", "owner"],
        "properties": {
            "size": {"type": "integer"},
            "max": {"type": "integer", "default": 10},
            "owner": {"type": "string"},
        },
        "x-kubernetes-validations": [
            {"rule": "self.size <= self.max", "message": "size is over max"},
            {"rule": "self.owner == oldSelf.owner", "message": "owner cannot be changed"},
        ],
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [version],
        },
    }
