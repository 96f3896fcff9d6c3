"""Networks: encoders of observations, and the policies and value functions made of them."""

from rltrainer.networks.actor_critic import ActorCritic, PolicyHead, PolicyNetwork, mask_of
from rltrainer.networks.dense import mlp
from rltrainer.networks.encoders import Encoder, encoder, is_image
from rltrainer.networks.layers import ACTIVATIONS, orthogonal
from rltrainer.networks.recurrent import RecurrentCore

__all__ = [
    "ACTIVATIONS",
    "ActorCritic",
    "Encoder",
    "PolicyHead",
    "PolicyNetwork",
    "RecurrentCore",
    "encoder",
    "is_image",
    "mask_of",
    "mlp",
    "orthogonal",
]
