"""Replay against a list of episodes, and the sum tree against a list of numbers."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rltrainer.core.fragment import Fragment
from rltrainer.core.types import Array
from rltrainer.replay.buffer import Replay, Transitions
from rltrainer.replay.columns import ColumnSpec, FrameStackColumn, HostColumn, spec_of
from rltrainer.replay.sum_tree import SumTree
from rltrainer.storage import checkpoint
from tests.unit.trainer.helpers import equal

GAMMA = 0.9


def make(capacity: int, n_step: int = 1, prioritized: bool = False, streams: int = 1, alpha: float = 0.6) -> Replay:
    return Replay(capacity, GAMMA, n_step, prioritized, alpha, epsilon=1e-6, streams=streams)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Step:
    """One step as a list of episodes has it."""

    obs: int
    r: float
    terminated: bool
    next_obs: int
    lost: bool = False


@dataclass
class World:
    """Environments whose observations are numbered, so that none is like another, and the episodes that they had."""

    random: np.random.Generator
    num_envs: int
    counter: int = 0
    episodes: list[list[Step]] = field(default_factory=list)
    rows: list[list[Step | None]] = field(default_factory=list)
    """What happened in each row: a step of each environment, or None where one only began its next episode."""

    def __post_init__(self) -> None:
        self.replace_worker()

    def _fresh(self) -> int:
        self.counter += 1
        return self.counter

    def _episode(self) -> list[Step]:
        self.episodes.append([])
        return self.episodes[-1]

    def replace_worker(self) -> None:
        """All environments begin anew, and what followed their last steps is not known any more."""
        for step in self.rows[-1] if self.rows else []:
            if step is not None:
                step.lost = True
        self.now = [self._fresh() for _ in range(self.num_envs)]
        self.current = [self._episode() for _ in range(self.num_envs)]
        self.ended = [False] * self.num_envs

    def fragment(self, steps: int) -> Fragment:
        """The next steps."""
        b = self.num_envs
        flags: dict[str, Any] = {name: np.zeros((steps, b), np.bool_) for name in ("terminated", "truncated", "valid")}
        r = self.random.normal(size=(steps, b)).astype(np.float32)
        obs = np.zeros((steps + 1, b, 2), np.float32)
        for t in range(steps):
            obs[t, :, 0] = self.now
            self.rows.append([self._step(t, i, r, flags) for i in range(b)])
        obs[steps, :, 0] = self.now
        obs[..., 1] = -obs[..., 0]
        a = obs[:-1, :, 0].astype(np.int64) * 10
        return Fragment(obs=obs, a=a, r=r, extras={"logp": obs[:-1, :, 0] / 2}, **flags)

    def _step(self, t: int, i: int, r: Array, flags: dict[str, Array]) -> Step | None:
        before, self.now[i] = self.now[i], self._fresh()
        if self.ended[i]:
            self.ended[i], self.current[i] = False, self._episode()
            return None
        end = self.random.choice(["", "terminated", "truncated"], p=[0.7, 0.15, 0.15])
        flags["valid"][t, i] = True
        if end:
            flags[end][t, i] = self.ended[i] = True
        self.current[i].append(Step(before, float(r[t, i]), end == "terminated", self.now[i]))
        return self.current[i][-1]

    def kept(self, rows: int) -> list[Step]:
        """Steps that can be drawn from the newest `rows`."""
        return [step for row in self.rows[-rows:] for step in row if step is not None and not step.lost]


def slow_transition(episode: list[Step], first: int, n_step: int) -> tuple[float, float, int]:
    """Reward, discount and next observation of at most `n_step` steps of `episode`, from number `first` on."""
    total, discount = 0.0, 1.0
    for k in range(first, min(first + n_step, len(episode))):
        if episode[k].lost:
            break
        total += discount * episode[k].r
        discount *= GAMMA
        last = episode[k]
    return total, 0.0 if last.terminated else discount, last.next_obs


def check(drawn: Transitions, worlds: list[World], n_step: int) -> None:
    """Every transition is the one that the episodes say."""
    places = {(w, step.obs): (e, i) for w, x in enumerate(worlds) for e in x.episodes for i, step in enumerate(e)}
    for j in range(len(drawn.r)):
        world, obs = int(drawn.extras["world"][j]), int(drawn.obs[j, 0])
        r, discount, next_obs = slow_transition(*places[world, obs], n_step)
        assert drawn.r[j].item() == pytest.approx(r, abs=1e-5)
        assert drawn.discount[j].item() == pytest.approx(discount, abs=1e-6)
        assert drawn.next_obs[j].tolist() == [next_obs, -next_obs]
        assert drawn.obs[j].tolist() == [obs, -obs]
        assert drawn.a[j].item() == obs * 10
        assert drawn.extras["logp"][j].item() == obs / 2


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_envs=st.integers(1, 3),
    streams=st.integers(1, 3),
    rows=st.integers(4, 30),
    n_step=st.integers(1, 5),
    prioritized=st.booleans(),
)
def test_every_transition_is_one_of_the_episodes(
    seed: int, num_envs: int, streams: int, rows: int, n_step: int, prioritized: bool
) -> None:
    """Through ends, new episodes, wraps, workers replaced and fragments of all lengths, stream by stream."""
    random, draws = np.random.default_rng(seed), rng(seed)
    worlds = [World(random, num_envs) for _ in range(streams)]
    replay = make(rows * num_envs * streams, n_step, prioritized, streams)
    for _ in range(25):
        stream = int(random.integers(streams))
        world = worlds[stream]
        if random.random() < 0.15:
            world.replace_worker()
        steps = int(random.integers(1, rows + 1))
        fragment = world.fragment(steps)
        fragment.extras["world"] = np.full((steps, num_envs), stream)
        replay.add(fragment, stream)
        expected = {(i, step.obs) for i, x in enumerate(worlds) for step in x.kept(rows)}
        assert len(replay) == len(expected)
        if not expected:
            continue
        drawn = replay.sample(80, draws, beta=0.4)
        check(drawn, worlds, n_step)
        pairs = zip(drawn.extras["world"].tolist(), drawn.obs[:, 0].int().tolist(), strict=True)
        assert set(pairs) <= expected


def test_all_that_is_kept_is_drawn() -> None:
    for prioritized in (False, True):
        world, replay = World(np.random.default_rng(2), 2), make(40, 2, prioritized)
        for _ in range(9):
            replay.add(world.fragment(7))
        drawn = replay.sample(2000, rng(), beta=1.0)
        counts = np.unique(drawn.obs[:, 0].numpy(), return_counts=True)[1]
        assert set(drawn.obs[:, 0].int().tolist()) == {step.obs for step in world.kept(20)}
        # equal priorities are equal chances: of some 35 steps each comes about 57 times
        assert counts.min() > 25
        assert counts.max() < 100


def fragment(obs: list[float], terminated: list[int], valid: list[int], **columns: Any) -> Fragment:
    """One environment, its reward the number of the step."""
    steps = len(valid)
    zeros = np.zeros((steps, 1), np.bool_)
    return Fragment(
        obs=np.array(obs, np.float32)[:, None],
        a=np.zeros((steps, 1), np.int64),
        r=np.arange(1, steps + 1, dtype=np.float32)[:, None],
        terminated=np.array(terminated, np.bool_)[:, None],
        truncated=zeros,
        valid=np.array(valid, np.bool_)[:, None],
        **columns,
    )


def everything(replay: Replay, count: int = 200) -> dict[float, tuple[float, float, float]]:
    """Reward, discount and next observation of each step drawn, by its observation."""
    drawn = replay.sample(count, rng(), beta=0.5)
    columns = (drawn.obs, drawn.r, drawn.discount, drawn.next_obs)
    return {o: (round(r, 4), round(d, 4), x) for o, r, d, x in zip(*(c.tolist() for c in columns), strict=True)}


def test_windows_by_hand() -> None:
    """Two steps: the second of an episode that terminates, then one begins; the newest has one reward only."""
    replay = make(10, n_step=2)
    replay.add(fragment([0, 1, 2, 10, 11, 12], terminated=[0, 1, 0, 0, 0], valid=[1, 1, 0, 1, 1]))
    assert everything(replay) == {
        0: (1 + 0.9 * 2, 0.0, 2),
        1: (2.0, 0.0, 2),
        10: (round(4 + 0.9 * 5, 4), 0.81, 12),
        11: (5.0, 0.9, 12),
    }
    replay.add(fragment([12, 13], terminated=[0], valid=[1]))
    assert everything(replay)[11] == (round(5 + 0.9 * 1, 4), 0.81, 13)


def test_an_episode_that_begins_where_another_terminated_is_another() -> None:
    """All observations are alike, so only the flags show that a new worker began anew."""
    replay = make(10, n_step=3)
    replay.add(fragment([7, 7, 7], terminated=[0, 1], valid=[1, 1]))
    replay.add(fragment([7, 7], terminated=[0], valid=[1]))
    assert len(replay) == 2
    assert set(replay.sample(50, rng(), 0).discount.tolist()) == {float(np.float32(0.9))}  # no window of two steps


def test_a_continued_fragment_loses_nothing() -> None:
    replay = make(10)
    replay.add(fragment([0, 1, 2], terminated=[0, 1], valid=[1, 1]))
    replay.add(fragment([2, 3, 4], terminated=[0, 0], valid=[0, 1]))
    assert len(replay) == 3


def test_images_stay_bytes() -> None:
    replay, shape = make(12), (4, 2, 3, 3, 1)
    flags: dict[str, Any] = {name: np.zeros((3, 2), np.bool_) for name in ("terminated", "truncated")}
    images = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    a = np.zeros((3, 2, 2), np.float32)
    replay.add(Fragment(obs=images, a=a, r=np.ones((3, 2), np.float32), valid=np.ones((3, 2), np.bool_), **flags))
    drawn = replay.sample(5, rng(), 0).to(torch.device("cpu"))
    assert (drawn.obs.dtype, drawn.obs.shape, drawn.next_obs.shape) == (torch.uint8, (5, 3, 3, 1), (5, 3, 3, 1))
    assert drawn.a.shape == (5, 2)
    assert (drawn.r.dtype, drawn.discount.dtype, drawn.weight.dtype) == (torch.float32,) * 3


def test_a_replay_refuses_what_it_cannot_hold() -> None:
    replay = make(3)
    with pytest.raises(ValueError, match="no valid step"):
        replay.sample(1, rng(), 0)
    with pytest.raises(ValueError, match="4 steps of 1 environments does not fit a replay stream of 3 steps of 1"):
        replay.add(fragment([0, 1, 2, 3, 4], terminated=[0] * 4, valid=[1] * 4))


def test_the_whole_capacity_is_used() -> None:
    replay = make(3)
    for i in range(9):
        replay.add(fragment([i, i + 1], terminated=[0], valid=[1]))
    assert len(replay) == 3
    assert set(everything(replay)) == {6, 7, 8}


def prioritized_by_hand(alpha: float = 0.5) -> Replay:
    """Four steps of |TD error| 0, 1, 4 and 9, and one that is not valid."""
    replay = make(20, prioritized=True, alpha=alpha)
    errors = np.array([0.0, 1.0, 4.0, 9.0, 50.0])[:, None]
    replay.add(fragment([0, 1, 2, 3, 4, 5], terminated=[0] * 5, valid=[1, 1, 1, 1, 0]), priorities=errors)
    return replay


def test_priorities_decide_how_often_a_step_is_drawn() -> None:
    """Eq. 1: (p + 1e-6)^.5 is 0.001, 1, 2, 3 of 6.001."""
    drawn = prioritized_by_hand().sample(6001, rng(), beta=0.0)
    counts = np.bincount(drawn.obs.int().numpy(), minlength=5)
    assert counts.tolist() == pytest.approx(
        [1, 1000, 2000, 3000, 0], abs=2
    )  # each part of the total is drawn from once
    assert set(drawn.weight.tolist()) == {1.0}


def test_importance_weights_are_those_of_the_paper() -> None:
    """Algorithm 1, lines 9 and 10, with N the steps that can be drawn."""
    replay, beta = prioritized_by_hand(), 0.7
    drawn = replay.sample(8, rng(), beta)
    p = np.sqrt(np.array([0.0, 1.0, 4.0, 9.0]) + 1e-6)
    weights = (len(replay) * p / p.sum()) ** -beta
    chosen = weights[drawn.obs.int().numpy()]
    np.testing.assert_allclose(drawn.weight.numpy(), chosen / chosen.max(), rtol=1e-5)


def test_an_unbiased_mean_needs_the_whole_weights() -> None:
    """With beta 1 the weighted mean of anything is its plain mean."""
    replay = make(20, prioritized=True, alpha=1.0)
    errors = np.array([1.0, 2.0, 4.0, 9.0])[:, None]
    replay.add(fragment([0, 1, 2, 3, 4], terminated=[0] * 4, valid=[1] * 4), priorities=errors)
    drawn = replay.sample(20000, rng(), beta=1.0)
    assert ((drawn.weight * drawn.obs).sum() / drawn.weight.sum()).item() == pytest.approx(1.5, abs=0.02)


def test_new_steps_come_in_with_the_largest_priority_so_far() -> None:
    replay = prioritized_by_hand()
    assert replay.max_priority == pytest.approx(3.0)  # the step that is not valid does not count
    replay.add(fragment([5, 6], terminated=[0], valid=[1]))
    assert replay.tree is not None
    assert replay.tree.get(np.array([3, 4, 5])).tolist() == pytest.approx([3.0, 0.0, 3.0])


def test_steps_of_new_priorities_are_drawn_accordingly() -> None:
    replay = prioritized_by_hand()
    replay.update_priorities(np.array([0, 3, 4]), np.array([16.0, 0.0, 100.0], np.float32))
    counts = np.bincount(replay.sample(7000, rng(), 0).obs.int().numpy(), minlength=5)
    assert counts.tolist() == pytest.approx([4000, 1000, 2000, 1, 0], abs=2)
    assert replay.max_priority == pytest.approx(4.0)


def test_rows_written_over_lose_their_priority() -> None:
    replay = make(3, prioritized=True, alpha=1.0)
    replay.add(fragment([0, 1, 2], terminated=[0, 0], valid=[1, 1]), priorities=np.array([[5.0], [7.0]]))
    replay.add(fragment([2, 3, 4], terminated=[0, 0], valid=[1, 1]), priorities=np.array([[1.0], [2.0]]))
    assert replay.tree is not None
    assert replay.tree.total == pytest.approx(7.0 + 1.0 + 2.0, abs=1e-4)


def filled(prioritized: bool, worlds: list[World]) -> Replay:
    """Two streams of three, one of them past its wrap."""
    replay = make(90, 3, prioritized, streams=3)
    for stream in (0, 2, 0, 0, 0):
        replay.add(worlds[stream].fragment(6), stream)
    if prioritized:
        drawn = replay.sample(30, rng(5), 0.4)
        replay.update_priorities(drawn.index, drawn.r.abs().numpy())
    return replay


def same(first: Transitions, second: Transitions) -> bool:
    pairs = [
        (getattr(first, name), getattr(second, name)) for name in ("obs", "a", "r", "discount", "next_obs", "weight")
    ]
    return all(torch.equal(a, b) for a, b in pairs) and np.array_equal(first.index, second.index)


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_restored_replay_goes_on_as_the_first(prioritized: bool, tmp_path: Any) -> None:
    worlds = [World(np.random.default_rng(i), 2) for i in range(3)]
    replay, restored = filled(prioritized, worlds), make(90, 3, prioritized, streams=3)
    folder = checkpoint.write(tmp_path, {"replay": replay.state()}, 1, 1, {})
    restored.load(checkpoint.read(folder)[1]["replay"])
    assert len(restored) == len(replay)
    draws, again = rng(1), rng(1)
    for stream in (2, 0, 2, 1):
        assert same(replay.sample(64, draws, 0.4), restored.sample(64, again, 0.4))
        following = worlds[stream].fragment(5)
        replay.add(following, stream)
        restored.add(following, stream)
    assert same(replay.sample(64, draws, 0.4), restored.sample(64, again, 0.4))


def test_a_state_holds_no_more_than_was_written() -> None:
    replay = make(1_000_000, prioritized=True)
    replay.add(fragment([0, 1, 2], terminated=[0, 0], valid=[1, 1]))
    assert {column.shape[0] for column in replay.state()["streams"][0]["columns"].values()} == {3}
    assert json.dumps(make(10).state())  # an empty one is plain values


def test_an_empty_replay_can_be_restored() -> None:
    restored = make(10)
    restored.load(make(10).state())
    assert len(restored) == 0


def test_a_uniform_replay_becomes_prioritized_with_equal_chances() -> None:
    world, restored = World(np.random.default_rng(0), 2), make(40, prioritized=True)
    plain = make(40)
    plain.add(world.fragment(10))
    restored.load(plain.state())
    assert restored.tree is not None
    assert restored.tree.total == len(plain)


def test_a_replay_of_another_shape_is_refused() -> None:
    world, replay = World(np.random.default_rng(0), 2), make(40)
    replay.add(world.fragment(10))
    with pytest.raises(ValueError, match="1 streams of 20 steps, and this one 1 of 30"):
        make(60).load(replay.state())
    with pytest.raises(ValueError, match="1 streams of 20 steps, and this one 2 of 10"):
        make(40, streams=2).load(replay.state())


def test_the_same_state_of_the_generator_draws_the_same() -> None:
    for prioritized in (False, True):
        world, replay = World(np.random.default_rng(0), 2), make(40, 3, prioritized)
        replay.add(world.fragment(15))
        assert same(replay.sample(32, rng(4), 0.4), replay.sample(32, rng(4), 0.4))
        assert not same(replay.sample(32, rng(4), 0.4), replay.sample(32, rng(5), 0.4))


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 1024, 1025, 5000])
def test_the_sum_tree_is_a_list_of_numbers(size: int) -> None:
    random, tree, numbers = np.random.default_rng(size), SumTree(size), np.zeros(size)
    for _ in range(20):
        index = random.integers(0, size, 13)
        weights = random.random(13) * (random.random(13) < 0.7)
        tree.set(index, weights)
        for i, weight in zip(index, weights, strict=True):
            numbers[i] = weight  # where an index stands twice, the last counts
        assert tree.total == pytest.approx(numbers.sum())
        np.testing.assert_array_equal(tree.get(np.arange(size)), numbers)
        np.testing.assert_array_equal(tree.weights(), numbers)
    masses = (np.arange(500) + 0.5) / 500 * tree.total
    np.testing.assert_array_equal(tree.sample(masses), np.searchsorted(numbers.cumsum(), masses, side="right"))


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.just(0.0) | st.floats(1e-30, 1e30), min_size=1, max_size=80).filter(any),
    spread=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_no_weight_of_0_is_ever_drawn(weights: list[float], spread: list[float]) -> None:
    """However unlike the weights are, and at the very total, where rounding would lead past the last."""
    tree = SumTree(len(weights))
    tree.load(np.array(weights))
    index = tree.sample(np.array(spread) * tree.total)
    assert (tree.get(index) > 0).all()


def test_a_loaded_tree_has_the_sums_of_one_that_grew() -> None:
    random, tree, loaded = np.random.default_rng(0), SumTree(3000), SumTree(3000)
    for _ in range(50):
        tree.set(random.integers(0, 3000, 40), random.random(40))
    loaded.load(tree.weights())
    for first, second in zip(tree.levels, loaded.levels, strict=True):
        np.testing.assert_array_equal(first, second)  # to the last bit: a restored run draws the same


def test_the_sum_tree_draws_by_weight() -> None:
    tree = SumTree(100)
    tree.set(np.array([3, 40, 99]), np.array([1.0, 2.0, 5.0]))
    drawn = tree.sample(np.random.default_rng(0).random(8000) * tree.total)
    assert np.bincount(drawn, minlength=100)[[3, 40, 99]].tolist() == pytest.approx([1000, 2000, 5000], abs=150)


STACK, SIDE = 4, 6


@dataclass
class Screens:
    """Environments that show their last frames, all of them black before an episode begins; some cut, some lost."""

    random: np.random.Generator
    num_envs: int
    stacks: Array = field(init=False)
    over: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.stacks = np.zeros((self.num_envs, STACK, SIDE, SIDE), np.uint8)
        self.over = np.ones(self.num_envs, np.bool_)
        self.show()

    def show(self) -> None:
        """The next frame of each environment, or the first of an episode."""
        self.stacks = np.concatenate([self.stacks[:, 1:], self.frames()[:, None]], 1)
        self.stacks[self.over, :-1] = 0

    def frames(self) -> Array:
        return self.random.integers(0, 3, (self.num_envs, SIDE, SIDE), np.uint8)

    def fragment(self, steps: int) -> Fragment:
        if self.random.random() < 0.1:  # another worker took over
            self.over[:] = True
            self.show()
        obs, ended, valid = [self.stacks], [], []
        for _ in range(steps):
            valid.append(~self.over)
            self.over = ~self.over & (self.random.random(self.num_envs) < 0.15)
            ended.append(self.over)
            self.show() if self.random.random() < 0.97 else self.shake()
            obs.append(self.stacks)
        shape = (steps, self.num_envs)
        a, r = self.random.integers(0, 9, shape), self.random.random(shape).astype(np.float32)
        cut = np.zeros(shape, np.bool_)
        return Fragment(np.array(obs), a, r, np.array(ended) & np.array(valid), cut, np.array(valid))

    def shake(self) -> None:
        """An environment may also show what is no stack of what it showed before."""
        self.stacks = self.random.integers(0, 3, self.stacks.shape, np.uint8)


def whole(values: Array) -> ColumnSpec:
    """Each observation is kept as it is."""
    return ColumnSpec(values.shape[2:], values.dtype)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize(("steps", "capacity"), [(1, 60), (3, 60), (7, 60), (14, 60), (5, 2000)])
def test_stacks_are_put_together_again_from_single_frames(
    steps: int, capacity: int, prioritized: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many rounds of the ring, and after a restoration, draws are those of a replay that keeps stacks whole."""
    screens = [Screens(np.random.default_rng(i), 2) for i in range(2)]
    replay, other = (make(capacity, 3, prioritized, streams=2) for _ in range(2))
    draws, same_draws = rng(), rng()
    for turn in range(120):
        for stream in (0, 1) if turn % 3 else (1,):
            fragment = screens[stream].fragment(steps)
            replay.add(fragment, stream)
            with monkeypatch.context() as patched:
                patched.setattr("rltrainer.replay.buffer.spec_of", whole)
                other.add(fragment, stream)
        if turn == 60:
            before = replay.state()
            folder = checkpoint.write(tmp_path, {"replay": before}, 1, 1, {})
            replay = make(capacity, 3, prioritized, streams=2)
            replay.load(checkpoint.read(folder)[1]["replay"])
            assert equal(replay.state(), before)
        assert len(replay) == len(other)
        if len(replay):
            assert same(replay.sample(32, draws, 0.4), other.sample(32, same_draws, 0.4))
    column = replay.columns["obs"]
    assert isinstance(column, FrameStackColumn)
    assert isinstance(other.columns["obs"], HostColumn)
    assert column.frames.values.nbytes * STACK == other.columns["obs"].values.nbytes


def test_images_that_are_no_stacks_are_kept_whole() -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 2, 3, 5, 5), np.uint8)
    assert spec_of(images) == ColumnSpec((3, 5, 5), images.dtype)
    assert spec_of(images[..., 0]) == ColumnSpec((3, 5), images.dtype)
    assert spec_of(np.zeros((9, 2, 84, 84, 3), np.uint8)).depth == 0, "not that many frames"
    assert spec_of(np.zeros((9, 2, 4, 84, 84), np.float32)).depth == 0
