"""Environments of odd kinds, each a few lines over one that is in order."""

import ctypes
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as S
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

INF = np.inf
F32, F16, F64, U8, I8, I64 = np.float32, np.float16, np.float64, np.uint8, np.int8, np.int64
BOOL: Any = np.bool_
HUGE = float(np.finfo(F32).max)
VECTOR = S.Box(-1, 1, (3,), F32)


class Orderly(gymnasium.Env[Any, Any]):
    """Shows a sample of its space and pays 1 a step, for 4 steps."""

    observation_space: S.Space[Any] = VECTOR
    action_space: S.Space[Any] = S.Discrete(2)
    horizon = 4
    shown: Any = None
    """What it shows instead of samples, from the step `at` on."""
    at = 0
    reward: Any = 1.0

    def __init__(self, case: str = "") -> None:
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.obs(), {}

    def obs(self) -> Any:
        return self.observation_space.sample() if self.shown is None or self.t < self.at else self.shown

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.t += 1
        return self.obs(), self.reward, self.t >= self.horizon, False, {}


CASES: dict[str, tuple[type[Orderly], str]] = {}
"""Environments by name, and a part of the sentence by which each is refused; "" for one that trains."""


def case(name: str, right: str = "", **attributes: Any) -> None:
    """Add a case: `attributes` over those of Orderly; where one is a function, it is a method."""
    CASES[name] = type(name, (Orderly,), attributes), right


def __getattr__(name: str) -> Any:
    """Return the class of a case."""
    if name not in CASES:
        raise AttributeError(name)
    return CASES[name][0]


def make(case: str, **config: Any) -> Orderly:
    """Make the environment of a case."""
    return CASES[case][0](case)


def raising(error: BaseException, at: int = 2) -> Any:
    """A step that raises `error` after so many."""

    def step(self: Any, action: Any) -> Any:
        if self.t == at:
            raise error.with_traceback(None)  # the same one, whichever test it is
        return Orderly.step(self, action)

    return step


def returning(change: Any) -> Any:
    """A step whose five values are changed."""
    return lambda self, action: change(*Orderly.step(self, action))


def failing(message: str) -> Any:
    """A method that raises RuntimeError."""

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(message)

    return fail


# actions that are taken as they are
for name, space in {
    "discrete_start": S.Discrete(3, start=-1),
    "discrete_one": S.Discrete(1, start=2),
    "multi_discrete": S.MultiDiscrete([2, 3], start=[1, -2]),
    "multi_discrete_32": S.MultiDiscrete([2, 3], dtype=np.int32),
    "multi_binary": S.MultiBinary(3),
    "multi_binary_2d": S.MultiBinary((2, 3)),
    "box": S.Box(-2.0, 5.0, (2,), F32),
    "box_64": S.Box(-2.0, 5.0, (2,), F64),
    "box_16": S.Box(-1.0, 1.0, (2,), F16),
    "box_scalar": S.Box(-2.0, 5.0, (), F32),
    "box_2d": S.Box(-2.0, 5.0, (2, 3), F32),
    "box_infinite": S.Box(-INF, INF, (2,), F32),
    "box_half_infinite": S.Box(np.array([0, -INF], F32), np.array([INF, 1], F32), dtype=F32),
    "box_huge": S.Box(-HUGE, HUGE, (2,), F32),
    "box_one_value": S.Box(np.array([1, -1], F32), np.array([1, 1], F32), dtype=F32),
    "tuple": S.Tuple((S.Discrete(3, start=1), S.Box(-1, 2, (2,), F32), S.MultiBinary(2))),
    "tuple_nested": S.Tuple((S.Tuple((S.MultiDiscrete([2, 2]), S.Discrete(2))), S.Box(-1, 2, (), F64))),
}.items():
    case("takes_" + name, action_space=space)

