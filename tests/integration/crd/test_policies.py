"""The chart's policies on a real API server: what a namespace may name, who is told what, and what they leave alone.

The API server looks at an object's schema before it asks a policy. What the schema refuses as not supported yet (programs that are
code, Perplexity) never reaches one, so these tests take those rules, and no others, out of the definitions: the policies are there
on the day when a line of `api/unsupported.py` goes. One test keeps the definitions as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.api.resources import RESOURCES
from dspy_operator.api.unsupported import PREFIX
from tests import yaml_text
from tests.controlplane.processes import ControlPlane, running
from tests.integration.crd.test_chart import ACCOUNT, CHART, NAMESPACE, helm, of_kind, on, rendered, wait_for
from tests.unit.written import a_program, a_run, an_endpoint

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs/tasks/guard-a-namespace.md"
FOR = {
    # namespace -> its label
    "plain": None,
    "misspelt": "reserch",
    "research": "research",
    "open": "open",
    "closed": "closed",
    "large": "large",
}
EVERYTHING: dict[str, list[str]] = {
    "code": ["ConfigMap", "Image"],
    "images": ["*"],
    "providers": ["Ollama", "OpenAI", "Perplexity"],
    "baseURLs": ["*"],
    "registries": ["*"],
}
PROFILES: dict[str, dict[str, list[str]]] = {
    "research": {
        "code": ["ConfigMap", "Image"],
        "images": ["registry.example/prompts", "python"],
        "providers": ["Ollama", "OpenAI"],
        "baseURLs": ["https://api.example/v1", "http://vllm.models.svc:8000"],
        "registries": ["registry.ollama.ai", "registry.models.svc:5000"],
    },
    "open": EVERYTHING,
    "closed": {"providers": []},
    "large": {
        "code": ["ConfigMap", "Image"],
        "images": [f"registry.example/{number:02}/{'a' * 480}" for number in range(64)],
        "providers": ["OpenAI"],
        "baseURLs": [f"https://{number:02}.example/{'a' * 900}" for number in range(64)],
    },
}
VALUES = ["--set=policies.enabled=true", "--set=policies.contact=prompts@example.com"]
ASK = "Ask prompts@example.com"

FROM_CONFIG_MAP = {"configMap": {"name": "code", "key": "program.py"}, "entrypoint": "program:build"}
FIELDS = {"inputs": [{"name": "ticket", "type": "str"}], "outputs": [{"name": "label", "type": "str"}]}
A_SCORE = {"metric": {"type": "ExactMatch"}}


def from_image(image: str) -> dict[str, Any]:
    return {"image": image, "entrypoint": "program:build"}


def repeated(module: str, member: str) -> Any:
    options = {"attempts": 3, "threshold": "1"}
    return lambda code: {
        "program.single.module": {"type": module, member: {**options, "reward": {"type": "Code", "code": code}}}
    }


PLACES = {
    # where the schema has code -> what is changed in a program so that it has code there
    "spec.program.code": lambda code: {"program": {"type": "Code", "code": {**code, **FIELDS}}},
    "spec.program.single.module.bestOfN.reward.code": repeated("BestOfN", "bestOfN"),
    "spec.program.single.module.refine.reward.code": repeated("Refine", "refine"),
    "spec.metric.code": lambda code: {"metric": {"type": "Code", "code": code}},
    "spec.metric.composite.parts[].metric.code": lambda code: {
        "metric": {
            "type": "Composite",
            "composite": {"parts": [*[A_SCORE] * 7, {"metric": {"type": "Code", "code": code}}]},
        }
    },
}


def supported(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition as it is once nothing is left that is not supported yet."""

    def cleaned(part: Any) -> Any:
        if isinstance(part, list):
            return [cleaned(one) for one in part if not _not_yet(one)]
        return {key: cleaned(one) for key, one in part.items()} if isinstance(part, dict) else part

    return dict(cleaned(definition))


def _not_yet(rule: Any) -> bool:
    return (
        isinstance(rule, dict) and "rule" in rule and PREFIX in str(rule.get("message", rule.get("messageExpression")))
    )


