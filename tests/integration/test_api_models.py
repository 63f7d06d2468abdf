"""`/models` and the posting check over HTTP: who has which model, default inputs, and posts that models refuse."""

from pathlib import Path
from typing import Any

import pytest

from banyan.config import Models, Posting, ServerSettings
from banyan.queue.context import Context
from banyan.queue.submit import submit
from tests.integration.conftest import Api
from tests.support.models import SUM, write_models
from tests.support.queue import ALICE, task

Document = dict[str, Any]

X_IS_MISSING = {"model": "add: ValueError: x is missing"}


@pytest.fixture
def mode() -> str:
    """The setting `posting.check`; a class may override this fixture."""
    return "if_known"


@pytest.fixture
def settings(tmp_path: Path, mode: str) -> ServerSettings:
    """A server with a model that adds and some that are wrong."""
    path = write_models(tmp_path / "models", add=SUM, die="os._exit(1)", hang="time.sleep(1000)")
    (tmp_path / "models" / "broken.py").write_text("def task(:")
    posting = Posting.model_validate({"check": mode, "check_seconds": 10})
    return ServerSettings(models=Models(path=(path,)), posting=posting)


def total(api: Api) -> int:
    return int(api.get("/tasks").get_json()["_meta"]["total"])


def test_a_post_that_its_model_refuses_is_a_422_and_no_task_is_there(provider: Api) -> None:
    refused = provider.post("/tasks", {"model": "add", "inputs": {"y": 1}})
    assert (refused.status_code, refused.get_json()) == (422, {"_status": "ERR", "_issues": X_IS_MISSING})
    assert total(provider) == 0
    assert provider.post("/tasks", {"model": "add", "inputs": {"x": 1, "y": 1}}).status_code == 201


def test_lists_are_checked_item_by_item_and_accepted_whole_or_not_at_all(provider: Api) -> None:
    items = [{"model": "add", "inputs": {"x": 1, "y": 1}}, {"command": "true"}, {"model": "add", "inputs": {"y": 1}}]
    refused = provider.post("/tasks", [*items, {"model": "unknown here"}])
    assert refused.status_code == 422
    assert refused.get_json()["_items"] == [
        {"_status": "OK"},
        {"_status": "OK"},
        {"_status": "ERR", "_issues": X_IS_MISSING},
        {"_status": "OK"},
    ]
    assert total(provider) == 0
    assert provider.post("/tasks", items[:2]).status_code == 201


def test_a_model_that_dies_refuses_the_post(provider: Api) -> None:
    refused = provider.post("/tasks", {"model": "die"})
    fault = "die: the process that called its task ended (exit code 1)"
    assert (refused.status_code, refused.get_json()["_issues"]) == (422, {"model": fault})
    assert total(provider) == 0


