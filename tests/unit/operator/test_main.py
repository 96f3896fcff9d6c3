"""The operator's flags, and what it says about bad ones."""

import subprocess
import sys

import pytest
from rloperator.__main__ import main, parser, settings_of

from rltrainer.api.experiment import Storage


def test_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLOPERATOR_TRAINER_IMAGE", "from-env:1")
    monkeypatch.setenv("RLOPERATOR_STORAGE_URI", "s3://bucket/p")
    monkeypatch.setenv("RLOPERATOR_SWEEP_SECONDS", "7")
    monkeypatch.setenv("RLOPERATOR_ACCOUNT_ANNOTATIONS", '{"role": "arn"}')
    monkeypatch.setenv("RLOPERATOR_ACCOUNTS", "ml, other")
    monkeypatch.setenv("RLOPERATOR_NETWORK_INGRESS", '[{"ports": [{"port": 8080}]}]')
    monkeypatch.setenv("RLOPERATOR_KUBERAY_NAMESPACE", "")
    settings = settings_of(parser().parse_args(["--namespace", "team", "--workers", "3", "--image-pull-secrets", "a"]))
    assert (settings.account_annotations, settings.accounts) == ({"role": "arn"}, ("ml", "other"))
    assert settings.image_pull_secrets == ("a",)
    assert settings.trainer_image == "from-env:1"
    assert settings.storage == Storage(uri="s3://bucket/p")
    assert (settings.namespace, settings.sweep_seconds, settings.workers) == ("team", 7.0, 3)
    assert settings.network_ingress == ({"ports": [{"port": 8080}]},)
    assert (settings.network_policies, settings.kuberay_namespace) == (True, None)
    settings = settings_of(parser().parse_args(["--network-policies", "false", "--kuberay-namespace", "ray"]))
    assert (settings.network_policies, settings.kuberay_namespace) == (False, "ray")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--trainer-image"),
        (["--trainer-image=x", "--storage-endpoint=http://s3"], "--storage-uri is needed beside endpoint"),
        (["--trainer-image=x", "--storage-uri=bucket"], "--storage.uri"),
        (["--trainer-image=x", "--workers=0"], "--workers at least 1"),
        (["--trainer-image=x", "--account-annotations=[1]"], "--account-annotations must be a JSON object"),
        (["--trainer-image=x", "--account-annotations={"], "--account-annotations must be a JSON object"),
        (["--trainer-image=x", "--network-ingress=[8080]"], "--network-ingress must be a JSON list of objects"),
        (["--trainer-image=x", "--network-ingress=all"], "--network-ingress must be a JSON list of objects"),
    ],
    ids=str,
)
def test_bad_flags_end_with_a_message(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLOPERATOR_TRAINER_IMAGE", raising=False)
    assert main(flags) == 2
    assert message in capsys.readouterr().err


def test_the_operator_needs_neither_torch_nor_ray() -> None:
    script = (
        "import sys, rloperator.controller.handlers, rloperator.__main__; "
        "sys.exit(','.join({'torch', 'ray', 'numpy', 'gymnasium'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
