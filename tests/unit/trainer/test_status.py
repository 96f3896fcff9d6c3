"""Reports to Kubernetes: what is sent, how often, and what happens when the API server is slow or away."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from rltrainer.api.status import Problem, TrainingStatus
from rltrainer.errors import RunError
from rltrainer.reporting import status
from rltrainer.reporting.status import EXPERIMENT, KubernetesClient, Reporter, Target
from rltrainer.runs import train
from tests.unit.trainer.helpers import experiment
from tests.unit.trainer.helpers import quick as quick_config

TARGET = Target(*EXPERIMENT, "team", "cartpole", "uid-1")
WHERE = "/apis/rltrainer.io/v1alpha1/namespaces/team/rlexperiments/cartpole/status"


class Recorded:
    """Stands in for the API server: keeps what is applied, and fails for as long as it is told to."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.failing = False
        self.calls = 0
        self.found: dict[str, Any] = {}

    def read(self, target: Target) -> dict[str, Any]:
        if self.failing:
            raise ConnectionError("the API server is away")
        return self.found

    def apply(self, target: Target, body: dict[str, Any]) -> None:
        self.calls += 1
        if self.failing:
            raise ConnectionError("the API server is away")
        self.bodies.append(body)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "REPORT_INTERVAL_S", 0.05)


def wait_for(condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to this")


def test_the_report_is_this_and_nothing_else() -> None:
    report = TrainingStatus(attempt=2, iteration=3, error=Problem(reason="EnvironmentNotFound", message="no"))
    api = Recorded()
    assert Reporter(TARGET, lambda: report, api).close()
    body = api.bodies[-1]
    training = body["status"].pop("training")
    assert body == {
        "apiVersion": "rltrainer.io/v1alpha1",
        "kind": "RLExperiment",
        "metadata": {"name": "cartpole", "namespace": "team", "uid": "uid-1"},
        "status": {},
    }
    assert training.pop("updatedAt").endswith("Z")
    assert training["error"] == {"reason": "EnvironmentNotFound", "message": "no"}
    assert (training["attempt"], training["iteration"], training["timestepsTotal"]) == (2, 3, 0)
    assert "episodeRewardMean" not in training, "what is not known is not said"


def test_it_is_sent_on_change_alone() -> None:
    now = [TrainingStatus(iteration=1)]
    api = Recorded()
    reporter = Reporter(TARGET, lambda: now[0], api)
    wait_for(lambda: api.bodies)
    time.sleep(0.3)
    assert api.calls == 1
    now[0] = TrainingStatus(iteration=2)
    wait_for(lambda: len(api.bodies) == 2)
    assert reporter.close()
    assert api.calls == 2


def test_an_api_server_that_is_away_is_tried_again_and_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    api = Recorded()
    api.failing = True
    reporter = Reporter(TARGET, lambda: TrainingStatus(iteration=1), api)
    wait_for(lambda: api.calls > 3)
    api.failing = False
    wait_for(lambda: api.bodies)
    assert reporter.close()
    assert len([r for r in caplog.records if "not reported" in r.message]) == 1
    assert "the API server is away" in caplog.text


def test_the_last_report_has_an_end_to_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FINAL_PATIENCE", 0.1)
    api = Recorded()
    api.failing = True
    assert not Reporter(TARGET, TrainingStatus, api).close()


class Answered(Exception):
    """What the API server answered, as Kubernetes' client raises it."""

    def __init__(self, code: int, message: str = "no") -> None:
        super().__init__(message)
        self.status, self.body = code, json.dumps({"message": message})


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        *((Answered(code), 1) for code in (401, 403, 404, 410, 422)),
        (Answered(409, "Precondition failed: UID in precondition: uid-1, UID in object meta: uid-2"), 1),
        *((Answered(code), 3) for code in (409, 429, 500, 503)),
        (ConnectionError("refused"), 3),
    ],
    ids=repr,
)
def test_the_last_report_that_is_refused_for_good_is_not_sent_again(
    answer: Exception, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "RETRY_INTERVAL_S", 0.0)
    monkeypatch.setattr(status, "REPORT_INTERVAL_S", 3600.0)
    seen = []

    class Server(Recorded):
        def apply(self, target: Target, body: dict[str, Any]) -> None:
            seen.append(body)
            if len(seen) < 3:
                raise answer

    assert Reporter(TARGET, TrainingStatus, Server()).close() is (tries == 3)
    assert len(seen) == tries