def test_a_model_that_the_server_does_not_have_is_accepted_unchecked(provider: Api) -> None:
    for name in ("elsewhere", "a/b c.🌳"):
        assert provider.post("/tasks", {"model": name}).status_code == 201


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "broken.py, line 1: invalid syntax"),
        ("c.x", "'c.x' cannot be imported; rename the file to letters, digits and underscores"),
        ("my-model", "'my-model' cannot be imported; rename the file to letters, digits and underscores"),
        ("random", "another module is called 'random'; rename the file"),
        ("gone", "gone.py cannot be read: No such file or directory"),
        ("latin", "latin.py"),
        ("plant", "the directory plant has no __init__.py with a function task(spec, cancel)"),
        ("parts", "parts.py has no function task(spec, cancel) at its top level"),
        ("_hidden", "_hidden begins with an underscore, so that it is no model; rename it"),
    ],
)
def test_a_model_that_the_server_finds_and_cannot_use_refuses_the_post(
    provider: Api, admin: Api, tmp_path: Path, name: str, told: str
) -> None:
    models, text = tmp_path / "models", "def task(spec, cancel):\n    pass\n"
    for file in ("c.x", "my-model", "random", "_hidden"):
        (models / f"{file}.py").write_text(text)
    (models / "gone.py").symlink_to("nowhere")
    (models / "latin.py").write_bytes(b"task = '\xe9'\n")
    (models / "plant").mkdir()
    (models / "plant" / "main.py").write_text(text)
    (models / "parts.py").write_text("x = 1\n")
    for body in ({"model": name}, {"model": name, "inputs": {"x": 1}, "state": "available"}):
        refused = provider.post("/tasks", body)
        assert refused.status_code == 422
        assert refused.get_json()["_issues"]["model"].startswith(f"model {name!r} cannot be used on the server: {told}")
    assert total(provider) == 0
    id = provider.post("/tasks", {"model": "add", "inputs": {"x": 1, "y": 1}}).get_json()["_id"]
    assert provider.patch(f"/tasks/{id}", {"model": name}).status_code == 422
    refused = provider.post("/sweeps", {"model": name, "grid": {"x": [1, 2]}})
    assert (refused.status_code, told in refused.get_data(as_text=True)) == (422, True)
    shown = provider.get("/models").get_json()
    listed = {each["name"]: each.get("fault", "") for each in [*shown["_items"], *shown["helpers"]]}
    assert listed.get(name, told).startswith(told)
    assert (name in listed) == (name != "_hidden")


def test_a_helper_of_the_server_does_not_hide_a_workers_model_of_that_name(
    provider: Api, worker: Api, tmp_path: Path
) -> None:
    (tmp_path / "models" / "parts.py").write_text("x = 1\n")
    missing = provider.get("/models/parts")
    assert (missing.status_code, "parts.py has no function task" in missing.get_data(as_text=True)) == (404, True)
    assert provider.post("/tasks", {"model": "parts"}).status_code == 422
    worker.post("/workers", {"name": "n", "resources": {"cores": 1}, "capabilities": ["model:parts"]})
    assert provider.post("/tasks", {"model": "parts"}).status_code == 201
    assert provider.get("/models/parts").status_code == 200


def test_a_change_of_model_or_inputs_is_checked_too(provider: Api) -> None:
    id = provider.post("/tasks", {"model": "add", "inputs": {"x": 1, "y": 1}}).get_json()["_id"]
    refused = provider.patch(f"/tasks/{id}", {"inputs": {"y": 5}})
    assert (refused.status_code, refused.get_json()["_issues"]) == (422, X_IS_MISSING)
    assert provider.patch(f"/tasks/{id}", {"priority": 3}).status_code == 200
    assert provider.patch(f"/tasks/{id}", {"inputs": {"x": 2, "y": 5}, "state": "available"}).status_code == 200
    assert provider.get(f"/tasks/{id}").get_json()["inputs"] == {"x": 2, "y": 5}
    assert provider.patch(f"/tasks/{id}", {"inputs": {"y": 6}}).get_json()["_issues"] == X_IS_MISSING
    group = provider.post("/tasks", {"name": "a group"}).get_json()["_id"]
    refused = provider.patch(f"/tasks/{group}", {"model": "add", "inputs": {"y": 1}})
    assert refused.get_json()["_issues"] == X_IS_MISSING
    (first, second) = provider.patch("/tasks", [{"_id": group, "priority": 1}, {"_id": id, "inputs": {}}]).get_json()[
        "_items"
    ]
    assert (first["_status"], second["_status"]) == ("OK", "ERR")


def test_a_change_of_inputs_and_of_continuations_at_once_is_made_together(provider: Api) -> None:
    id = provider.post("/tasks", {"model": "add", "inputs": {"x": 1, "y": 1}}).get_json()["_id"]
    child = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    refused = provider.patch(f"/tasks/{id}", {"inputs": {"y": 2}, "continuations": [child]})
    assert refused.get_json()["_issues"] == X_IS_MISSING
    assert provider.get(f"/tasks/{id}").get_json()["continuations"] == []
    assert provider.patch(f"/tasks/{id}", {"inputs": {"x": 9, "y": 2}, "continuations": [child]}).status_code == 200
    shown = provider.get(f"/tasks/{id}").get_json()
    assert (shown["inputs"], shown["continuations"]) == ({"x": 9, "y": 2}, [child])