def definitions() -> Iterator[dict[str, Any]]:
    return (yaml_text.document(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml")))


@pytest.fixture(scope="module")
def guarded() -> Iterator[ControlPlane]:
    """An API server with the chart's policies. `plain` held objects before they came."""
    with running() as plane:
        for definition in definitions():
            applied(plane, supported(definition))
        plane.serves_what_was_applied()
        for name, label in FOR.items():
            labels = {"dspy-operator.io/policy": label} if label else {}
            applied(plane, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        applied(plane, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for document in before():
            applied(plane, {**document, "metadata": {**document["metadata"], "namespace": "plain"}})
        installed(plane, "install")
        yield plane


def before() -> list[dict[str, Any]]:
    """What no policy of `plain` would let in."""
    program = a_program(PLACES["spec.program.code"](from_image("docker.io/me/code:1")))
    return [{**document, "metadata": {"name": "before"}} for document in (program, an_endpoint())]


def applied(plane: ControlPlane, document: dict[str, Any]) -> None:
    done = plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(document))
    assert done.returncode == 0, done.stderr


def installed(plane: ControlPlane, verb: str, profiles: dict[str, Any] = PROFILES) -> None:
    """Helm's work, and until every binding is heeded."""
    with_profiles(plane, verb, profiles)
    for namespace in FOR:
        unlike = {
            "provider": {"type": "Perplexity", "perplexity": {"model": "m", "apiKeySecret": {"name": "s", "key": "k"}}}
        }
        if profiles.get(namespace) != EVERYTHING:
            wait_for(f"the policies of {namespace}", lambda n=namespace, u=unlike: refusal(plane, n, an_endpoint(u)))
            code = PLACES["spec.program.code"](from_image("nowhere.example/x"))
            wait_for(f"the policies of {namespace}", lambda n=namespace, c=code: refusal(plane, n, a_program(c)))


def with_profiles(plane: ControlPlane, verb: str, profiles: dict[str, Any], *more: str) -> None:
    """Helm's work."""
    values = plane.folder / "values.json"
    values.write_text(json.dumps({"policies": {"profiles": profiles}}))
    done = on(plane, verb, "--set=crds.install=false", *VALUES, f"--values={values}", *more)
    assert done.returncode == 0, done.stderr


def refusal(plane: ControlPlane, namespace: str, document: dict[str, Any]) -> str | None:
    """The policy's words; None where the object is taken. Nothing is kept."""
    code, said = plane.request("POST", f"{collection(document, namespace)}?dryRun=All&fieldValidation=Strict", document)
    if code == 201:
        return None
    assert code == 403, said["message"]
    head, _, words = str(said["message"]).partition(" denied request: ")
    policy = "programs" if document["kind"] == "PromptProgram" else "endpoints"
    assert head == (
        f'{plural(document)}.dspy-operator.io "{document["metadata"]["name"]}" is forbidden: '
        f"ValidatingAdmissionPolicy 'dspy-operator-{policy}' with binding 'dspy-operator-{policy}'"
    )
    return words


def plural(document: dict[str, Any]) -> str:
    return next(resource.plural for resource in RESOURCES if resource.kind == document["kind"])


def collection(document: dict[str, Any], namespace: str) -> str:
    return f"/apis/dspy-operator.io/v1alpha1/namespaces/{namespace}/{plural(document)}"


# What the chart makes


def test_nothing_is_there_unless_asked_for() -> None:
    kinds = {document["kind"] for document in rendered()}
    assert kinds & {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ConfigMap"} == set()


def test_a_cluster_that_has_no_such_policies_is_told_before_anything_is_installed() -> None:
    done = helm("template", "dspy-operator", str(CHART), "--kube-version=1.29.0", *VALUES)
    assert "policies.enabled: ValidatingAdmissionPolicy needs Kubernetes 1.30 or newer, this is v1.29.0" in done.stderr


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param('{"default": {"code": ["Git"]}}', "at '/policies/profiles/default/code/0'", id="no such place"),
        pytest.param('{"default": {"providers": ["Azure"]}}', "/default/providers/0': value must be", id="no such provider"),
        pytest.param('{"default": {"baseURLs": ["api.example"]}}', "/default/baseURLs/0'", id="no scheme"),
        pytest.param('{"default": {"baseURLs": ["https://api.example/"]}}', "/default/baseURLs/0'", id="slash at the end"),
        pytest.param('{"default": {"registries": ["hf.co/me"]}}', "/default/registries/0'", id="more than a host"),
        pytest.param('{"Research": {}}', "'Research'", id="a name that no label can have"),
        pytest.param('{"default": {"image": []}}', "'image' not allowed", id="a list that there is not"),
    ],
)  # fmt: skip
def test_a_wrong_profile_is_refused_with_its_path(value: str, want: str) -> None:
    done = helm(
        "template", "dspy-operator", str(CHART), "--kube-version=1.34.0", f"--set-json=policies.profiles={value}"
    )
    assert done.returncode == 1
    assert want in done.stderr


def test_a_list_that_a_profile_does_not_have_is_the_defaults_and_an_empty_one_is_empty() -> None:
    given = '{"default": {"code": ["ConfigMap"], "registries": ["hf.co"]}, "a": {"code": []}, "b": {"registries": []}}'
    made = rendered(*VALUES, f"--set-json=policies.profiles={given}")
    lists = {name: (profile["code"], profile["registries"]) for name, profile in lists_of(made).items()}
    assert lists == {"default": ("ConfigMap", "hf.co"), "a": ("", "hf.co"), "b": ("ConfigMap", "")}


def test_the_values_of_the_documentation_make_the_policies_that_it_tells_of(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(DOCS.read_text().partition("```yaml\n# values.yaml\n")[2].partition("```")[0])
    default = {"code": "", "images": "", "providers": "Ollama", "baseURLs": "", "registries": "registry.ollama.ai"}
    research = {
        "code": "Image",
        "images": "registry.example/prompts",
        "providers": "Ollama\nOpenAI",
        "baseURLs": "https://api.example/v1",
    }
    assert lists_of(rendered(f"--values={values}")) == {"default": default, "research": default | research}


# Wherever something can be named


def test_more_than_an_expression_holds_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    urls = [f"https://{number:02}.example/{'a' * 2000}" for number in range(64)]
    values = tmp_path / "values.json"
    values.write_text(json.dumps({"policies": {"profiles": {"large": {"baseURLs": urls}}}}))
    done = helm("template", "dspy-operator", str(CHART), "--kube-version=1.34.0", *VALUES, f"--values={values}")
    assert "policies.profiles: 129" in done.stderr
    assert "characters in all, and the API server takes 95000" in done.stderr


def lists_of(made: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Profile -> list -> its entries, one a line; alike in both policies."""
    first, second = (
        json.loads(policy["spec"]["variables"][0]["expression"])
        for policy in of_kind(made, "ValidatingAdmissionPolicy")
    )
    assert first == second
    return dict(first)


def named(part: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in part.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from named(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(part.get(keyword), dict):
            yield from named(part[keyword], f"{path}[]")


def test_these_are_all_the_places_that_a_policy_has_to_look_at() -> None:
    """A new one fails here: it needs its line in templates/policies.yaml."""
    code, images, sources = set(), set(), set()
    for definition in definitions():
        kind = definition["spec"]["names"]["kind"]
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for path, part in named(schema, "spec"):
            inside = part.get("properties", {}).keys()
            if "entrypoint" in inside:
                more = {"inputs", "outputs", "calls"} if path == "spec.program.code" else set()
                assert (kind, inside) == ("PromptProgram", {"configMap", "image", "entrypoint", *more}), path
                code.add(path)
            if "image" in path.rsplit(".", 1)[-1].lower() and "imagePullSecrets" not in path:
                images.add(path)
            if kind == "ModelEndpoint" and path.rsplit(".", 1)[-1] in ("baseURL", "registry", "url", "model"):
                sources.add(path)
    assert code == PLACES.keys()
    assert images == {f"{place}.image" for place in code}
    assert sources == {
        "spec.provider.openai.baseURL",
        "spec.provider.openai.model",
        "spec.provider.ollama.model",
        "spec.provider.ollama.pull.registry",
        "spec.provider.perplexity.model",
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("source", ["configMap", "image"])
def test_code_is_found_wherever_it_stands(guarded: ControlPlane, place: str, source: str) -> None:
    code = FROM_CONFIG_MAP if source == "configMap" else from_image("registry.example/prompts/code:1")
    document = a_program(PLACES[place](code))
    path = place.replace("[]", "[7]")
    want = f'{path}.{source}: custom code is not allowed; namespace "plain" (policy "default") allows none. {ASK}'
    assert refusal(guarded, "plain", document) == want
    assert refusal(guarded, "misspelt", document) == want.replace("plain", "misspelt"), "no profile has that name"
    assert refusal(guarded, "research", document) is None
    assert refusal(guarded, "open", document) is None


@pytest.mark.parametrize("namespace", FOR)
def test_a_program_without_code_is_nobodys_business(guarded: ControlPlane, namespace: str) -> None:
    composite = {"type": "Composite", "composite": {"parts": [A_SCORE, A_SCORE]}}
    module = {"type": "BestOfN", "bestOfN": {"attempts": 3, "threshold": "1", "reward": {"type": "Regex", "regex": {"field": "label", "pattern": "a"}}}}  # fmt: skip
    for changes in ({}, {"metric": composite}, {"program.single.module": module}):
        assert refusal(guarded, namespace, a_program(changes)) is None


def test_all_that_is_refused_is_told_at_once(guarded: ControlPlane) -> None:
    both = PLACES["spec.program.code"](from_image("a.example/x")) | PLACES["spec.metric.code"](FROM_CONFIG_MAP)
    assert refusal(guarded, "plain", a_program(both)) == (
        'spec.program.code.image, spec.metric.code.configMap: custom code is not allowed; namespace "plain" '
        f'(policy "default") allows none. {ASK}'
    )


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        pytest.param("registry.example/prompts/code:1", True, id="below what is allowed"),
        pytest.param("registry.example/prompts", True, id="what is allowed itself"),
        pytest.param("registry.example/prompts:1", True, id="with a tag"),
        pytest.param("registry.example/prompts@sha256:" + "0" * 64, True, id="with a digest"),
        pytest.param("python:3.12", True, id="a short name, as it is written"),
        pytest.param("registry.example/prompts-evil/code", False, id="a longer name"),
        pytest.param("registry.example:5000/prompts/code", False, id="the same host, another port"),
        pytest.param("python:5000/evil", False, id="a host with a port is no name with a tag"),
        pytest.param("docker.io/library/python:3.12", False, id="the long name of a short one"),
        pytest.param("evil.example/registry.example/prompts", False, id="what is allowed, elsewhere"),
    ],
)
def test_images_by_where_they_are(guarded: ControlPlane, image: str, taken: bool) -> None:
    document = a_program(PLACES["spec.metric.code"](from_image(image)))
    want = (
        f'spec.metric.code.image: "{image}" is not allowed; namespace "research" (policy "research") allows '
        f"registry.example/prompts, python. {ASK}"
    )
    assert refusal(guarded, "research", document) == (None if taken else want)
    assert refusal(guarded, "open", document) is None


OLLAMA = {"provider": {"type": "Ollama", "ollama": {"model": "qwen2.5:0.5b"}}}
PERPLEXITY = {
    "provider": {"type": "Perplexity", "perplexity": {"model": "sonar", "apiKeySecret": {"name": "s", "key": "k"}}}
}


@pytest.mark.parametrize(
    ("namespace", "changes", "allowed"),
    [
        pytest.param("plain", OLLAMA, None, id="Ollama is the default's"),
        pytest.param("plain", {}, "Ollama", id="OpenAI is not"),
        pytest.param("plain", PERPLEXITY, "Ollama", id="nor is Perplexity"),
        pytest.param("misspelt", {}, "Ollama", id="no profile of that name"),
        pytest.param("research", {"provider.openai.baseURL": "https://api.example/v1"}, None, id="OpenAI where it is allowed"),
        pytest.param("research", PERPLEXITY, "Ollama, OpenAI", id="Perplexity where it is not"),
        pytest.param("open", PERPLEXITY, None, id="Perplexity where it is allowed"),
        pytest.param("closed", OLLAMA, "none", id="an empty list allows nothing"),
    ],
)  # fmt: skip
def test_providers(guarded: ControlPlane, namespace: str, changes: dict[str, Any], allowed: str | None) -> None:
    document = an_endpoint(changes)
    profile = FOR[namespace] if FOR[namespace] in PROFILES else "default"
    want = (
        f'spec.provider.type: {document["spec"]["provider"]["type"]} is not allowed; namespace "{namespace}" '
        f'(policy "{profile}") allows {allowed}. {ASK}'
    )
    assert refusal(guarded, namespace, document) == (want if allowed else None)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        pytest.param("https://api.example/v1", True, id="what is allowed"),
        pytest.param("https://api.example/v1/", True, id="with a slash"),
        pytest.param("https://api.example/v1/deployments/a", True, id="below it"),
        pytest.param("http://vllm.models.svc:8000/v1", True, id="a host and port, any path"),
        pytest.param("https://api.example/v2", False, id="another path"),
        pytest.param("https://api.example/v11", False, id="a longer one"),
        pytest.param("https://api.example/v1/../v2", False, id="a way out of the path"),
        pytest.param("https://api.example/v1/%2e%2E/v2", False, id="a hidden one"),
        pytest.param("https://api.example.evil/v1", False, id="a longer host"),
        pytest.param("http://api.example/v1", False, id="without TLS"),
        pytest.param("http://vllm.models.svc/v1", False, id="another port"),
    ],
)
def test_urls_by_how_they_begin(guarded: ControlPlane, url: str, taken: bool) -> None:
    document = an_endpoint({"provider.openai.baseURL": url})
    want = (
        f'spec.provider.openai.baseURL: "{url}" is not allowed; namespace "research" (policy "research") allows '
        f"https://api.example/v1, http://vllm.models.svc:8000. {ASK}"
    )
    assert refusal(guarded, "research", document) == (None if taken else want)
    assert refusal(guarded, "open", document) is None


@pytest.mark.parametrize(
    ("model", "registry", "found"),
    [
        pytest.param("qwen2.5:0.5b", None, None, id="Ollama's own"),
        pytest.param("me/qwen2.5:0.5b", None, None, id="a user's there"),
        pytest.param("registry.models.svc:5000/library/qwen", None, None, id="an allowed one in the model's name"),
        pytest.param("qwen2.5:0.5b", "registry.models.svc:5000", None, id="an allowed one as pull.registry"),
        pytest.param("hf.co/me/model", None, 'model: "hf.co/me/model" of "hf.co"', id="another one in the name"),
        pytest.param("https://hf.co/me/model", None, 'model: "https://hf.co/me/model" of "hf.co"', id="with a scheme"),
        pytest.param(
            "x://hf.co/me/model", "registry.models.svc:5000", 'model: "x://hf.co/me/model" of "hf.co"',
            id="a scheme, which Ollama heeds, behind an allowed pull.registry",
        ),
        pytest.param("qwen2.5:0.5b", "hf.co", 'pull.registry: "hf.co"', id="another one as pull.registry"),
        pytest.param("qwen2.5:0.5b", "registry.models.svc", 'pull.registry: "registry.models.svc"', id="another port"),
        pytest.param("HF.co/me/model", None, 'model: "HF.co/me/model" of "HF.co"', id="capitals"),
    ],
)  # fmt: skip
def test_registries_of_models(guarded: ControlPlane, model: str, registry: str | None, found: str | None) -> None:
    ollama = {"model": model} | ({"pull": {"registry": registry}} if registry else {})
    document = an_endpoint({"provider": {"type": "Ollama", "ollama": ollama}})
    want = (
        f'spec.provider.ollama.{found} is not allowed; namespace "research" (policy "research") allows '
        f"registry.ollama.ai, registry.models.svc:5000. {ASK}"
    )
    assert refusal(guarded, "research", document) == (want if found else None)
    assert refusal(guarded, "open", document) is None


def test_the_largest_lists_and_the_largest_program_are_looked_at_in_full(guarded: ControlPlane) -> None:
    """Within what CEL may cost. A message that would be longer than 5 KiB is the short one."""
    code = {"metric": {"type": "Code", "code": from_image("registry.example/63/" + "a" * 480 + "b")}}
    parts = {"metric": {"type": "Composite", "composite": {"parts": [code] * 8}}}
    changes = parts | {"program.single.signature.instructions": "x" * 32768}
    assert refusal(guarded, "large", a_program(changes)) == "this image is not allowed in this namespace"
    code["metric"]["code"]["image"] = PROFILES["large"]["images"][63] + "/code:1"  # type: ignore[index]
    assert refusal(guarded, "large", a_program(changes)) is None
    url = PROFILES["large"]["baseURLs"][63]
    assert refusal(guarded, "large", an_endpoint({"provider.openai.baseURL": url + "/v1"})) is None
    assert refusal(guarded, "large", an_endpoint({"provider.openai.baseURL": url + "b"})) == "this URL is not allowed in this namespace"  # fmt: skip


def test_the_api_server_finds_nothing_odd_in_the_expressions(guarded: ControlPlane) -> None:
    """It checks validations against our schemas; a wrong path in a variable is nothing to it, and shows above."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def statuses() -> list[dict[str, Any]]:
        return [policy.get("status", {}) for policy in guarded.request("GET", path)[1]["items"]]

    wait_for("the type checker", lambda: all("typeChecking" in status for status in statuses()))
    assert [status["typeChecking"] for status in statuses()] == [{}, {}]


# What was there before


def may_be_told_of_and_deleted(plane: ControlPlane) -> None:
    status = {"conditions": [], "observedGeneration": 1}
    for document in before():
        path = f"{collection(document, 'plain')}/{document['metadata']['name']}"
        told = plane.kubectl(
            "patch", plural(document), document["metadata"]["name"], "-n=plain", f"--as={ACCOUNT}",
            "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}),
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        assert plane.request("GET", path)[1]["status"] == status
        assert plane.request("DELETE", f"{path}?dryRun=All")[0] == 200


def test_what_was_there_before_is_kept_labelled_scaled_told_of_and_deleted(guarded: ControlPlane) -> None:
    may_be_told_of_and_deleted(guarded)
    for document in before():
        path = f"{collection(document, 'plain')}/{document['metadata']['name']}"
        code, said = guarded.request("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, kind="merge-patch+json")
        assert code == 200, said
    assert guarded.kubectl("scale", "mep/before", "-n=plain", "--replicas=2").returncode == 0


def test_an_edit_of_something_else_is_taken_and_one_of_what_a_policy_is_about_is_not(guarded: ControlPlane) -> None:
    def edit(kind: str, name: str, spec: dict[str, Any]) -> tuple[int, str]:
        path = f"/apis/dspy-operator.io/v1alpha1/namespaces/plain/{kind}/{name}"
        code, said = guarded.request("PATCH", f"{path}?dryRun=All", {"spec": spec}, kind="merge-patch+json")
        return code, said.get("message", "")

    assert edit("promptprograms", "before", {"revision": {"name": "triage-1f2e3d4c"}})[0] == 200
    assert edit("modelendpoints", "before", {"limits": {"concurrency": 3}})[0] == 200
    code, said = edit("promptprograms", "before", {"program": {"code": {"entrypoint": "other:build"}}})
    assert (code, "spec.program.code.image: custom code is not allowed" in said) == (403, True)
    code, said = edit("promptprograms", "before", {"metric": {"accept": "0.5"}})
    assert (code, "spec.program.code.image: custom code is not allowed" in said) == (403, True)
    code, said = edit("modelendpoints", "before", {"provider": {"openai": {"model": "another"}}})
    assert (code, "spec.provider.type: OpenAI is not allowed" in said) == (403, True)


def test_a_run_names_nothing_that_a_policy_is_about(guarded: ControlPlane) -> None:
    assert refusal(guarded, "closed", a_run()) is None


# What a platform team does


def test_a_label_of_the_namespace_gives_another_profile(guarded: ControlPlane) -> None:
    applied(guarded, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "moved"}})

    def url_refused() -> bool:
        return guarded.request("POST", f"{collection(an_endpoint(), 'moved')}?dryRun=All", an_endpoint())[0] == 403

    wait_for("the default", url_refused)
    assert guarded.kubectl("label", "namespace", "moved", "dspy-operator.io/policy=open").returncode == 0
    wait_for("the profile", lambda: not url_refused())
    assert guarded.kubectl("label", "namespace", "moved", "dspy-operator.io/policy-").returncode == 0
    wait_for("the default again", url_refused)


def test_who_may_write_in_a_namespace_cannot_give_himself_more(guarded: ControlPlane) -> None:
    assert (
        guarded.kubectl("create", "rolebinding", "ann", "-n=plain", "--clusterrole=admin", "--user=ann").returncode == 0
    )
    for words in (
        ["label", "namespace", "plain", "dspy-operator.io/policy=open"],
        ["delete", "validatingadmissionpolicybinding", "dspy-operator-programs"],
    ):  # fmt: skip
        done = guarded.kubectl(*words, "--as=ann")
        assert (done.returncode, "is forbidden" in done.stderr.lower()) == (1, True), done.stderr


def answer(plane: ControlPlane, document: dict[str, Any], namespace: str = "misspelt") -> tuple[int, str]:
    code, said = plane.request("POST", f"{collection(document, namespace)}?dryRun=All", document)
    return code, said.get("message", "")


def test_a_first_look_warns_and_refuses_nothing(guarded: ControlPlane) -> None:
    with_profiles(guarded, "upgrade", PROFILES, '--set-json=policies.validationActions=["Warn", "Audit"]')
    written = json.dumps(an_endpoint())
    words = ["apply", "-n=closed", "--dry-run=server", "-f", "-"]
    wait_for("the action", lambda: guarded.kubectl(*words, stdin=written).returncode == 0)
    said = guarded.kubectl(*words, stdin=written).stderr
    assert said.startswith("Warning: ")
    assert "spec.provider.type: OpenAI is not allowed" in said
    installed(guarded, "upgrade")


def test_a_profile_that_goes_leaves_its_namespaces_the_default(guarded: ControlPlane) -> None:
    kept = {name: lists for name, lists in PROFILES.items() if name != "open"}
    with_profiles(guarded, "upgrade", kept)
    where = f"{collection(an_endpoint(), 'open')}?dryRun=All"
    wait_for("the default", lambda: guarded.request("POST", where, an_endpoint())[0] == 403)
    assert '(policy "default")' in guarded.request("POST", where, an_endpoint())[1]["message"]
    installed(guarded, "upgrade")
    wait_for("the profile", lambda: guarded.request("POST", where, an_endpoint())[0] == 201)


def test_the_policies_come_and_go_with_the_release() -> None:
    """The definitions as they are, from the chart."""
    with running() as plane:
        done = on(plane, "install", "--create-namespace", *VALUES)
        assert done.returncode == 0, done.stderr
        applied(plane, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain"}})
        wait_for("the policy", lambda: "OpenAI is not allowed" in answer(plane, an_endpoint(), "plain")[1])
        code, said = answer(plane, a_program(PLACES["spec.program.code"](FROM_CONFIG_MAP)), "plain")
        assert (code, "spec.program.code.configMap: custom code is not allowed" in said) == (403, True)
        assert on(plane, "upgrade", "--set=policies.enabled=false").returncode == 0
        wait_for("the policies to be switched off", lambda: answer(plane, an_endpoint(), "plain")[0] == 201)
        assert on(plane, "upgrade", *VALUES).returncode == 0
        wait_for("the policy", lambda: "OpenAI is not allowed" in answer(plane, an_endpoint(), "plain")[1])
        assert on(plane, "uninstall").returncode == 0
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
            assert plane.request("GET", f"/apis/admissionregistration.k8s.io/v1/{kind}")[1]["items"] == []
        wait_for("the policies to be forgotten", lambda: answer(plane, an_endpoint(), "plain")[0] == 201)