def test_a_trainer_with_nothing_new_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(f"2030-01-01T12:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(status, "HEARTBEAT_S", 0.0)
    clock = SimpleNamespace(now=lambda zone: SimpleNamespace(strftime=lambda _: next(times)))
    monkeypatch.setattr(status, "datetime", clock)
    api = Recorded()
    reporter = Reporter(TARGET, lambda: TrainingStatus(iteration=1), api)
    wait_for(lambda: len(api.bodies) > 2)
    assert reporter.close()
    reports = [body["status"]["training"] for body in api.bodies]
    assert {report["updatedAt"] for report in reports} == {"2030-01-01T12:00:00Z"}, "nothing has changed since"
    beats = [report["heartbeatAt"] for report in reports]
    assert beats == [f"2030-01-01T12:00:{second:02}Z" for second in range(len(beats))]


def test_a_run_whose_end_is_not_reported_fails_and_the_next_attempt_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = Recorded()
    api.found = {"metadata": {"uid": "uid-1"}, "status": {"training": {"iteration": 1}}}
    monkeypatch.setattr(status, "KubernetesClient", lambda: api)
    monkeypatch.setattr(status, "FINAL_PATIENCE", 0.0)
    for name, value in (("NAME", "cartpole"), ("NAMESPACE", "team"), ("UID", "uid-1")):
        monkeypatch.setenv(f"RLTRAINER_{name}", value)
    document = experiment(env="CartPole-v1", config=quick_config(), stop={"training_iteration": 3})
    api.failing = True
    with pytest.raises(
        RunError, match=r"RLExperiment cartpole \(the API server is away\).*next attempt finds it"
    ) as end:
        train.run(document, tmp_path, attempt=1)
    assert (end.value.reason, end.value.exit_code) == ("ReportMissing", 1)
    assert "did not reach the RLExperiment cartpole" in capsys.readouterr().err
    api.failing = False
    result = train.run(document, tmp_path, attempt=2, resume=True)
    assert result.row == {}, "no iteration was run again"
    report = api.bodies[-1]["status"]["training"]
    assert (report["attempt"], report["iteration"], report["stoppedBy"]) == (2, 3, "training_iteration >= 3")


def test_the_target_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RLTRAINER_NAME", "RLTRAINER_NAMESPACE", "RLTRAINER_UID"):
        monkeypatch.delenv(name, raising=False)
    assert Target.from_environment(*EXPERIMENT) is None
    monkeypatch.setenv("RLTRAINER_NAME", "cartpole")
    monkeypatch.setenv("RLTRAINER_NAMESPACE", "team")
    monkeypatch.setenv("RLTRAINER_UID", "uid-1")
    assert Target.from_environment(*EXPERIMENT) == TARGET


@pytest.fixture
def server() -> Iterator[tuple[KubernetesClient, list[Any]]]:
    """A server that keeps every request, and the client pointed at it; after the first it answers as a conflict."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(200 if len(seen) == 1 else 409)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"message": "Precondition failed: UID"}).encode())

        def log_message(self, *args: Any) -> None:
            """Not on the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    ours = KubernetesClient()
    ours._api = client.CustomObjectsApi(
        client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{http.server_address[1]}"))
    )
    yield ours, seen
    http.shutdown()
    thread.join()
    http.server_close()


def test_it_is_a_server_side_apply_of_the_status(
    server: tuple[KubernetesClient, list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, seen = server
    monkeypatch.setattr(status, "FINAL_PATIENCE", 0.1)
    assert Reporter(TARGET, lambda: TrainingStatus(iteration=4), ours).close()
    path, kind, body = seen[0]
    assert path.partition("?")[0] == WHERE
    assert set(path.partition("?")[2].split("&")) == {"fieldManager=rltrainer", "force=true"}
    assert kind == "application/apply-patch+yaml"
    assert body["status"]["training"]["iteration"] == 4
    assert not Reporter(TARGET, lambda: TrainingStatus(iteration=5), ours).close()
    assert "Precondition failed: UID" in caplog.text, "the server's own words"


def test_a_slow_api_server_does_not_hold_up_training() -> None:
    released = threading.Event()

    class Slow(Recorded):
        def apply(self, target: Target, body: dict[str, Any]) -> None:
            released.wait(10)

    reporter = Reporter(TARGET, lambda: TrainingStatus(iteration=1), Slow())
    time.sleep(0.2)  # it is on its way, in a thread of its own, and we are here
    released.set()
    assert reporter.close()


def test_a_new_attempt_begins_from_what_the_earlier_one_reported() -> None:
    api = Recorded()
    training = {"iteration": 40, "timestepsTotal": 1000, "error": {"reason": "X", "message": "y"}, "stoppedBy": "z"}
    api.found = {"metadata": {"uid": "uid-1"}, "status": {"phase": "Retrying", "training": training}}
    assert status.earlier(TARGET, api) == TrainingStatus(iteration=40, timesteps_total=1000)


def test_the_report_of_another_resource_of_the_same_name_is_not_taken() -> None:
    api = Recorded()
    api.found = {"metadata": {"uid": "uid-0"}, "status": {"training": {"iteration": 40}}}
    assert status.earlier(TARGET, api) == TrainingStatus()


def test_an_earlier_report_that_cannot_be_read_is_none() -> None:
    api = Recorded()
    api.failing = True
    assert status.earlier(TARGET, api) == TrainingStatus()
