"""RLlib's files, as their users have them, train unchanged until their stop reward."""

from pathlib import Path

import pytest

from rltrainer.api.documents import Experiment
from rltrainer.rllib_compat import translate_file
from rltrainer.runs import train

FILES = sorted((Path(__file__).parent / "rllib").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_stop_reward_is_reached(path: Path, tmp_path: Path) -> None:
    (translated,) = translate_file(path)
    document = translated.document
    document["spec"]["config"]["seed"] = 0
    result = train.run(Experiment.parse(document, where=str(path)), tmp_path)
    assert "episode_reward_mean >= " in result.stopped_by
