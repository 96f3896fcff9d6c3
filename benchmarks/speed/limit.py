"""The limit: the environment's steps and the networks' passes alone, as often as the row's options ask for them.

Networks are plain layers of PyTorch, their parameters one vector under our fused Adam; batches and actions are drawn
once; a loss is a mean. There is no buffer, no bookkeeping and no mathematics of reinforcement learning: whatever an
algorithm does besides costs more. Two critics are one batched product, and threads are as many as are fastest here.

    python -m benchmarks.speed.limit WORK
"""

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.meter import Meter, parse_work
from rltrainer.core.optimizer import Adam
from rltrainer.core.types import Spaces
from rltrainer.envs.source import EnvSource
from rltrainer.machine import cpus, keep_memory

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
TRIAL_SECONDS = 0.5
Pass = Callable[[], None]


class Product(nn.Module):
    """A linear layer, or `count` of them in one product."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, inputs, outputs) * 0.01)
        self.bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def layers(inputs: int, o: dict[str, Any], outputs: int, count: int = 1) -> nn.Sequential:
    """The hidden layers of the row's options and one more."""

    def linear(wide: int, out: int) -> nn.Module:
        return nn.Linear(wide, out) if count == 1 else Product(count, wide, out)

    widths = [inputs, *o["hiddens"]]
    parts: list[nn.Module] = []
    for i, width in enumerate(widths[1:]):
        parts += [linear(widths[i], width), ACTIVATIONS[o["activation"]]()]
    return nn.Sequential(*parts, linear(widths[-1], outputs))


class Trained:
    """A network, and its steps down the mean of what it puts out."""

    def __init__(self, *parts: nn.Module) -> None:
        self.parameters = [p for part in parts for p in part.parameters()]
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.parameters]))
        self.vector.grad = torch.zeros_like(self.vector)
        begin = 0
        for p in self.parameters:
            p.data = self.vector.data[begin : begin + p.numel()].view_as(p)
            p.grad = self.vector.grad[begin : begin + p.numel()].view_as(p)
            begin += p.numel()
        self.optimizer = Adam(self.vector, lr=1e-9, eps=1e-8)

    def descend(self, loss: Tensor) -> None:
        """Backward pass and step."""
        assert self.vector.grad is not None  # noqa: S101 - for the type checker
        self.vector.grad.zero_()
        loss.backward(inputs=self.parameters)  # type: ignore[no-untyped-call]
        self.optimizer.step()


