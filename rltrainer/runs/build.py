"""What a document asks to be trained: an algorithm with its options, in an environment."""

from pydantic import ValidationError

from rltrainer import algorithms
from rltrainer.api.experiment import ExperimentSpec
from rltrainer.api.options import complaint
from rltrainer.envs.source import EnvSource
from rltrainer.errors import RunError
from rltrainer.sampling.worker import WorkerConfig


def worker_config(spec: ExperimentSpec) -> WorkerConfig:
    """Return what workers and a learner are built of, all but the seed. Raises RunError for what cannot be trained."""
    algorithm = algorithms.load(spec.run)
    try:
        options = algorithm.options.model_validate(spec.config)  # one's own algorithm may have defaults of its own
    except ValidationError as error:
        message = complaint(error, "spec.config", algorithm.options)
        raise RunError("InvalidOption", message, permanent=True) from None
    source = EnvSource(spec.env, spec.env_config)
    spaces = source.spaces()
    algorithm.nets(spaces, options)  # raises where the algorithm cannot act in these spaces
    return WorkerConfig(algorithm, source, spaces, options, seed=0)
