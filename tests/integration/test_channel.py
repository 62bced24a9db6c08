"""A runner in its pod: progress, control and result go through one ConfigMap of a real API server, and nothing else does."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dspy_operator.contract import names
from dspy_operator.contract.documents import Progress, Result
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.channel import ConfigMapChannel
from dspy_operator.runner.hurry import Hurry
from dspy_operator.runner.pod import Pod
from tests.controlplane.fixture import control_plane_of_a_module
from tests.controlplane.processes import ControlPlane
from tests.integration.acceptance import REVISION, ROOT, reference
from tests.integration.api_proxy import ApiProxy, Relay
from tests.integration.harness import OPTIMIZERS, Case
from tests.integration.pod import IMAGE, PodPlace, mounted, pod_place

pytestmark = pytest.mark.measured

__all__ = ["control_plane_of_a_module"]

THREADS = 8
EXIT_SECONDS = 2.0
"""From SIGTERM to the end of the process."""
GONE_SECONDS = 30.0
"""From the deletion of the ConfigMap to the end of the process."""
SHORT = Case(OPTIMIZERS["BootstrapFewShot"], concurrency=THREADS, timeout="120s")
LONG = Case(OPTIMIZERS["GEPA"], concurrency=THREADS, timeout="120s")
HELD_FROM = 20


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[ApiProxy]:
    with ApiProxy("127.0.0.1", urlsplit(control_plane.server).port or 0) as made:
        yield made


def test_a_run_in_a_pod_reports_its_try_and_publishes_what_local_mode_publishes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane
) -> None:
    local = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with pod_place(tmp_path, SHORT, control_plane) as place:
        process = place.start()
        place.until(process, lambda: bool(place.progress))
        first = place.progress
        ended = place.end(process)
        assert ended.code == 0, ended.stdout
        assert (first["attempt"], first["try"]) == (place.attempt, place.try_)
        result, progress = place.result, place.progress
        assert (result["attempt"], result["try"], result["runnerImage"]) == (place.attempt, place.try_, IMAGE)
        assert result["candidate"] == local.result["candidate"]
        assert result["usage"]["calls"] == place.server.counts()["requests"] == local.requests
        assert (progress["try"], progress["effective"], progress["step"]) == (place.try_, 1, "publish")
        assert sum(role["calls"] for role in progress["usage"].values()) == result["usage"]["calls"]
        revision = place.revision()
        assert sorted(revision) == sorted(names.REVISION_FILES)
        assert {name: revision[name].encode() for name in REVISION} == local.files()
        assert json.loads(revision["provenance.json"])["runnerImage"] == IMAGE
        assert result == ended.result
        assert [line["message"] for line in ended.logs if line["level"] != "info"] == []


def test_an_incumbent_is_read_through_the_links_of_a_mounted_configmap(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane
) -> None:
    local = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    files = {name: content.decode() for name, content in local.files().items()}
    with pod_place(tmp_path, SHORT, control_plane) as place:
        ended = place.end(place.start(place.spec(incumbent=mounted(tmp_path / "incumbent", files))))
        assert ended.code == 0, ended.stdout
        assert place.result["scores"]["incumbent"] == local.result["scores"]["candidate"]
        assert place.result["gate"]["why"] == "the candidate is the incumbent itself"


def test_a_validation_in_a_pod_publishes_the_baseline(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        ended = place.end(place.start(place.validation()))
        assert ended.code == 0, ended.stdout
        assert (place.result["message"], place.result["try"], place.result["attempt"]) == ("valid", 3, 2)
        assert place.result["dataset"]["rows"] == len(SHORT.rows())
        assert json.loads(place.revision()["provenance.json"])["revision"] == place.result["candidate"]
        assert place.server.counts()["requests"] == 0
        assert [each.verb for each in place.asked()] == ["patch"]


def test_a_run_that_fails_before_its_first_call_keeps_what_was_spent_before(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    case = Case(SHORT.optimizer, program={"dataset": {"fields": {"label": "category"}}})
    with pod_place(tmp_path, case, control_plane) as place:
        place.steer(4, floor={"calls": 17, "cost": "0.25"})
        ended = place.end(place.start())
        assert (ended.code, place.result["reason"], place.result["usage"]["calls"]) == (41, "InvalidDataset", 17)
        assert place.progress["usage"]["earlier"]["cost"] == "0.25"


def test_a_mistake_that_a_validation_finds_arrives_with_its_path(tmp_path: Path, control_plane: ControlPlane) -> None:
    case = Case(SHORT.optimizer, program={"dataset": {"fields": {"label": "category"}}})
    with pod_place(tmp_path, case, control_plane) as place:
        ended = place.end(place.start(place.validation()))
        assert (ended.code, place.result["reason"]) == (41, "InvalidDataset")
        assert place.result["path"] == "spec.dataset.fields.label"
        assert (place.result["attempt"], place.result["try"]) == (place.attempt, place.try_)
        assert place.revision() == {}


def test_a_raised_budget_and_then_stop_finish_reach_the_running_pod(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    case = Case(LONG.optimizer, concurrency=THREADS, timeout="120s", budget={"calls": 60})
    with pod_place(tmp_path, case, control_plane, hold_at=[HELD_FROM]) as place:
        process = place.start()
        place.until(process, lambda: place.server.counts()["held"] == 1)
        place.steer(2, budget={"calls": 1000})
        place.until(process, lambda: place.progress.get("effective") == 2)
        place.server.set_script(case.script(hold_at=[100]))
        place.server.release()
        place.until(process, lambda: place.server.counts()["held"] == 1)
        place.steer(3, budget={"calls": 1000}, stop="Finish")
        place.until(process, lambda: place.control_in_force() == 3)
        place.server.release()
        ended = place.end(process)
        assert (ended.code, place.result["reason"], place.progress["effective"]) == (0, "StoppedEarly", 3)
        assert place.result["usage"]["calls"] == place.server.counts()["requests"] >= 100
        assert place.result["outcome"] in ("Improved", "NoImprovement")


def test_stop_cancel_ends_the_run_with_51(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, LONG, control_plane, hold_at=[HELD_FROM]) as place:
        process = place.start()
        place.until(process, lambda: place.server.counts()["held"] == 1)
        place.steer(2, stop="Cancel")
        place.until(process, lambda: place.control_in_force() == 2)
        place.server.release()
        ended = place.end(process)
        assert (ended.code, place.result["reason"], place.result["message"]) == (
            51,
            "Stopped",
            "stop: Cancel was asked for",
        )
        assert place.progress["effective"] == 2
        assert place.result["usage"]["calls"] == place.server.counts()["requests"]


def test_a_run_whose_configmap_is_deleted_stops_though_its_calls_hang(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    with pod_place(tmp_path, SHORT, control_plane, hold_at=list(range(10, 1000))) as place:
        process = place.start()
        place.until(process, lambda: place.server.counts()["held"] == THREADS)
        place.delete()
        at = time.monotonic()
        ended = place.end(process)
        assert time.monotonic() - at < GONE_SECONDS
        assert (ended.code, ended.result["reason"]) == (51, "Stopped")
        assert "the run's object is gone" in ended.result["message"]
        assert place.plane.request("GET", place.path)[0] == 404  # and it was not made again


def test_a_run_goes_on_while_the_api_server_is_away_and_its_result_arrives_when_it_is_back(
    tmp_path: Path, control_plane: ControlPlane, proxy: ApiProxy
) -> None:
    with pod_place(tmp_path, LONG, control_plane, port=proxy.port, hold_at=[HELD_FROM]) as place:
        process = place.start()
        place.until(process, lambda: place.server.counts()["held"] == 1)
        proxy.set(Relay.CUT)
        place.server.release()
        result = place.work / "out" / "result.json"
        place.until(process, result.is_file)
        assert place.result == {}
        time.sleep(1)  # some attempts at it
        assert process.poll() is None
        proxy.set(Relay.OPEN)
        ended = place.end(process)
        assert ended.code == 0
        assert place.result == ended.result
        assert sorted(place.revision()) == sorted(names.REVISION_FILES)
        warnings = [line["message"] for line in ended.logs if line["level"] == "warning"]
        assert warnings and len(warnings) == len(set(warnings)) and all("told once" in words for words in warnings)


@pytest.mark.parametrize(
    "relay",
    [
        pytest.param(Relay.OPEN, id="the result arrives"),
        pytest.param(Relay.SILENT, id="an API server that does not answer holds nothing up"),
    ],
)
def test_sigterm_with_8_calls_in_flight_ends_the_pod_within_2_s(
    tmp_path: Path, control_plane: ControlPlane, proxy: ApiProxy, relay: Relay
) -> None:
    held = list(range(10, 1000))
    with pod_place(tmp_path, SHORT, control_plane, port=proxy.port, hold_at=held) as place:
        process = place.start()
        place.until(process, lambda: place.server.counts()["held"] == THREADS)
        proxy.set(relay)
        ended, seconds = place.signalled(process)
        assert seconds <= EXIT_SECONDS
        assert (ended.code, ended.result["reason"]) == (51, "Stopped")
        assert ended.result["usage"]["calls"] == place.server.counts()["requests"] == 9 + THREADS
        if relay is Relay.OPEN:
            assert place.result == ended.result
            assert sum(role["calls"] for role in place.progress["usage"].values()) == place.result["usage"]["calls"]
        else:
            assert place.result == {}


def test_sigterm_before_the_first_call_leaves_what_was_spent_before(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    with pod_place(tmp_path, SHORT, control_plane, granted=False) as place:
        control = place.control(floor={"calls": 17, "inputTokens": 1000, "outputTokens": 100, "cost": "0.25"})
        place.put({names.KEY_CONTROL: json.dumps(control.document())})
        process = place.start()
        place.until(process, (place.work / "control.json").is_file)
        ended, seconds = place.signalled(process)
        assert (ended.code, seconds <= EXIT_SECONDS) == (51, True)
        result = place.result
        assert (result["reason"], result["try"], result["usage"]["calls"], result["usage"]["cost"]) == (
            "Stopped",
            place.try_,
            17,
            "0.25",
        )
        assert place.server.counts()["requests"] == 0


READ_ONLY_ROOT = """
mount --bind "$1" /mnt && mount --bind "$2" /srv && mount -t tmpfs tmpfs /tmp || exit 99
case "$2" in /tmp/*) mkdir -p "$2" && mount --rbind /srv "$2" || exit 99 ;; esac
umount /srv && mount -o remount,bind,ro / || exit 99
shift 2
read=-all,+dac_read_search
exec setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps $read --ambient-caps $read "$@"
"""
"""$1 becomes /mnt, /tmp is empty (but for the project $2, where it lies there), nothing else can be written; the rest is run
as the image's user, who has no home.

That user may read everything: the interpreter of a developer's machine lies in a home of its own.
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount namespace")
def test_a_pod_writes_to_its_work_volume_and_tmp_alone(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path / "pod", SHORT, control_plane) as place:
        place.inside = Path("/mnt")
        place.work.mkdir()
        os.chown(place.work, 0, 65532)
        place.work.chmod(0o2775)  # as fsGroup makes it
        before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY_ROOT]
        before += ["sh", str(place.folder), str(ROOT)]
        ended = place.end(place.start(before=before, environment={"HOME": "/nonexistent"}))
        assert ended.code == 0, (ended.stdout, ended.stderr)
        assert place.result == ended.result
        assert (place.work / "journal.jsonl").stat().st_uid == 65532
        assert [line["message"] for line in ended.logs if line["level"] != "info"] == []


def test_an_absent_secret_is_a_typed_exit_with_its_name(tmp_path: Path, control_plane: ControlPlane) -> None:
    secret = {"provider": {"openai": {"apiKeySecret": {"name": "vendor", "key": "token"}}}}
    openai = {"baseURL": "http://127.0.0.1:9/v1", "model": "fake", **secret["provider"]["openai"]}
    case = Case(SHORT.optimizer, endpoint={"provider": {"type": "OpenAI", "openai": openai}})
    with pod_place(tmp_path, case, control_plane) as place:
        ended = place.end(place.start())
        assert (ended.code, place.result["reason"]) == (47, "SecretMissing")
        assert "key token of Secret default/vendor" in place.result["message"]
        assert place.server.counts()["requests"] == 0


def test_a_pod_without_the_number_of_its_try_is_refused_in_words(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        ended = place.end(place.start(environment={names.ENV_TRY: "first"}))
        assert ended.code == 64
        assert 'DSPY_OPERATOR_TRY is "first"' in ended.logs[-1]["message"]
        assert place.asked() == []


# --- the channel itself, without a run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(None, Reason.STOPPED, "not found", id="without the ConfigMap there is no run"),
        pytest.param({}, Reason.INTERNAL_ERROR, "has no control.json", id="a ConfigMap without control"),
        pytest.param({"control.json": "{"}, Reason.INTERNAL_ERROR, "cannot be read", id="a control that is no JSON"),
    ],
)
def test_without_a_control_document_nothing_starts(
    tmp_path: Path, control_plane: ControlPlane, data: dict[str, str] | None, reason: Reason, words: str
) -> None:
    with pod_place(tmp_path, SHORT, control_plane, granted=False) as place:
        if data is not None:
            place.put(data)
        with pytest.raises(RunFailed, match=words) as failed:
            channel_of(place).first_control(within_seconds=0)
        assert failed.value.reason is reason


def test_a_control_document_that_comes_late_is_waited_for(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, SHORT, control_plane, granted=False) as place:

        def put_once_it_was_missed() -> None:
            while not place.asked():
                time.sleep(0.02)
            place.put({names.KEY_CONTROL: json.dumps(place.control(7).document())})

        operator = threading.Thread(target=put_once_it_was_missed)
        operator.start()
        assert channel_of(place).first_control(within_seconds=20).generation == 7
        operator.join()
        assert place.asked()[0].code == 404


def test_progress_goes_out_at_most_once_in_5_s_and_brings_the_control_document(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        channel = channel_of(place)
        first = channel.send(Progress(step="optimize"))
        assert first is not None and first.generation == 1
        assert channel.send(Progress(step="judge")) is None
        assert place.progress["step"] == "optimize"
        assert [each.verb for each in place.asked()] == ["patch"]


def test_a_result_takes_the_revision_of_an_earlier_try_away(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        files = dict.fromkeys(names.REVISION_FILES, "earlier")
        assert channel_of(place).deliver(Result(candidate="v1:0"), None, files, Hurry())
        assert place.revision() == files
        assert channel_of(place).deliver(Result(), Progress(step="publish"), {}, Hurry())
        assert (place.revision(), place.progress["step"]) == ({}, "publish")
        assert names.KEY_CONTROL in place.data


def test_a_result_that_the_api_server_will_never_take_is_not_tried_again(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        assert not channel_of(place).deliver(Result(message="x" * 1_100_000), None, {}, Hurry())
        assert [(each.verb, each.code) for each in place.asked()] == [("patch", 422)]


def test_the_token_is_read_again_for_each_request(tmp_path: Path, control_plane: ControlPlane) -> None:
    with pod_place(tmp_path, SHORT, control_plane) as place:
        token = place.account / "token"
        valid = token.read_text()
        token.write_text("of yesterday")
        channel = channel_of(place)
        with pytest.raises(RunFailed, match="HTTP 401"):
            channel.first_control(within_seconds=0)
        token.write_text(valid)
        assert channel.first_control(within_seconds=0).generation == 1


def channel_of(place: PodPlace) -> ConfigMapChannel:
    pod = Pod(place.name, place.try_, IMAGE, f"https://127.0.0.1:{place.port}", place.account)
    return ConfigMapChannel(pod, place.namespace, place.work / "control.json")
