"""The whole product in one run: train on the cluster, watch, look at the checkpoints, roll the policy out."""

import sys
import time
from urllib.parse import urlsplit

from hack.kubectl import ROOT, KubectlError, Manifest, apply, get, kubectl, make_namespace, s3_client

NAMESPACE = "rl-demo"
EXPERIMENT = "cartpole-ppo"
ROLLOUT = "cartpole-rollout"
GOAL = 475.0
TIMEOUT = 900.0
FINAL = ("Succeeded", "Failed", "Invalid")


class DemoError(RuntimeError):
    """The demo did not end as it should."""


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n=== {text}", flush=True)


def shell(*args: str) -> None:
    """Print a kubectl command and its output."""
    print(f"$ kubectl -n {NAMESPACE} {' '.join(args)}")
    print(kubectl(*args, namespace=NAMESPACE), end="", flush=True)


def line(status: Manifest) -> str:
    """Format a status as one line."""
    training = status.get("training", {})
    reward = training.get("reward", "-")
    bar = "█" * int(20 * min(1.0, max(0.0, training.get("episodeRewardMean", 0.0) / GOAL)))
    return (
        f"{status.get('phase', 'Pending'):<13} iteration {training.get('iteration', 0):>4}  "
        f"steps {training.get('timestepsTotal', 0):>7}  reward {reward:>7}  {bar:<20}  {status.get('message', '')[:60]}"
    )


def watch(kind: str, name: str) -> Manifest:
    """Print an object's progress until it is final, and return its status."""
    start, shown = time.monotonic(), ""
    while time.monotonic() - start < TIMEOUT:
        status: Manifest = (get(kind, name, NAMESPACE) or {}).get("status", {})
        text = (
            line(status) if kind == "rlexperiment" else f"{status.get('phase', 'Pending')} {status.get('message', '')}"
        )
        if text != shown:
            print(f"{time.monotonic() - start:5.0f} s  {text}", flush=True)
            shown = text
        if status.get("phase") in FINAL:
            return status
        time.sleep(1)
    raise DemoError(
        f"{kind} {name} was not finished after {TIMEOUT:.0f} s: kubectl -n {NAMESPACE} describe {kind} {name}"
    )


def list_checkpoints(uri: str) -> None:
    """Print the objects in S3 below the run's folder. Raises DemoError without a complete checkpoint."""
    place = urlsplit(uri)
    with s3_client() as s3:
        listed = s3.list_objects_v2(Bucket=place.netloc, Prefix=place.path.strip("/") + "/").get("Contents", [])
    if not any(item["Key"].endswith("manifest.json") for item in listed):
        raise DemoError(f"no complete checkpoint below {uri}")
    for item in listed:
        print(f"{item['Size']:>10}  s3://{place.netloc}/{item['Key']}")


def train() -> None:
    """Apply the example and follows it until it has succeeded."""
    say("Train: kubectl apply -f examples/cartpole-ppo.yaml")
    kubectl("delete", "rlrollout", ROLLOUT, "--ignore-not-found", "--wait", namespace=NAMESPACE)
    kubectl("delete", "rlexperiment", EXPERIMENT, "--ignore-not-found", "--cascade=foreground", namespace=NAMESPACE)
    print(apply(ROOT / "examples" / "cartpole-ppo.yaml", NAMESPACE), end="", flush=True)
    status = watch("rlexperiment", EXPERIMENT)
    shell("get", "rlx", EXPERIMENT, "-o", "wide")
    reward = status.get("training", {}).get("episodeRewardMean", 0.0)
    if status["phase"] != "Succeeded" or reward < GOAL:
        shell("describe", "rlx", EXPERIMENT)
        raise DemoError(f"{EXPERIMENT} is {status['phase']} with a mean return of {reward}, not {GOAL} or more")
    say("Its checkpoints in S3")
    list_checkpoints(status["storageUri"])


def roll_out() -> None:
    """Run the best policy as a Job and show its returns."""
    say("Roll out: kubectl apply -f examples/cartpole-rollout.yaml")
    print(apply(ROOT / "examples" / "cartpole-rollout.yaml", NAMESPACE), end="", flush=True)
    status = watch("rlrollout", ROLLOUT)
    shell("get", "rlr", ROLLOUT, "-o", "wide")
    if status["phase"] != "Succeeded":
        shell("describe", "rlr", ROLLOUT)
        raise DemoError(f"{ROLLOUT} is {status['phase']}")
    results = status["results"]
    print(f"returns: {' '.join(f'{value:g}' for value in results['returns'])}")
    print(f"mean {results['rewardMean']:.1f}, min {results['rewardMin']:.1f}, max {results['rewardMax']:.1f}")


def main() -> int:
    """0 when everything ended as it should."""
    start = time.monotonic()
    try:
        make_namespace(NAMESPACE)
        train()
        roll_out()
    except (DemoError, KubectlError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    say(f"Done in {time.monotonic() - start:.0f} s. Yours to look at: kubectl -n {NAMESPACE} describe rlx {EXPERIMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
