"""The learning half: networks, their optimiser, and the state that goes with them."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rltrainer.algorithm import Algorithm, Metrics
from rltrainer.envs import Spaces
from rltrainer.errors import RunError
from rltrainer.fragment import Fragment, collate
from rltrainer.normalize import RewardNormalizer
from rltrainer.options import Options
from rltrainer.schedules import at
from rltrainer.seeding import Role, derived_seed

log = logging.getLogger(__name__)

Weights = dict[str, Any]
"""What a worker needs to act: arrays on the CPU by name."""


class Flat:
    """All parameters of a module as views of one vector, and their gradients of another.

    One vector means one kernel for each of the optimiser's steps, for the clipping and for sending weights, where a
    small network would otherwise spend most of its time on a dozen each.
    """

    def __init__(self, module: nn.Module) -> None:
        parameters = list(module.parameters())
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
        self.gradient = torch.zeros_like(self.vector)
        self.vector.grad = self.gradient
        begin = 0
        for parameter in parameters:
            end = begin + parameter.numel()
            parameter.data = self.vector.data[begin:end].view_as(parameter)
            parameter.grad = self.gradient[begin:end].view_as(parameter)
            begin = end


class Learner:
    """Networks and what improves them. `memory` holds the numbers that the algorithm itself keeps between updates."""

    def __init__(self, algorithm: Algorithm, spaces: Spaces, options: Options, seed: int, device: torch.device) -> None:
        self.algorithm, self.options, self.device = algorithm, options, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, Role.NETWORKS))
            self.nets = algorithm.nets(spaces, options).to(device)
        self.flat = Flat(self.nets)
        self.optimizer = algorithm.optimizer(self.flat.vector, options)
        self.rng = torch.Generator().manual_seed(derived_seed(seed, Role.LEARNER))
        self.memory: dict[str, float] = {}
        self.timesteps = 0
        self.reward_normalizer: RewardNormalizer | None = None
        if options.normalize_rewards:
            num_envs = options.num_envs_per_worker * max(1, options.num_workers)
            self.reward_normalizer = RewardNormalizer(num_envs, options.gamma).to(device)

    def improve(self, fragments: list[Fragment], timesteps: int) -> Metrics:
        """One improvement from `fragments`, sampled after `timesteps` steps of the run. Returns what to report."""
        self.timesteps = timesteps
        batch = collate(fragments, self.device)
        if self.reward_normalizer is not None:
            batch.r = self.reward_normalizer(batch.r, batch.done, batch.valid)
        lr = at(self.options.lr_schedule, self.options.lr, timesteps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        metrics = self.algorithm.update(self, batch, self.options)
        normalizer = getattr(self.nets, "normalizer", None)
        if normalizer is not None:  # only now: the batch was acted upon, and is to be judged, with the old statistics
            normalizer.update(batch.obs[:-1][batch.valid])
        self._check(metrics)
        return {**metrics, "lr": lr}

    def minimise(self, loss: Tensor) -> Tensor:
        """One step of the optimiser down `loss`, a scalar. Returns the gradient's norm before clipping, a scalar."""
        self.flat.gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        norm: Tensor = torch.linalg.vector_norm(self.flat.gradient)
        if self.options.grad_clip:
            self.flat.gradient.mul_((self.options.grad_clip / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        return norm

    def weights(self) -> Weights:
        """A copy of what a worker needs to act."""
        buffers = {name: buffer.cpu().numpy().copy() for name, buffer in self.nets.named_buffers()}
        return {"parameters": self.flat.vector.detach().cpu().numpy().copy(), "buffers": buffers}

    def state(self) -> dict[str, Any]:
        """Everything that learning goes on from: tensors and JSON values by name."""
        optimizer = self.optimizer.state.get(self.flat.vector, {})
        return {
            "optimizer": {name: value.clone() for name, value in optimizer.items() if isinstance(value, Tensor)},
            "rng": self.rng.get_state(),
            "memory": dict(self.memory),
            "rewards": dict(self.reward_normalizer.state_dict()) if self.reward_normalizer is not None else {},
        }

    def policy(self) -> dict[str, Tensor]:
        """The networks' parameters and buffers by name, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.nets.state_dict().items()}

    def load(self, policy: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Goes on from `policy()` and `state()` of a learner of the same algorithm, options and spaces."""
        load_policy(self.nets, policy)
        self.optimizer.state[self.flat.vector] = {k: v.to(self._home(k)) for k, v in state["optimizer"].items()}
        self.rng.set_state(state["rng"])
        self.memory = dict(state["memory"])
        if self.reward_normalizer is not None:
            saved = state["rewards"]
            if saved and saved["returns"].shape != self.reward_normalizer.returns.shape:
                log.warning(
                    "the number of environments has changed: their returns so far, for normalisation, begin anew"
                )
                saved = {**saved, "returns": torch.zeros_like(self.reward_normalizer.returns)}
            self.reward_normalizer.load_state_dict(saved, strict=bool(saved))

    def _home(self, name: str) -> torch.device:
        """Where the optimiser keeps part `name` of its state: fused ones keep all of it beside the parameters."""
        fused = self.optimizer.defaults.get("fused")
        return self.device if fused or name != "step" else torch.device("cpu")

    def _check(self, metrics: Metrics) -> None:
        bad = [name for name, value in metrics.items() if value != value]
        if bad:
            raise RunError(
                "Diverged",
                f"training diverged: {', '.join(bad)} is not a number after {self.timesteps} timesteps. "
                "A smaller lr, grad_clip, or normalize_observations usually helps",
            )


def load_policy(nets: nn.Module, policy: dict[str, Tensor]) -> None:
    """Fills `nets` with `policy`. Raises RunError, permanent, where they are of different shapes."""
    try:
        nets.load_state_dict(policy)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise RunError(
            "InvalidOption",
            f"the checkpoint does not fit the networks of these options (hiddens, vf_share_layers) and env: {detail}",
            permanent=True,
        ) from None


def adam(eps: float) -> Callable[[nn.Parameter, Options], torch.optim.Optimizer]:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) with `eps`, in one fused kernel."""
    return lambda vector, options: torch.optim.Adam([vector], lr=options.lr, eps=eps, fused=True)
