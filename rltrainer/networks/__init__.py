"""Networks: encoders of observations, and the policies and value functions made of them."""

from rltrainer.networks.actor_critic import ActorCritic, PolicyHead, PolicyNetwork, action_mask_of
from rltrainer.networks.dense import mlp
from rltrainer.networks.encoders import Encoder, is_image, observation_encoder
from rltrainer.networks.layers import ACTIVATIONS, orthogonal
from rltrainer.networks.recurrent import RecurrentCore

__all__ = [
    "ACTIVATIONS",
    "ActorCritic",
    "Encoder",
    "PolicyHead",
    "PolicyNetwork",
    "RecurrentCore",
    "action_mask_of",
    "is_image",
    "mlp",
    "observation_encoder",
    "orthogonal",
]