def test_only_the_named_items_of_a_submission_are_checked(context: Context) -> None:
    bad = [task(command=None, model="add", inputs={}) for _ in range(3)]
    assert len(submit(context, bad, ALICE, check=())) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "add", "command": "true"}, "model"),
        ({"inputs": {"x": 1}}, "inputs"),
        ({"command": "true", "inputs": {}}, "inputs"),
        ({"model": ""}, "model"),
        ({"model": "a\0b"}, "model"),
        ({"model": "add", "inputs": [1]}, "inputs"),
    ],
)
def test_model_and_inputs_go_together_and_with_no_command(provider: Api, body: Document, field: str) -> None:
    refused = provider.post("/tasks", body)
    assert (refused.status_code, list(refused.get_json()["_issues"])) == (422, [field])


class TestRequired:
    """`posting.check = "required"`: a task whose model the server does not have is refused."""

    @pytest.fixture
    def mode(self) -> str:
        return "required"

    def test_an_unknown_model_is_refused_with_those_that_there_are(self, provider: Api) -> None:
        refused = provider.post("/tasks", [{"model": "ad"}, {"model": "broken"}, {"command": "true"}])
        unknown, broken, command = refused.get_json()["_items"]
        assert unknown["_issues"] == {
            "model": "the server has no model 'ad' to check this task with (posting.check); "
            "did you mean 'add'? it has: add, die, hang"
        }
        assert broken["_issues"] == {
            "model": "model 'broken' cannot be used on the server: broken.py, line 1: invalid syntax"
        }
        assert command == {"_status": "OK"}
        assert provider.post("/tasks", {"model": "add", "inputs": {"x": 1, "y": 2}}).status_code == 201


class TestOff:
    """`posting.check = "off"`: nobody is asked."""

    @pytest.fixture
    def mode(self) -> str:
        return "off"

    def test_nothing_is_checked(self, provider: Api) -> None:
        assert provider.post("/tasks", {"model": "add"}).status_code == 201


def test_models_tell_who_has_them(provider: Api, worker: Api, admin: Api) -> None:
    def register(name: str, *models: Document) -> str:
        body = {"name": name, "resources": {"cores": 1}, "models": list(models)}
        body["capabilities"] = ["shell", *(f"model:{model['name']}" for model in models)]
        return str(worker.post("/workers", body).get_json()["_id"])

    two = register("two", {"name": "add"}, {"name": "plant/v2", "summary": "A plant."})
    one = register("one", {"name": "add", "summary": "Told by a worker."})
    gone = register("gone", {"name": "lost"})
    worker.delete(f"/workers/{gone}")
    admin.put("/models/none yet/defaults", {"c.x": 1})
    answer = provider.get("/models").get_json()
    assert answer["_meta"]["total"] == 6
    assert {each["name"]: each for each in answer["_items"]} == {
        "add": {
            "name": "add",
            "summary": "Model add.",
            "defaults": {},
            "workers": [{"_id": one, "name": "one"}, {"_id": two, "name": "two"}],
            "server": True,
        },
        "broken": {
            "name": "broken",
            "summary": "",
            "defaults": {},
            "workers": [],
            "server": False,
            "fault": "broken.py, line 1: invalid syntax",
        },
        "die": {"name": "die", "summary": "Model die.", "defaults": {}, "workers": [], "server": True},
        "hang": {"name": "hang", "summary": "Model hang.", "defaults": {}, "workers": [], "server": True},
        "none yet": {"name": "none yet", "summary": "", "defaults": {"c.x": 1}, "workers": [], "server": False},
        "plant/v2": {
            "name": "plant/v2",
            "summary": "A plant.",
            "defaults": {},
            "workers": [{"_id": two, "name": "two"}],
            "server": False,
        },
    }
    assert provider.get("/models/plant%2Fv2").get_json()["summary"] == "A plant."
    missing = provider.get("/models/lost")
    assert (missing.status_code, "'lost'" in missing.get_data(as_text=True)) == (404, True)
    shown = provider.get(f"/workers/{two}").get_json()["models"]
    assert shown == [{"name": "add"}, {"name": "plant/v2", "summary": "A plant."}]
    found = provider.get('/workers?where={"models.name": "plant/v2"}').get_json()["_items"]
    assert [each["_id"] for each in found] == [two]


