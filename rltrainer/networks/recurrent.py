"""Recurrent layers: what a policy remembers of an episode."""

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rltrainer.core.types import State

STATE_NAMES = {"lstm": ("h", "c"), "gru": ("h",)}


class RecurrentCore(nn.Module):
    """One recurrent layer: Hochreiter and Schmidhuber 1997, doi 10.1162/neco.1997.9.8.1735, or Cho et al. 2014,
    arXiv 1406.1078."""

    def __init__(self, inputs: int, size: int, kind: Literal["lstm", "gru"]) -> None:
        super().__init__()
        self.state_names, self.size = STATE_NAMES[kind], size
        self.layer = (nn.LSTM if kind == "lstm" else nn.GRU)(inputs, size)
        for parameter in self.layer.parameters():
            if parameter.dim() > 1:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def initial_state(self, num_envs: int) -> State:
        """Return the state {name: [B, H]} of B = `num_envs` environments that begin an episode."""
        weight = next(self.parameters())
        return {name: weight.new_zeros(num_envs, self.size) for name in self.state_names}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return outputs [B, H] of inputs [B, F], and the state after them."""
        weights = self.layer.all_weights[0]
        if len(self.state_names) == 1:
            h = torch.gru_cell(x, state["h"], *weights)
            return h, {"h": h}
        h, c = torch.lstm_cell(x, (state["h"], state["c"]), *weights)
        return h, {"h": h, "c": c}

    def forward(self, x: Tensor, state: State, begins: Tensor | None = None) -> Tensor:
        """Unroll over inputs [T + 1, B, F], from the state before x[0]; return outputs [T + 1, B, H].

        The state of environment b is cleared before x[t + 1] where begins[t, b], [T, B] of bool; what begins after the
        last input is of no matter. The layer runs in one call between two steps at which any episode begins, which is
        far quicker than a call for each step.
        """
        cuts = [] if begins is None else (begins[: len(x) - 1].any(1).nonzero().squeeze(1) + 1).tolist()
        outputs = []
        for first, last in pairwise([0, *cuts, len(x)]):
            if first and begins is not None:
                goes_on = ~begins[first - 1].unsqueeze(-1)
                state = {name: value * goes_on for name, value in state.items()}
            y, state = self._unroll(x[first:last], state)
            outputs.append(y)
        return torch.cat(outputs)

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        """Within it an LSTM on a CPU computes in float32: many processors have no LSTM in bfloat16, and fail."""
        is_lstm = isinstance(self.layer, nn.LSTM)
        return torch.autocast("cpu", enabled=False) if is_lstm and x.device.type == "cpu" else nullcontext()

    def _unroll(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return outputs [L, B, H] of inputs [L, B, F] of episodes that go on, and the state after them."""
        if len(x) == 1:  # for a single step the layer's own call takes three times as long
            y, state = self.step(x[0], state)
            return y.unsqueeze(0), state
        first = [state[name].unsqueeze(0) for name in self.state_names]
        with self._precision(x):
            y, last = self.layer(x, tuple(first) if len(first) > 1 else first[0])
        last = last if len(first) > 1 else (last,)
        return y, {name: value.squeeze(0) for name, value in zip(self.state_names, last, strict=True)}
