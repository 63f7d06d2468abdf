"""What errors of the driver mean, and when a request is not worth beginning."""

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    CursorNotFound,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from banyan.errors import Conflict, Unavailable
from banyan.storage.mongo import translate
from banyan.storage.reach import SELECTION_SECONDS, Reach, only_duplicates


def labelled(error: PyMongoError, label: str) -> PyMongoError:
    error._add_error_label(label)
    return error


def bulk(writes: list[int] | None = None, concerns: list[int] | None = None) -> BulkWriteError:
    return BulkWriteError(
        {
            "writeErrors": [{"code": code, "errmsg": ""} for code in writes or ()],
            "writeConcernErrors": [{"code": code, "errmsg": ""} for code in concerns or ()],
        }
    )


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NotPrimaryError("not primary"),
        ServerSelectionTimeoutError("no primary"),
        CursorNotFound("gone with its primary", 43),
        WriteConcernError("operation was interrupted", 11602),
        OperationFailure("no snapshot of a majority yet", 134),
        labelled(OperationFailure("write conflict", 112), "TransientTransactionError"),
        labelled(OperationFailure("it says so itself", 1), "RetryableWriteError"),
        bulk(concerns=[11602]),
        bulk(writes=[11000], concerns=[64]),
        bulk(writes=[91, 189]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_primary_is_nothing_but_a_reason_to_try_again(error: PyMongoError) -> None:
    assert isinstance(translate(error), Unavailable)


def test_what_is_there_already_is_no_outage() -> None:
    assert isinstance(translate(bulk(writes=[11000])), Conflict)
    assert translate(OperationFailure("a defect of ours", 9_999)) is None


def test_duplicates_are_harmless_only_where_nothing_else_failed() -> None:
    assert only_duplicates(bulk(writes=[11000, 11000]))
    assert not only_duplicates(bulk(writes=[11000, 91]))
    assert not only_duplicates(bulk(writes=[11000], concerns=[64]))
    assert not only_duplicates(bulk(concerns=[64]))


def test_a_long_outage_is_told_at_once_and_a_short_one_is_waited_for() -> None:
    now = 0.0
    reach = Reach(lambda: now)
    reach.require()
    reach.found(primary=False)
    now += SELECTION_SECONDS
    reach.require()
    reach.found(primary=False)
    now += 0.1
    with pytest.raises(Unavailable, match="try again"):
        reach.require()
    reach.found(primary=True)
    reach.require()
