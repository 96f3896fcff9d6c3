"""Loops in the manner of CleanRL as contenders: one function an algorithm, read from top to bottom.

They are written for this benchmark, with the options of the row and the parts that CleanRL's scripts use: Gymnasium's
vectors of single environments, torch.distributions, Adam with PyTorch's defaults, clip_grad_norm_, `.item()` for what
is reported, and Stable-Baselines3's replay buffer. They run in the peers' environment.

    python -m benchmarks.speed.cleanrl WORK
"""

# mypy: disable-error-code="no-untyped-call"
import copy
import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.atari_wrappers import AtariWrapper  # type: ignore[import-not-found]
from stable_baselines3.common.buffers import ReplayBuffer  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn.functional import mse_loss, smooth_l1_loss

from benchmarks.speed.meter import Meter, parse_work

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def make_envs(work: dict[str, Any]) -> Any:
    """Environments that begin the next episode in the same step, and tell what the last one ended in."""

    def make() -> Any:
        if not work["env"].startswith("ALE/"):
            return gym.wrappers.RecordEpisodeStatistics(gym.make(work["env"]))
        importlib.import_module("ale_py")
        env = gym.wrappers.RecordEpisodeStatistics(gym.make(work["env"], frameskip=1))
        return gym.wrappers.FrameStackObservation(Squeezed(AtariWrapper(env, terminal_on_life_loss=False)), 4)

    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.vector.SyncVectorEnv([make] * work["options"]["num_envs_per_worker"], autoreset_mode=mode)


class Squeezed(gym.ObservationWrapper[Any, Any, Any]):
    """Grey pictures [84, 84] from [84, 84, 1]."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 255, (84, 84), np.uint8)

    def observation(self, observation: Any) -> Any:
        return observation[..., 0]


def layers(inputs: int, hiddens: list[int], outputs: int, activation: str) -> nn.Sequential:
    widths = [inputs, *hiddens]
    parts: list[nn.Module] = []
    for i, width in enumerate(widths[1:]):
        parts += [nn.Linear(widths[i], width), ACTIVATIONS[activation]()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))


class Pixels(nn.Module):
    """Bytes as numbers from 0 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 255.0


def nature() -> list[nn.Module]:
    return [
        Pixels(),
        *(nn.Conv2d(4, 32, 8, stride=4), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, stride=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU()),
    ]


class Agent(nn.Module):
    def __init__(self, envs: Any, o: dict[str, Any]) -> None:
        super().__init__()
        shape, actions = envs.single_observation_space.shape, int(envs.single_action_space.n)
        self.shared = nn.Sequential(*nature()) if len(shape) == 3 else nn.Identity()
        inputs = 512 if len(shape) == 3 else int(np.prod(shape))
        self.actor = layers(inputs, o["hiddens"], actions, o["activation"])
        self.critic = layers(inputs, o["hiddens"], 1, o["activation"])

    def forward(self, x: Tensor, a: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden = self.shared(x)
        dist = torch.distributions.Categorical(logits=self.actor(hidden))
        a = dist.sample() if a is None else a
        return a, dist.log_prob(a), dist.entropy(), self.critic(hidden)


def ppo(work: dict[str, Any], meter: Meter) -> None:
    o, envs = work["options"], make_envs(work)
    n, t_max = o["num_envs_per_worker"], o["rollout_fragment_length"]
    agent = Agent(envs, o)
    optimizer = torch.optim.Adam(agent.parameters(), lr=o["lr"], eps=1e-5)
    obs = torch.zeros((t_max, n, *envs.single_observation_space.shape))
    actions, logps, rewards, dones, values = (torch.zeros((t_max, n)) for _ in range(5))
    next_obs, next_done = torch.Tensor(envs.reset(seed=0)[0]), torch.zeros(n)
    size = min(o["minibatch_size"], n * t_max)
    while True:
        meter.tick(n * t_max)
        for t in range(t_max):
            obs[t], dones[t] = next_obs, next_done
            with torch.no_grad():
                a, logp, _, v = agent(next_obs)
            actions[t], logps[t], values[t] = a, logp, v.flatten()
            seen, reward, terminated, truncated, _ = envs.step(a.numpy())
            rewards[t] = torch.tensor(reward).view(-1)
            next_obs, next_done = torch.Tensor(seen), torch.Tensor(np.logical_or(terminated, truncated))
        with torch.no_grad():
            next_value, carried = agent(next_obs)[3].flatten(), torch.zeros(n)
            adv = torch.zeros_like(rewards)
            for t in reversed(range(t_max)):
                going = 1.0 - (next_done if t == t_max - 1 else dones[t + 1])
                following = next_value if t == t_max - 1 else values[t + 1]
                delta = rewards[t] + o["gamma"] * following * going - values[t]
                adv[t] = carried = delta + o["gamma"] * o["lambda"] * going * carried
            target = adv + values
        flat = [x.reshape(n * t_max, *x.shape[2:]) for x in (obs, actions, logps, adv, target)]
        order = np.arange(n * t_max)
        for _ in range(o["epochs"]):
            np.random.shuffle(order)
            for start in range(0, n * t_max, size):
                b_obs, b_a, b_logp, b_adv, b_target = (x[order[start : start + size]] for x in flat)
                _, logp, entropy, v = agent(b_obs, b_a.long())
                log_ratio = logp - b_logp
                ratio = log_ratio.exp()
                with torch.no_grad():
                    ((ratio - 1) - log_ratio).mean()
                    ((ratio - 1.0).abs() > o["clip"]).float().mean().item()
                b_adv = (b_adv - b_adv.mean()) / (b_adv.std() + 1e-8)
                clipped = torch.clamp(ratio, 1 - o["clip"], 1 + o["clip"])
                policy_loss = torch.max(-b_adv * ratio, -b_adv * clipped).mean()
                value_loss = 0.5 * ((v.view(-1) - b_target) ** 2).mean()
                loss = policy_loss - o["entropy_coeff"] * entropy.mean() + o["vf_coeff"] * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), o["grad_clip"])
                optimizer.step()