@pytest.mark.parametrize("models", [[{"name": ""}], [{}], ["add"], [{"name": "a", "path": "/"}], {"add": 1}])
def test_a_worker_tells_its_models_in_the_form_that_there_is(worker: Api, models: object) -> None:
    refused = worker.post("/workers", {"name": "w", "resources": {}, "models": models})
    assert (refused.status_code, list(refused.get_json()["_issues"])) == (422, ["models"])


def test_default_inputs_are_laid_below_those_of_a_task_and_stored_with_it(provider: Api, admin: Api) -> None:
    defaults = {"x": 1, "y": 2, "c.z": {"$ref": "a", "$id": 1}, "": float("inf")}
    assert admin.put("/models/add/defaults", defaults).status_code == 200
    assert provider.get("/models/add").get_json()["defaults"] == defaults
    id = provider.post("/tasks", {"model": "add", "inputs": {"x": 2**40, "c.z": 0}}).get_json()["_id"]
    bare = provider.post("/tasks", {"model": "add"}).get_json()["_id"]
    admin.put("/models/add/defaults", {"x": 2**50, "y": 1})
    assert provider.get(f"/tasks/{id}").get_json()["inputs"] == {**defaults, "x": 2**40, "c.z": 0}
    assert provider.get(f"/tasks/{bare}").get_json()["inputs"] == defaults
    assert provider.post("/tasks", {"model": "add"}).status_code == 201
    assert admin.put("/models/add/defaults", {}).get_json()["defaults"] == {}
    assert provider.post("/tasks", {"model": "add"}).status_code == 422


def test_default_inputs_are_changed_by_admins_and_at_the_revision_that_they_name(provider: Api, admin: Api) -> None:
    assert provider.put("/models/add/defaults", {"x": 1}).status_code == 403
    none = admin.get("/models/add/defaults")
    assert (none.get_json(), none.headers["ETag"]) == ({}, '"none"')
    first = admin.put("/models/add/defaults", {"x": 1}, headers={"If-Match": none.headers["ETag"]})
    assert (first.status_code, first.headers["ETag"]) == (200, f'"{first.get_json()["_etag"]}"')
    stale = admin.put("/models/add/defaults", {"x": 2}, headers={"If-Match": none.headers["ETag"]})
    assert (stale.status_code, "read them again" in stale.get_data(as_text=True)) == (412, True)
    assert admin.put("/models/add/defaults", {"x": 3}, headers={"If-Match": first.headers["ETag"]}).status_code == 200
    assert admin.put("/models/add/defaults", {"x": 4}, headers={"If-Match": "*"}).status_code == 200
    assert provider.get("/models/add/defaults").get_json() == {"x": 4}


@pytest.mark.parametrize(
    ("body", "status"), [([1], 400), ({"a\0": 1}, 422), ({"x": 2**70}, 422), ({"x": "\ud800"}, 422)]
)
def test_default_inputs_that_cannot_be_kept_are_refused(admin: Api, body: object, status: int) -> None:
    assert admin.put("/models/add/defaults", body).status_code == status
    assert admin.get("/models/add/defaults").get_json() == {}