# actions that cannot be chosen
NO_ACTION, EMPTY = "the action space", "has no elements"
case("takes_integers", NO_ACTION, action_space=S.Box(0, 5, (2,), I64))
case("takes_table", NO_ACTION, action_space=S.MultiDiscrete(np.array([[2, 3], [4, 5]])))
case("takes_dict", NO_ACTION, action_space=S.Dict({"a": S.Discrete(2)}))
case("takes_text", NO_ACTION, action_space=S.Text(3))
case("takes_sequence", NO_ACTION, action_space=S.Sequence(S.Discrete(2)))
case("takes_one_of", NO_ACTION, action_space=S.OneOf((S.Discrete(2), S.Discrete(3))))
case("takes_empty_tuple", NO_ACTION, action_space=S.Tuple(()))
case("takes_nothing", EMPTY, action_space=S.Box(-1, 1, (0,), F32))
case("takes_no_bits", EMPTY, action_space=S.Tuple((S.Discrete(2), S.Box(-1, 1, (2, 0), F32))))

# observations that are read as they are
for name, shown in {
    "scalar": S.Box(-1, 1, (), F32),
    "half": S.Box(-1, 1, (3,), F16),
    "double": S.Box(-INF, INF, (3,), F64),
    "matrix": S.Box(-1, 1, (2, 3), F32),
    "nothing": S.Box(-1, 1, (0,), F32),
    "int8": S.Box(-100, 100, (3,), I8),
    "int64": S.Box(-5, 5, (3,), I64),
    "uint16": S.Box(0, 60000, (3,), np.uint16),
    "uint32": S.Box(0, 60000, (3,), np.uint32),
    "bytes": S.Box(0, 255, (6,), U8),
    "bool": S.Box(0, 1, (3,), BOOL),
    "discrete": S.Discrete(5, start=-2),
    "multi_discrete": S.MultiDiscrete([2, 3]),
    "bits": S.MultiBinary(4),
    "bits_2d": S.MultiBinary((2, 3)),
    "image": S.Box(0, 255, (40, 36, 3), U8),
    "image_first": S.Box(0, 255, (3, 40, 36), U8),
    "image_small": S.Box(0, 255, (7, 7, 3), U8),
    "image_float": S.Box(0, 1, (36, 36, 3), F32),
    "image_gray": S.Box(0, 255, (36, 40), U8),
    "goals": S.Dict({"observation": VECTOR, "desired_goal": S.Box(-INF, INF, (1,), F64)}),
    "tuple": S.Tuple((S.Box(-1, 1, (), F64), S.MultiBinary((2, 2)), S.MultiDiscrete([2, 3]))),
    "nested": S.Dict({"z": S.Dict({"d": S.Discrete(4, start=3)}), "a": S.Tuple((VECTOR, S.Discrete(2)))}),
}.items():
    case("shows_" + name, observation_space=shown)

# observations that no network reads
NO_OBSERVATION = "the observation space"
case("shows_table", NO_OBSERVATION, observation_space=S.MultiDiscrete(np.array([[2, 3], [4, 5]])))
case("shows_text", NO_OBSERVATION, observation_space=S.Text(5))
case("shows_sequence", NO_OBSERVATION, observation_space=S.Sequence(VECTOR))
case("shows_graph", NO_OBSERVATION, observation_space=S.Graph(VECTOR, None))
case("shows_dict_of_text", NO_OBSERVATION, observation_space=S.Dict({"a": VECTOR, "t": S.Text(4)}))
case("shows_dict_of_sequence", NO_OBSERVATION, observation_space=S.Dict({"a": VECTOR, "s": S.Sequence(VECTOR)}))

# observations that are not as their space says, and those that are in another guise
INTS, BYTES = S.Box(0, 10, (2,), I64), S.Box(0, 255, (36, 36, 3), U8)
PAIR = S.Dict({"n": INTS, "d": S.Discrete(5)})


def pair(n: Any, d: Any) -> dict[str, Any]:
    return {"n": n, "d": d}


