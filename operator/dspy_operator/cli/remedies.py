"""What to do about a reason. One without an entry asks for nothing: it tells where things are, or is what was wanted."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_operator.api.reasons import EndpointReason, ProgramReason, RunReason
from dspy_operator.contract.exits import Reason

_FIELD = "Mend the field whose path the message names."
_NAME = "Remove or rename the object that the message names, or give ours another name."
_PIN = "Look at the candidate; to serve it, set `spec.revision.name` to it."
_ROWS = "Add fresh labelled rows: another test set starts the count anew."
_VALIDATED = "Mend the program; when it is validated again, the run begins anew by itself."
_ANEW = (
    "What was paid cannot be trusted or reached any more. Another `seed` begins a journal of its own; or delete the run and apply it "
    "again: its spend stays counted."
)
_POD = "Nothing, while tries are left. When it Failed: mend what the message names, then another value of `rerun`."

PROGRAM: Mapping[ProgramReason, str] = {
    ProgramReason.INVALID_SPEC: _FIELD,
    ProgramReason.VALIDATION_FAILED: "`kubectl describe` the Job that `status.validation.jobName` names; an edit of the program or its rows tries again.",
    ProgramReason.RUNNER_IMAGE_UNAVAILABLE: "Push the runner's image where nodes can pull it, or correct the chart's `runnerImage` and `imagePullSecrets`.",
    ProgramReason.DATASET_NOT_FOUND: "Create the ConfigMap, key or PersistentVolumeClaim that the message names: that is enough.",
    ProgramReason.CODE_NOT_FOUND: "Create the ConfigMap or key that the message names: that is enough. A module is the image's business.",
    ProgramReason.INVALID_DATASET: "Correct `spec.dataset.fields`, or the rows: the message has columns and line. An edited ConfigMap is validated again.",
    ProgramReason.ROWS_DROPPED: "Nothing has to be done. The message has the first lines that are left out.",
    ProgramReason.SPLIT_EMPTY: "Add rows, or correct the values of the split's column.",
    ProgramReason.INVALID_PROGRAM: _FIELD,
    ProgramReason.INVALID_METRIC: "Mend the field whose path the message names, or the row whose line it names.",
    ProgramReason.REVISION_NOT_FOUND: "Correct `spec.revision.name`: `kubectl get cm -l dspy-operator.io/component=revision` lists what there is.",
    ProgramReason.REVISION_TOO_LARGE: "Cut what the message names: fewer demonstrations, or `dataset.exportRows: false`.",
    ProgramReason.NAME_CONFLICT: _NAME,
    ProgramReason.MANUAL_PROMOTION: _PIN,
    ProgramReason.INCUMBENT_CHANGED: f"{_PIN} Or `rerun`, to measure it against what is served now.",
    ProgramReason.DIFFERENT_MODEL: f"{_PIN} Or make a program whose target is that model.",
    ProgramReason.TEST_UNDERPOWERED: f"{_PIN} Or add test rows: 60 show 10 points at the first look.",
    ProgramReason.TEST_WORN: f"{_PIN} Or: {_ROWS[0].lower()}{_ROWS[1:]}",
    ProgramReason.NOT_JUDGED: "Raise the budget of the run, so that it is judged; where a kept result was used, another value of `rerun`.",
    ProgramReason.PROGRAM_CHANGED: f"{_PIN} Or `rerun`, with the program as it is now.",
    ProgramReason.REVISION_DAMAGED: "Run it again with another value of `rerun`: the journal has the answers.",
}

RUN: Mapping[RunReason, str] = {
    RunReason.INVALID_SPEC: _FIELD,
    RunReason.PROGRAM_NOT_FOUND: "Apply the program, or make a run that names one that exists.",
    RunReason.ENDPOINT_NOT_FOUND: "Apply the endpoint, or correct the name in the field that the message names.",
    RunReason.ENDPOINT_NOT_ALLOWED: "`access: {namespaces: {from: All}}` on the endpoint; for one with a key, an endpoint and a Secret in the run's namespace.",
    RunReason.REVISION_NOT_FOUND: "Correct `spec.startFrom.revision.name`: `kubectl get cm -l dspy-operator.io/component=revision` lists what there is.",
    RunReason.BUDGET_TOO_SMALL: "Raise the budget to what the message says is needed, or hold out fewer test rows.",
    RunReason.PRICING_MISSING: "Write `pricing` on every endpoint of the run, in one currency; or budget calls and tokens instead.",
    RunReason.ANSWERS_NOT_FOUND: "Take the name out of `answersFrom.runs`; next time, a longer `cleanup` keeps a journal longer.",
    RunReason.PROGRAM_NOT_READY: "Nothing, while it is validated; else mend the program, whose reason the message repeats.",
    RunReason.ENDPOINT_NOT_READY: "Nothing, while it starts; else mend the endpoint, whose reason the message repeats.",
    RunReason.ENDPOINT_BUSY: "Wait, lower `concurrency`, or raise the endpoint's `parallel`, `limits.concurrency` or `scaling.maxReplicas`.",
    RunReason.QUEUED: "Wait, or set the program's `concurrencyPolicy: Allow`.",
    RunReason.SECRET_MISSING: "Create the Secret and key that the message names: the run is tried again within 5 minutes.",
    RunReason.ENDPOINT_UNAVAILABLE: "See that the endpoint answers: the run goes on by itself, until `deadlines.pending` (24h) is over.",
    RunReason.NODE_LOST: "Bring the node back, or delete it (`kubectl delete node`): a pod there could still write the journal.",
    RunReason.NAME_CONFLICT: _NAME,
    RunReason.BUDGET_EXHAUSTED: "Look at the verdict. Raise the limit, and the run goes on where it stopped.",
    RunReason.CANCELLED: "To go on: remove `stop`, then another value of `rerun`.",
    RunReason.INVALID_PROGRAM: _VALIDATED,
    RunReason.INVALID_DATASET: _VALIDATED,
    RunReason.CODE_NOT_FOUND: "Bring the code back; when the program is validated again, the run begins anew by itself.",
    RunReason.DATASET_NOT_FOUND: "Bring the rows back; when the program is validated again, the run begins anew by itself.",
    RunReason.SPLIT_EMPTY: "Add rows to the program, or choose smaller counts for the optimizer.",
    RunReason.INVALID_METRIC: _VALIDATED,
    RunReason.AUTHENTICATION_FAILED: "Put the right key into the Secret, or pay the bill; then another value of `rerun`.",
    RunReason.MODEL_ANSWERS_UNUSABLE: "Another adapter, a larger `maxTokens`, or a larger model; then another value of `rerun`.",
    RunReason.REPLAY_DIVERGED: _ANEW,
    RunReason.JOURNAL_CORRUPT: _ANEW,
    RunReason.JOURNAL_FULL: "Expand PersistentVolumeClaim `orun-<run>-journal`, where its StorageClass can; then another value of `rerun`.",
    RunReason.REVISION_TOO_LARGE: "Cut what the message names: fewer demonstrations, or `dataset.exportRows: false`; then another value of `rerun`.",
    RunReason.NO_PROGRESS: "Nothing, while tries are left. For slow models a longer `deadlines.progress`.",
    RunReason.DEADLINE_EXCEEDED: "See to what the message says it waited for; then another value of `rerun`, or a longer `deadlines.pending` with it.",
    RunReason.RUNNER_IMAGE_UNAVAILABLE: "Push the runner's image where nodes can pull it, or correct `runnerImage` and pull secrets.",
    RunReason.OOM_KILLED: "Raise `podTemplate.resources.limits.memory`; when it Failed, another value of `rerun` with it.",
    RunReason.PREEMPTED: _POD,
    RunReason.POD_LOST: _POD,
    RunReason.INTERNAL_ERROR: "Report it with the traceback: `kubectl logs job/orun-<run>-<try>`.",
    RunReason.PROGRAM_CHANGED: "Nothing has to be done. Another value of `rerun` takes the new program.",
    RunReason.DATASET_CHANGED: "Nothing has to be done. Another value of `rerun` takes the new rows.",
    RunReason.MODEL_CHANGED: "Nothing has to be done. Another value of `rerun` takes the new model.",
    RunReason.CODE_ASKS_BY_ITSELF: "Nothing, where the code asks through DSPy alone (`dspy.Predict` and the like); what it asks otherwise, budget for elsewhere.",
    RunReason.ACCOUNT_DAMAGED: "Repair the key that the message names in ConfigMap `<program>-account`, or remove it: then what it told is forgotten.",
}

ENDPOINT: Mapping[EndpointReason, str] = {
    EndpointReason.INVALID_SPEC: _FIELD,
    EndpointReason.NAME_CONFLICT: _NAME,
    EndpointReason.PULL_FAILED: "See that pods reach the registry (`pull.registry`, `pull.insecure`, a NetworkPolicy): it is tried again.",
    EndpointReason.MODEL_NOT_FOUND: "Correct `ollama.model`, tag included, or push the model to the registry.",
    EndpointReason.STORAGE_FULL: "A larger `cache.persistentVolumeClaim.size` on a claim that is made anew, or more ephemeral storage on the nodes.",
    EndpointReason.IMAGE_PULL_FAILED: "Push the image where nodes can pull it, or correct the chart's images and pull secrets.",
    EndpointReason.UNSCHEDULABLE: "Make room on the nodes, or ask for less in `podTemplate`; a node that is on its way is enough.",
    EndpointReason.OOM_KILLED: "Raise `podTemplate.resources.limits.memory`, or lower `contextLength` or `parallel`.",
    EndpointReason.CRASH_LOOP: "`kubectl logs` the pod: the message names its container.",
    EndpointReason.SCALING_RULES: "Remove `replicas` or `scaling`.",
    EndpointReason.LOAD_FAILED: "Read Ollama's words in the message: mostly memory, or a model that this Ollama cannot run.",
    EndpointReason.START_FAILED: "Read the message: a ResourceQuota or a policy refuses the pods.",
}

LOCAL: Mapping[Reason, str] = {
    Reason.INVALID_PROGRAM: "Mend the manifest: the message has file, line and path.",
    Reason.INVALID_DATASET: "Mend the manifest or the rows: the message has file, line and columns.",
    Reason.DATASET_NOT_FOUND: "Add the ConfigMap to the manifests, give the volume's files with `--volume`, or look at the URL: the message names which.",
    Reason.CODE_NOT_FOUND: "Add the ConfigMap to the manifests; the module of an image has to be installed here.",
    Reason.SPLIT_EMPTY: "Add rows, or correct the split.",
    Reason.REVISION_TOO_LARGE: "Fewer demonstrations, or `dataset.exportRows: false`.",
    Reason.INVALID_METRIC: "Mend the field or the row that the message names.",
    Reason.BUDGET_TOO_SMALL: "Raise the budget to what the message says.",
    Reason.PRICING_MISSING: "Add `pricing` to the endpoint.",
    Reason.BUDGET_EXHAUSTED: "Look at the verdict; raise the budget and `--resume` to go on.",
    Reason.ENDPOINT_UNAVAILABLE: "When the endpoint is back: `--resume`.",
    Reason.AUTHENTICATION_FAILED: "Mend the key, then `--resume`.",
    Reason.SECRET_MISSING: "Write the key into the file of `--api-key-file`, or into the folder of `--secret`, then `--resume`.",
    Reason.REPLAY_DIVERGED: "The message names the mark. Another `--output` begins anew.",
    Reason.JOURNAL_CORRUPT: "The message names the line. Another `--output` begins anew.",
    Reason.JOURNAL_FULL: "Make room, then `--resume`.",
    Reason.STOPPED: "`--resume`.",
    Reason.VERIFY_FAILED: "Do not trust the result: the journal does not hold what it claims.",
    Reason.MODEL_ANSWERS_UNUSABLE: "Another adapter, a larger `maxTokens`, or a larger model.",
    Reason.ENDPOINT_NOT_FOUND: "Add the ModelEndpoint, or correct its name, its model or `--endpoint`.",
    Reason.ENDPOINT_NOT_ALLOWED: "`access: {namespaces: {from: All}}` on the endpoint; for one with a key, an endpoint of the same URL in the run's namespace.",
    Reason.PROGRAM_NOT_FOUND: "Add the PromptProgram to the manifests.",
    Reason.INVALID_MANIFEST: "The message has file and line.",
    Reason.INTERNAL_ERROR: "Report it with the traceback in the log.",
}