class Images(nn.Module):
    """Nature's convolutions over bytes, their channels last in memory, as they are fastest."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1)]
        self.all = nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.all(obs.float().contiguous(memory_format=torch.channels_last))
        return out


class Passes:
    """What the networks do in one step of the environments, and in one round of learning."""

    act: Pass
    learn: Pass

    def __init__(self, run: str, spaces: Spaces, o: dict[str, Any]) -> None:
        shape = spaces.observations.shape or ()
        self.o, self.images, self.shape = o, len(shape) == 3, shape
        self.features = 512 if self.images else math.prod(shape)
        self.width, self.length = o["num_envs_per_worker"], o["rollout_fragment_length"]
        self.actions = int(getattr(spaces.actions, "n", 0)) or math.prod(spaces.actions.shape or ())
        make = {"DQN": self._q, "SAC": self._soft, "TD3": self._deterministic, "DDPG": self._deterministic}
        make.get(run, self._policy_gradient)(run)

    def _obs(self, count: int) -> Tensor:
        if self.images:
            return torch.randint(0, 256, (count, *self.shape), dtype=torch.uint8)
        return torch.randn(count, *self.shape)

    def _encoder(self) -> nn.Module:
        return Images() if self.images else nn.Identity()

    def _policy_gradient(self, run: str) -> None:
        o, encoder = self.o, self._encoder()
        policy, critic = layers(self.features, o, self.actions), layers(self.features, o, 1)
        trained, here = Trained(encoder, policy, critic), self._obs(self.width)
        steps = self.width * self.length
        steps *= math.ceil(o.get("train_batch_size", 1) / steps)
        parts = max(1, round(steps / o["minibatch_size"])) if "minibatch_size" in o else 1
        batch, every = self._obs(steps // parts), self._obs(steps + self.width)
        rounds = parts * o.get("epochs", 1) * (self.width * self.length) / steps
        self.due = 0.0

        def act() -> None:
            with torch.inference_mode():
                policy(encoder(here))

        def learn() -> None:
            self.due += rounds
            if run in ("PPO", "APPO"):  # values before the first step
                with torch.inference_mode():
                    hidden = encoder(every)
                    policy(hidden), critic(hidden)
            while self.due >= 1:
                hidden = encoder(batch)
                trained.descend(policy(hidden).mean() + critic(hidden).mean())
                self.due -= 1

        self.act, self.learn = act, learn

    def _updates(self, update: Pass) -> Pass:
        """As many updates as one fragment is worth."""
        self.due = 0.0

        def learn() -> None:
            self.due += self.width * self.length * self.o["updates_per_step"]
            while self.due >= 1:
                update()
                self.due -= 1

        return learn

    def _q(self, run: str) -> None:
        networks = [nn.Sequential(self._encoder(), layers(self.features, self.o, self.actions)) for _ in range(2)]
        (q, target), here = networks, self._obs(self.width)
        trained, batch = Trained(q), self._obs(self.o["batch_size"])

        def act() -> None:
            with torch.inference_mode():
                q(here)

        def update() -> None:
            with torch.inference_mode():
                target(batch)
            trained.descend(q(batch).mean())

        self.act, self.learn = act, self._updates(update)

    def _critics(self) -> tuple[nn.Sequential, Callable[[nn.Sequential, Tensor, Tensor], Tensor], int]:
        count = 2 if self.o["twin_q"] else 1

        def value(critic: nn.Sequential, obs: Tensor, a: Tensor) -> Tensor:
            x = torch.cat([obs, a], -1)
            out: Tensor = critic(x.expand(count, *x.shape) if count > 1 else x)
            return out

        return layers(self.features + self.actions, self.o, 1, count), value, count

    def _soft(self, run: str) -> None:
        critic, value, _ = self._critics()
        target, _, _ = self._critics()
        policy, size = layers(self.features, self.o, 2 * self.actions), self.actions
        mine, its, batch = Trained(policy), Trained(critic), self._obs(self.o["batch_size"])
        theirs, here, a = Trained(target), self._obs(self.width), torch.randn(self.o["batch_size"], size)

        def act() -> None:
            with torch.inference_mode():
                policy(here)

        def update() -> None:
            with torch.inference_mode():
                value(target, batch, policy(batch)[:, :size])
            its.descend(value(critic, batch, a).mean())
            mine.descend(value(critic, batch, policy(batch)[:, :size]).mean())
            theirs.vector.data.lerp_(its.vector.data, 0.005)

        self.act, self.learn = act, self._updates(update)

    def _deterministic(self, run: str) -> None:
        critic, value, _ = self._critics()
        target, _, _ = self._critics()
        policy, followed = (layers(self.features, self.o, self.actions) for _ in range(2))
        mine, its, batch = Trained(policy), Trained(critic), self._obs(self.o["batch_size"])
        theirs, here, a = Trained(target), self._obs(self.width), torch.randn(self.o["batch_size"], self.actions)
        first, delay, done = layers(self.features + self.actions, self.o, 1), self.o["policy_delay"], 0

        def act() -> None:
            with torch.inference_mode():
                policy(here)

        def update() -> None:
            nonlocal done
            with torch.inference_mode():
                value(target, batch, followed(batch))
            its.descend(value(critic, batch, a).mean())
            done += 1
            if done % delay == 0:
                mine.descend(first(torch.cat([batch, policy(batch)], -1)).mean())
                theirs.vector.data.lerp_(its.vector.data, 0.005)

        self.act, self.learn = act, self._updates(update)


class Limit:
    """Rounds of sampling and learning, of nothing but those parts."""

    def __init__(self, work: dict[str, Any]) -> None:
        o, source = work["options"], EnvSource(work["env"])
        self.unroll_length, self.num_envs = o["rollout_fragment_length"], o["num_envs_per_worker"]
        self.envs = source.vector(self.num_envs)
        self.envs.reset(seed=0)
        self.envs.action_space.seed(0)
        self.actions = [self.envs.action_space.sample() for _ in range(64)]
        self.passes = Passes(work["run"], source.spaces(), o)

    def round(self) -> None:
        """One fragment of every environment, and what is learned from it."""
        for t in range(self.unroll_length):
            self.passes.act()
            self.envs.step(self.actions[t % len(self.actions)])
        self.passes.learn()

    def choose_threads(self) -> None:
        """Set the number of threads that is fastest."""
        seconds_per_round: dict[int, float] = {}
        for threads in {1, cpus()}:
            torch.set_num_threads(threads)
            begun, rounds = perf_counter(), 0
            while perf_counter() - begun < TRIAL_SECONDS or rounds < 2:
                self.round()
                rounds += 1
            seconds_per_round[threads] = (perf_counter() - begun) / rounds
        torch.set_num_threads(min(seconds_per_round, key=lambda threads: seconds_per_round[threads]))


def main(work: dict[str, Any]) -> None:
    keep_memory()
    meter, limit = Meter(work), Limit(work)
    limit.choose_threads()
    while True:
        limit.round()
        meter.tick(limit.unroll_length * limit.num_envs)


if __name__ == "__main__":
    main(parse_work())