GOOD = np.array([3, 4])
for at, when in ((0, "first"), (2, "later")):
    case(
        f"floats_for_integers_{when}",
        "of float64, where its space says int64",
        observation_space=INTS,
        shown=np.array([0.5, 2.0]),
        at=at,
    )
    case(
        f"floats_for_bytes_{when}",
        "of float64, where its space says uint8",
        observation_space=BYTES,
        shown=np.full((36, 36, 3), 0.7),
        at=at,
    )
    case(
        f"floats_in_a_part_{when}", "observation.n is", observation_space=PAIR, shown=pair(np.array([0.7, 3]), 1), at=at
    )
    case(
        f"choice_in_a_part_{when}",
        "observation.d is 5, which is not in Discrete(5)",
        observation_space=PAIR,
        shown=pair(GOOD, 5),
        at=at,
    )
    case(
        f"choice_below_{when}", "observation.d is -1, which is not", observation_space=PAIR, shown=pair(GOOD, -1), at=at
    )
    case(f"choice_{when}", "is 5, which is not in Discrete(5)", observation_space=S.Discrete(5), shown=5, at=at)
    case(
        f"choices_{when}",
        "is [1, 3], which is not in MultiDiscrete",
        observation_space=S.MultiDiscrete([2, 3]),
        shown=np.array([1, 3]),
        at=at,
    )
    case(
        f"bit_{when}",
        "is [0, 2], which is not in MultiBinary(2)",
        observation_space=S.MultiBinary(2),
        shown=np.array([0, 2]),
        at=at,
    )
    case(
        f"byte_{when}",
        "is [256], which is not in Box",
        observation_space=S.Box(0, 255, (1,), U8),
        shown=np.array([256]),
        at=at,
    )
    case(f"nan_{when}", "is NaN", shown=np.array([0, np.nan, 0], F32), at=at)
    case(f"infinite_{when}", "infinite", shown=np.array([0, INF, 0], F32), at=at)
    case(f"shape_{when}", "has shape (2,), where its space says (3,)", shown=np.zeros(2, F32), at=at)
    case(f"words_{when}", "<U5, where its space says float32", shown=np.array(["a", "b", "three"]), at=at)
    case(
        f"part_missing_{when}",
        "observation has ['n'], where its space says ['d', 'n']",
        observation_space=PAIR,
        shown={"n": GOOD},
        at=at,
    )
    case(f"no_dict_{when}", "observation has ndarray", observation_space=PAIR, shown=np.zeros(3), at=at)
case("whole_floats_for_choices", "of float64", observation_space=S.Discrete(5), shown=np.float64(2))
case("ragged", "which is no array", shown=[[1], [1, 2], 3])
case("beyond_single", "beyond single precision", observation_space=S.Box(-INF, INF, (1,), F64), shown=np.array([1e300]))
case("nothing_shown", "observation", obs=lambda self: None)
case("list", shown=[0, 1, 0.5])
case("integers_for_floats", shown=np.array([0, 1, 0]))
case("wide_integers", observation_space=S.Box(0, 255, (2,), U8), shown=np.array([0, 255]))
case("ones_for_bool", observation_space=S.Box(0, 1, (2,), np.bool_), shown=np.array([0, 1]))
case("out_of_bounds", shown=np.array([0, 7, 0], F32))
case("part_more", observation_space=PAIR, shown={**pair(GOOD, 1), "more": 3})
case("strided", observation_space=BYTES, shown=np.zeros((3, 36, 36), U8).transpose(1, 2, 0)[::-1])

# rewards
case("reward_double", reward=F64(1.5))
case("reward_integer", reward=1)
case("reward_bool", reward=np.bool_(True))
case("reward_array", reward=np.array(1.5))
case("reward_row", reward=np.array([1.5]))
case("reward_none", "None as the reward, which must be one number", reward=None)
case("reward_two", "as the reward, which must be one number", reward=np.array([1.0, 2.0]))
case("reward_text", "'1' as the reward, which must be one number", reward="1")
case("reward_nan", "a reward of environment 0 is NaN", reward=float("nan"))
case("reward_infinite", "a reward of environment 0 is NaN, infinite", reward=-INF)
case("reward_beyond_single", "beyond single precision", reward=1e39)

# ends of episodes
case("ends_at_once", horizon=1)
case("cut_at_once", step=returning(lambda o, r, d, t, i: (o, r, False, True, i)))
case("ends_both_ways", step=returning(lambda o, r, d, t, i: (o, r, d, d, i)))
case("never_ends", horizon=10**9)
case("ends_numpy", step=returning(lambda o, r, d, t, i: (o, r, np.bool_(d), np.array(t), None)))
case("ends_integer", step=returning(lambda o, r, d, t, i: (o, r, int(d), 0, {})))
case(
    "ends_none",
    "None as truncated, which must be True or False",
    step=returning(lambda o, r, d, t, i: (o, r, d, None, i)),
)
case("ends_text", "'no' as terminated, which must be", step=returning(lambda o, r, d, t, i: (o, r, "no", t, i)))
case("ends_many", "as terminated, which must be", step=returning(lambda o, r, d, t, i: (o, r, np.zeros(2, bool), t, i)))

