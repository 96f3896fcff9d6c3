"""A run's folder in storage belongs to one process, in a folder and on a real S3 server."""

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rltrainer.storage import claim
from rltrainer.storage.claim import Claim, NotOwnerError
from rltrainer.storage.s3 import S3Store
from rltrainer.storage.store import FolderStore, StorageError, Store
from tests.contract.minio import Minio

NUMBER = itertools.count()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, minio: Minio) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    return S3Store(f"s3://experiments/claims-{next(NUMBER)}", minio.endpoint)


def test_a_second_process_is_refused_until_the_first_has_ended(store: Store) -> None:
    first = claim.acquire(store, "here", attempt=0)
    with pytest.raises(NotOwnerError, match=rf"process {first.claimant.pid} on .* has .*delete .*claims/000001.json"):
        claim.acquire(store, "there", attempt=0)
    first.check()
    first.release()
    claim.acquire(store, "there", attempt=0).check()
    with pytest.raises(NotOwnerError, match="nothing more is uploaded"):
        first.check()


def test_the_next_attempt_takes_over_from_one_that_was_lost_and_none_goes_back(store: Store) -> None:
    lost = claim.acquire(store, "pod one", attempt=1)
    follower = claim.acquire(store, "pod two", attempt=2)
    with pytest.raises(NotOwnerError, match="attempt 2"):
        lost.check()
    with pytest.raises(NotOwnerError):
        claim.acquire(store, "pod one again", attempt=1)
    lost.release()
    follower.check()
    with pytest.raises(NotOwnerError):
        claim.acquire(store, "pod three", attempt=2)


def test_who_holds_the_folder_follows_on_whoever_had_it(store: Store) -> None:
    killed = claim.acquire(store, "here", attempt=0)
    follower = claim.acquire(store, "here", attempt=0)
    follower.check()
    with pytest.raises(NotOwnerError):
        killed.check()


def test_of_several_at_once_one_gets_it(store: Store) -> None:
    def attempt(number: int) -> Claim | None:
        try:
            return claim.acquire(store, f"folder {number}", attempt=0)
        except NotOwnerError:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = [each for each in threads.map(attempt, range(8)) if each is not None]
    assert len(won) == 1
    pickle.loads(pickle.dumps(won[0])).check()  # noqa: S301 - a trial's own


def test_a_claim_that_cannot_be_read_is_named(store: Store) -> None:
    store.check()
    store.create("claims/000001.json", b"{")
    with pytest.raises(StorageError, match=r"claims/000001\.json does not say whose"):
        claim.acquire(store, "here", attempt=0)