class Sampled:
    """Environments and the replay buffer of the algorithms below: one step, and whether an update is due."""

    def __init__(self, work: dict[str, Any], meter: Meter) -> None:
        self.o, self.envs, self.meter = work["options"], make_envs(work), meter
        self.n, self.due, self.steps = self.o["num_envs_per_worker"], 0.0, 0
        observations, actions = self.envs.single_observation_space, self.envs.single_action_space
        if observations.dtype == np.float64:
            observations.dtype = np.dtype(np.float32)
        size = self.o["buffer_size"]
        self.buffer = ReplayBuffer(size, observations, actions, "cpu", n_envs=self.n, handle_timeout_termination=False)
        self.obs, _ = self.envs.reset(seed=0)

    def step(self, actions: Any) -> int:
        """Step all environments; return the updates that are due after it."""
        following, reward, terminated, truncated, infos = self.envs.step(actions)
        real = following.copy()
        for i in np.flatnonzero(truncated):
            real[i] = infos["final_obs"][i]
        self.buffer.add(self.obs, real, actions, reward, terminated, infos)
        self.obs = following
        self.meter.tick(self.n)
        self.steps += self.n
        if self.steps < self.o["learning_starts"]:
            return 0
        self.due += self.n * self.o["updates_per_step"]
        if self.due < self.o["rollout_fragment_length"] * self.n * self.o["updates_per_step"]:
            return 0
        due, self.due = int(self.due), 0.0
        return due


def dqn(work: dict[str, Any], meter: Meter) -> None:
    sampled = Sampled(work, meter)
    o, envs, n = sampled.o, sampled.envs, sampled.n
    shape, actions = envs.single_observation_space.shape, int(envs.single_action_space.n)
    head = layers(512 if len(shape) == 3 else int(np.prod(shape)), o["hiddens"], actions, o["activation"])
    q_network = nn.Sequential(*nature(), *head) if len(shape) == 3 else head
    target = copy.deepcopy(q_network)
    optimizer = torch.optim.Adam(q_network.parameters(), lr=o["lr"])
    epsilon, updates = o["epsilon_schedule"][-1][1], 0
    while True:
        if np.random.rand() < epsilon:
            chosen = np.array([envs.single_action_space.sample() for _ in range(n)])
        else:
            chosen = torch.argmax(q_network(torch.Tensor(sampled.obs)), dim=1).cpu().numpy()
        for _ in range(sampled.step(chosen)):
            data = sampled.buffer.sample(o["batch_size"])
            with torch.no_grad():
                best, _ = target(data.next_observations.float()).max(dim=1)
                goal = data.rewards.flatten() + o["gamma"] * best * (1 - data.dones.flatten())
            old = q_network(data.observations.float()).gather(1, data.actions).squeeze()
            loss = smooth_l1_loss(goal, old)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(q_network.parameters(), o["grad_clip"])
            optimizer.step()
            updates += 1
            if updates % o["target_update_freq"] == 0:
                target.load_state_dict(q_network.state_dict())