# what steps and resets return besides
case(
    "step_of_four",
    "step() returned 4 values, where Gymnasium says 5",
    step=returning(lambda o, r, d, t, i: (o, r, d, i)),
)
case("step_of_none", "step() returned NoneType, where Gymnasium says 5", step=returning(lambda *_: None))
case("reset_of_one", "reset() returned ndarray, where Gymnasium says 2", reset=lambda self, **_: np.zeros(3, F32))
case("reset_of_old", "unexpected keyword argument 'seed'", reset=lambda self: (np.zeros(3, F32), {}))
case("info_none", step=returning(lambda o, r, d, t, i: (o, r, d, t, None)))
case("info_odd", step=returning(lambda o, r, d, t, i: (o, r, d, t, {5: object(), "episode": 3})))

# what is raised
case("raises", "ValueError: broken", step=raising(ValueError("broken")))
case("exits", "it called sys.exit(0)", step=raising(SystemExit(0)))
case("exits_silently", "it called sys.exit(None)", step=raising(SystemExit()))
case("interrupts", "KeyboardInterrupt", step=raising(KeyboardInterrupt()))
case("stops_iterating", "StopIteration", step=raising(StopIteration()))
case("panics", "Panic: of native code", step=raising(type("Panic", (BaseException,), {})("of native code")))
case(
    "speechless",
    "Speechless: it cannot say why",
    step=raising(type("Speechless", (Exception,), {"__str__": failing("")})()),
)
case("reset_raises", "RuntimeError: no license", reset=failing("no license"))
case("reset_exits", "it called sys.exit(3)", reset=lambda self, **_: sys.exit(3))
case("cannot_be_made", "RuntimeError: no display", __init__=failing("no display"))
case("made_with_exit", "it called sys.exit(0)", __init__=lambda self, case="": sys.exit(0))
case("close_raises", close=failing("the server is gone"))
case("close_exits", close=lambda self: sys.exit(0))
case(
    "state_raises",
    "failed in state_dict(): RuntimeError: cannot tell",
    state_dict=failing("cannot tell"),
    load_state_dict=failing(""),
)
case(
    "state_exits",
    "failed in state_dict(): it called sys.exit(0)",
    state_dict=lambda self: sys.exit(0),
    load_state_dict=failing(""),
)
case(
    "state_of_sets",
    ".seen is set: a checkpoint holds arrays of numbers",
    state_dict=lambda self: {"seen": {1, 2}},
    load_state_dict=failing(""),
)
case(
    "state_of_objects",
    ".seen is an array of object",
    state_dict=lambda self: {"seen": np.array([None, 1])},
    load_state_dict=failing(""),
)


class Crashes(Orderly):
    """Takes its process with it, as native code does."""

    def step(self, action: Any) -> Any:
        ctypes.string_at(0)


class ForgetsState(Orderly):
    """Cannot take its state back."""

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("u")


class OwnVector(VectorEnv[Any, Any, Any]):
    """A vector of one's own that shows `shown`, from its second step on."""

    SHOWN: dict[str, tuple[S.Space[Any], Any]] = {  # noqa: RUF012 - a table
        "floats": (INTS, np.full((2, 2), 0.5)),
        "bytes": (S.Box(0, 255, (2,), U8), np.array([[0, 1], [0, 300]])),
        "choice": (S.Discrete(3), np.array([1, 3])),
        "part": (PAIR, {"n": np.full((2, 2), 0.5), "d": np.array([0, 1])}),
        "part_choice": (PAIR, {"n": np.ones((2, 2), I64), "d": np.array([0, -1])}),
        "exit": (VECTOR, SystemExit(0)),
    }

    def __init__(self, num_envs: int, shown: str) -> None:
        space, self.shown = self.SHOWN[shown]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs, self.t = num_envs, 0
        self.single_observation_space, self.single_action_space = space, S.Discrete(2)
        self.observation_space = batch_space(space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, actions: Any) -> Any:
        self.t += 1
        if self.t == 2 and isinstance(self.shown, BaseException):
            raise self.shown
        ends = np.zeros(self.num_envs, np.bool_)
        obs = self.shown if self.t == 2 else self.observation_space.sample()
        return obs, np.ones(self.num_envs), ends, ends, {}