class Continuous:
    """Networks of the two algorithms below."""

    def __init__(self, sampled: Sampled, outputs_per_action: int, critics: int) -> None:
        o, envs = sampled.o, sampled.envs
        inputs, self.size = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
        self.reach = torch.tensor(envs.single_action_space.high, dtype=torch.float32)
        self.actor = layers(inputs, o["hiddens"], outputs_per_action * self.size, o["activation"])
        self.critics = [layers(inputs + self.size, o["hiddens"], 1, o["activation"]) for _ in range(critics)]
        self.actor_target, self.critic_targets = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        critic_parameters = [p for critic in self.critics for p in critic.parameters()]
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=o["lr"])
        self.critic_optimizer = torch.optim.Adam(critic_parameters, lr=o["lr"])

    def values(self, critics: list[nn.Sequential], obs: Tensor, a: Tensor) -> list[Tensor]:
        return [critic(torch.cat([obs, a], 1)) for critic in critics]

    def fit(self, goal: Tensor, obs: Tensor, a: Tensor) -> None:
        losses = [mse_loss(q.view(-1), goal) for q in self.values(self.critics, obs, a)]
        self.critic_optimizer.zero_grad()
        sum(losses, torch.zeros(())).backward()
        self.critic_optimizer.step()

    def improve(self, loss: Tensor) -> None:
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()

    def follow(self, pairs: list[tuple[nn.Module, nn.Module]], tau: float) -> None:
        for net, target in pairs:
            for mine, theirs in zip(net.parameters(), target.parameters(), strict=True):
                theirs.data.copy_(tau * mine.data + (1 - tau) * theirs.data)


def td3(work: dict[str, Any], meter: Meter) -> None:
    sampled = Sampled(work, meter)
    o, updates = sampled.o, 0
    nets = Continuous(sampled, 1, 2 if o["twin_q"] else 1)
    low, high = sampled.envs.single_action_space.low, sampled.envs.single_action_space.high

    def policy(actor: nn.Module, obs: Tensor) -> Tensor:
        return torch.tanh(actor(obs)) * nets.reach

    while True:
        with torch.no_grad():
            a = policy(nets.actor, torch.Tensor(sampled.obs))
            a += torch.normal(0, nets.reach.expand_as(a) * o["exploration_sigma"])
        for _ in range(sampled.step(a.numpy().clip(low, high))):
            data = sampled.buffer.sample(o["batch_size"])
            with torch.no_grad():
                noise = torch.randn_like(data.actions) * o["target_noise"]
                noise = noise.clamp(-o["target_noise_clip"], o["target_noise_clip"]) * nets.reach
                following = (policy(nets.actor_target, data.next_observations) + noise).clamp(-nets.reach, nets.reach)
                q = torch.cat(nets.values(nets.critic_targets, data.next_observations, following), 1).min(1).values
                goal = data.rewards.flatten() + (1 - data.dones.flatten()) * o["gamma"] * q
            nets.fit(goal, data.observations, data.actions)
            updates += 1
            if updates % o["policy_delay"] == 0:
                chosen = policy(nets.actor, data.observations)
                nets.improve(-nets.critics[0](torch.cat([data.observations, chosen], 1)).mean())
                pairs = list(zip(nets.critics, nets.critic_targets, strict=True))
                nets.follow([*pairs, (nets.actor, nets.actor_target)], o["tau"])


def sac(work: dict[str, Any], meter: Meter) -> None:
    sampled = Sampled(work, meter)
    o = sampled.o
    nets = Continuous(sampled, 2, 2)
    log_alpha = torch.zeros(1, requires_grad=True)
    alpha_optimizer = torch.optim.Adam([log_alpha], lr=o["lr"])

    def act(obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = nets.actor(obs).chunk(2, -1)
        log_std = -5 + 0.5 * 7 * (torch.tanh(log_std) + 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        drawn = normal.rsample()
        squashed = torch.tanh(drawn)
        logp = normal.log_prob(drawn) - torch.log(nets.reach * (1 - squashed.pow(2)) + 1e-6)
        return squashed * nets.reach, logp.sum(1, keepdim=True)

    while True:
        with torch.no_grad():
            a, _ = act(torch.Tensor(sampled.obs))
        for _ in range(sampled.step(a.numpy())):
            data = sampled.buffer.sample(o["batch_size"])
            with torch.no_grad():
                following, logp = act(data.next_observations)
                values = nets.values(nets.critic_targets, data.next_observations, following)
                q = torch.min(*values) - log_alpha.exp() * logp
                goal = data.rewards.flatten() + (1 - data.dones.flatten()) * o["gamma"] * q.view(-1)
            nets.fit(goal, data.observations, data.actions)
            chosen, logp = act(data.observations)
            q = torch.min(*nets.values(nets.critics, data.observations, chosen))
            nets.improve((log_alpha.exp().item() * logp - q).mean())
            with torch.no_grad():
                _, logp = act(data.observations)
            alpha_loss = (-log_alpha.exp() * (logp - nets.size)).mean()
            alpha_optimizer.zero_grad()
            alpha_loss.backward()
            alpha_optimizer.step()
            nets.follow(list(zip(nets.critics, nets.critic_targets, strict=True)), o["tau"])


LOOPS = {"PPO": ppo, "DQN": dqn, "TD3": td3, "DDPG": td3, "SAC": sac}


def main(work: dict[str, Any]) -> None:
    torch.set_num_threads(work["threads"])
    LOOPS[work["run"]](work, Meter(work))


if __name__ == "__main__":
    main(parse_work())
