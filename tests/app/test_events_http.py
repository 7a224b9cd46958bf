"""What search apps report over HTTP, and what is deleted again."""

import json
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.clicklog.store import SqlClickLog, open_click_log
from rankers.events import Event, Impression, hash_key
from rankers.types import Document
from tests.app.conftest import Serve, running
from tests.app.fakes import FakePipelines, pipeline_of

QUERY = "red green blue"
DOCUMENTS = [Document("sky", "blue"), Document("flag", "red blue"), Document("light", "red green blue")]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SALT = "a pinch"


def pipelines() -> FakePipelines:
    return FakePipelines({"find": lambda: pipeline_of(documents=DOCUMENTS, name="find")}, only_retrieve=("find",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    limits: dict[str, Any] = {"max_events": 10, "max_documents": 5, "max_query_chars": 40}
    with running(pipelines(), folder, click_log_salt=SALT, **limits) as client:
        yield client


@pytest.fixture
def log(folder: Path) -> Iterator[SqlClickLog]:
    log = open_click_log(f"sqlite:///{folder}/clicks.sqlite")
    yield log
    log.close()


def post(client: httpx.Client, path: str, body: object, *, status: int = 200) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def report(client: httpx.Client, *events: object, status: int = 200) -> Any:
    return post(client, "/v1/events", {"events": events}, status=status)


def search(client: httpx.Client, **fields: object) -> Any:
    return post(client, "/v1/search", {"query": QUERY, **fields})


def event_of(log: SqlClickLog, event_id: str) -> Event:
    return next(event for _, event in log.events() if event.id == event_id)


def test_what_was_shown_and_clicked_is_on_disk(client: httpx.Client, log: SqlClickLog) -> None:
    shown = search(client, top_k=2)
    event = {"impression_id": shown["impression_id"], "document_id": "flag", "id": uuid.uuid4().hex}
    late = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    reply = report(client, event, {**event, "id": None, "clicked_at": late.isoformat()})
    assert (reply["added"], reply["pending"]) == (2, 0)
    assert reply["ids"][0] == event["id"]
    impression = log.impression(shown["impression_id"])
    assert impression is not None
    assert impression.document_ids == ("light", "flag")
    assert (impression.query_text, impression.pipeline, impression.source) == (QUERY, "find", "served")
    click = event_of(log, reply["ids"][1])
    assert (click.document_id, click.kind, click.position, click.happened_at) == ("flag", "click", 2, late)


def test_a_search_says_for_whom_and_how_it_is_shown(client: httpx.Client, log: SqlClickLog) -> None:
    shown = search(client, session="s 1", user="ada@example.org", layout="grid:2")
    impression = log.impression(shown["impression_id"])
    assert impression is not None
    assert impression.layout == "grid:2"
    assert impression.session_key == hash_key("s 1", SALT)
    assert impression.user_key == hash_key("ada@example.org", SALT)
    plain = log.impression(search(client)["impression_id"])
    assert plain is not None
    assert (plain.layout, plain.session_key, plain.user_key) == ("list", None, None)


def test_a_search_need_not_be_logged(client: httpx.Client, log: SqlClickLog) -> None:
    before = log.status().impressions
    reply = search(client, log=False)
    assert reply["impression_id"] is None
    assert reply["meta"]["warnings"] == []
    assert log.status().impressions == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layout", "grid:1", "layout is \"grid:1\": Input should be 'list', or 'grid:COLUMNS' with 2 columns or more"),
        ("user", "", 'user is "": String should have at least 1 character'),
        ("log", "perhaps", 'log is "perhaps": Input should be a valid boolean, unable to interpret input'),
    ],
)
def test_a_bad_field_of_a_search_is_named(client: httpx.Client, field: str, value: object, message: str) -> None:
    assert post(client, "/v1/search", {"query": QUERY, field: value}, status=422)["message"] == message


def test_dwell_times_and_conversions_are_kept_with_their_value(client: httpx.Client, log: SqlClickLog) -> None:
    about = {"impression_id": search(client)["impression_id"], "document_id": "sky"}
    reply = report(
        client,
        {"type": "dwell", "seconds": 41.5, "happened_at": NOON.isoformat(), **about},
        {"type": "conversion", "value": -3, **about},
        {"type": "conversion", **about},
        {"type": "click", **about},
    )
    found = [event_of(log, event_id) for event_id in reply["ids"]]
    assert [(event.kind, event.value) for event in found] == [
        ("dwell", 41.5),
        ("conversion", -3.0),
        ("conversion", None),
        ("click", None),
    ]
    assert {event.position for event in found} == {3}
    assert found[0].happened_at == NOON


def test_an_impression_that_the_search_app_served_is_like_any_other(client: httpx.Client, log: SqlClickLog) -> None:
    sent = {
        "type": "impression",
        "id": "of-theirs",
        "query": "theirs",
        "document_ids": ["x", "y"],
        "shown_at": NOON.isoformat(),
        "pipeline": "solr",
        "model_version": "solr 9",
        "features": {"y": {"price": 3, "age": None}},
        "feature_set": "shop@3",
        "session": "s",
        "user": "u",
        "layout": "grid:3",
    }
    click = {"id": "of-theirs-1", "impression_id": "of-theirs", "document_id": "y"}
    reply = report(client, click, sent)  # in whatever order
    assert reply == {"ids": ["of-theirs-1", "of-theirs"], "added": 2, "pending": 0}
    assert log.impression("of-theirs") == Impression(
        id="of-theirs",
        query_text="theirs",
        document_ids=("x", "y"),
        pipeline="solr",
        model_version="solr 9",
        shown_at=NOON,
        features={"y": {"price": 3.0, "age": None}},
        feature_set="shop@3",
        session_key=hash_key("s", SALT),
        user_key=hash_key("u", SALT),
        layout="grid:3",
        source="reported",
    )
    assert event_of(log, "of-theirs-1").position == 2
    assert report(client, sent)["added"] == 0
    wrong = report(client, {"impression_id": "of-theirs", "document_id": "z"}, status=422)
    assert wrong["message"] == "events.0.document_id is 'z': not one of the 2 documents of impression 'of-theirs'"


def test_events_may_come_before_their_impression(client: httpx.Client, log: SqlClickLog) -> None:
    early = {"id": "early", "impression_id": "later", "document_id": "x", "position": 9}
    assert report(client, early, {**early, "id": "early-2", "position": None}) == {
        "ids": ["early", "early-2"],
        "added": 2,
        "pending": 2,
    }
    shown = {"type": "impression", "id": "later", "query": "q", "document_ids": ["x"], "shown_at": NOON.isoformat()}
    assert report(client, shown)["added"] == 1
    assert [event_of(log, name).position for name in ("early", "early-2")] == [9, None]
    # Now that the impression is known, what does not fit it is refused, and what was stored is stored once.
    wrong = report(client, early, status=422)
    assert wrong["message"] == "events.0.position is 9: document 'x' was shown at 1"
    assert report(client, {**early, "position": 1}) == {"ids": ["early"], "added": 0, "pending": 0}


def test_an_event_sent_twice_counts_once(client: httpx.Client) -> None:
    event = {"id": uuid.uuid4().hex, "impression_id": search(client)["impression_id"], "document_id": "sky"}
    assert [report(client, event, event)["added"] for _ in range(2)] == [1, 0]


def test_nothing_can_happen_to_an_impression_without_documents(client: httpx.Client) -> None:
    shown = post(client, "/v1/search", {"query": "zebra"})
    wrong = report(client, {"impression_id": shown["impression_id"], "document_id": "sky"}, status=422)
    assert "not one of the 0 documents" in wrong["message"]


def test_bad_events_name_the_field_and_store_nothing(client: httpx.Client, log: SqlClickLog) -> None:
    good = {"id": uuid.uuid4().hex, "impression_id": search(client)["impression_id"], "document_id": "sky"}
    shown = {"type": "impression", "id": "new", "query": "q", "document_ids": ["x"], "shown_at": NOON.isoformat()}
    kinds = "Input should be an object whose type is 'click', 'dwell', 'conversion' or 'impression'"
    cases: list[tuple[object, int, str]] = [
        ({**good, "document_id": "ash"}, 422, "events.1.document_id is 'ash': not one of the 3 documents"),
        ({**good, "position": 1}, 422, "events.1.position is 1: document 'sky' was shown at 3"),
        ({**good, "position": 0}, 422, "events.1.position is 0: Input should be greater than or equal to 1"),
        ({**good, "document_id": None}, 422, "events.1.document_id is null"),
        ({**good, "document_id": "a\0b"}, 422, "events.1.document_id is"),
        ({**good, "clicked_at": "2026-01-01T00:00:00"}, 422, 'events.1.clicked_at is "2026-01-01T00:00:00"'),
        ({**good, "impression_id": "x" * 600}, 422, "events.1.impression_id is"),
        ({**good, "type": "dwell"}, 422, "events.1.seconds is missing: Field required"),
        ({**good, "type": "dwell", "seconds": -1}, 422, "events.1.seconds is -1: "),
        ({**good, "type": "look"}, 422, "events.1 is {"),
        ({**good, "type": ["click"]}, 422, "events.1 is {"),
        ({**good, "type": None}, 422, "events.1 is {"),
        (7, 422, f"events.1 is 7: {kinds}"),
        ({**shown, "shown_at": None}, 422, "events.1.shown_at is null"),
        ({**shown, "layout": "spiral"}, 422, 'events.1.layout is "spiral": Input should be '),
        ({**shown, "features": {"click": {"a": "x"}}}, 422, 'events.1.features.click.a is "x": '),
        ({**shown, "features": {"y": {"a": 1}}}, 422, "events.1.features has 'y': not one of the 1 document_ids"),
        ({**shown, "document_ids": ["x", "x"]}, 422, "events.1.document_ids has a document twice"),
        ({**shown, "document_ids": list("abcdef")}, 413, "events.1.document_ids has 6 entries, the limit is 5"),
        ({**shown, "query": "q" * 41}, 413, "events.1.query has 41 characters, the limit is 40"),
    ]
    for bad, status, message in cases:
        assert report(client, good, bad, status=status)["message"].startswith(message)
    assert good["id"] not in {event.id for _, event in log.events()}
    assert report(client, status=422)["message"].startswith("events is []")
    too_many = report(client, *[good] * 11, status=413)
    assert too_many["message"] == "events has 11 entries, the limit is 10; send fewer"


def test_reports_that_share_a_commit_are_accepted_one_by_one(client: httpx.Client, log: SqlClickLog) -> None:
    shown = search(client)["impression_id"]
    replies: dict[str, int] = {}

    def send(document_id: str, name: str) -> None:
        event = {"id": name, "impression_id": shown, "document_id": document_id}
        replies[name] = httpx.post(client.base_url.join("/v1/events"), json={"events": [event]}).status_code

    threads = [threading.Thread(target=send, args=("ash" if n % 3 else "sky", f"shared-{n}")) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {f"shared-{n}": 422 if n % 3 else 200 for n in range(24)}
    stored = {event.id for _, event in log.events()}
    assert {name for name in replies if name in stored} == {f"shared-{n}" for n in range(0, 24, 3)}


def test_a_user_is_deleted_over_http(client: httpx.Client, log: SqlClickLog) -> None:
    user = "a/b c?ü"
    kept = search(client, user="another")["impression_id"]
    shown = search(client, user=user)["impression_id"]
    report(client, *({"impression_id": one, "document_id": "sky"} for one in (shown, shown, kept)))
    path = f"/v1/users/{httpx.URL('', params={'u': user}).query.decode()[2:].replace('+', '%20')}"
    assert client.delete(path).json() == {"impressions": 1, "events": 2}
    assert client.delete(path).json() == {"impressions": 0, "events": 0}
    assert log.impression(shown) is None
    assert log.impression(kept) is not None


def test_keys_are_hashed_with_a_salt_that_the_database_keeps(serve: Serve, tmp_path: Path) -> None:
    shown = [search(serve(pipelines()), user="ada")["impression_id"] for _ in range(2)]
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    found = [log.impression(one) for one in shown]
    assert {one.user_key for one in found if one} == {hash_key("ada", log.salt())}
    log.close()


def test_what_is_too_old_is_deleted_by_itself(serve: Serve, tmp_path: Path) -> None:
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    old = Impression("old", "q", ("x",), "p", "v", datetime.now(UTC) - timedelta(days=31))
    young = Impression("young", "q", ("x",), "p", "v", datetime.now(UTC) - timedelta(days=29))
    log.add_impressions([old, young])
    client = serve(pipelines(), click_log_retention_days=30)
    ends_at = datetime.now(UTC) + timedelta(seconds=20)
    while log.impression("old") is not None:
        assert datetime.now(UTC) < ends_at
    assert log.impression("young") == young
    assert client.get("/health").is_success
    log.close()


def test_a_click_log_that_is_down_is_said_so(serve: Serve) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    client = serve(pipelines(), click_log_url=nowhere, click_log_retention_days=1)
    reply = search(client)
    assert reply["impression_id"] is None
    assert "could not be logged" in reply["meta"]["warnings"][0]
    assert report(client, {"impression_id": "x", "document_id": "y"}, status=500)["error_type"] == "Backend"
    assert client.delete("/v1/users/ada").status_code == 500


def test_events_in_postgresql(serve: Serve, postgres_url: str) -> None:
    client = serve(pipelines(), click_log_url=postgres_url)
    event = {"impression_id": search(client)["impression_id"], "document_id": "sky"}
    assert report(client, event, {**event, "impression_id": "unknown"}) | {"ids": []} == {
        "ids": [],
        "added": 2,
        "pending": 1,
    }


def test_a_key_is_asked_for_where_there_are_keys(serve: Serve) -> None:
    client = serve(pipelines(), api_keys="k")
    body = json.dumps({"events": [{"impression_id": "x", "document_id": "y"}]})
    headers = {"content-type": "application/json"}
    assert client.post("/v1/events", content=body, headers=headers).status_code == 401
    assert client.delete("/v1/users/ada").status_code == 401
    assert client.post("/v1/events", content=body, headers={**headers, "api-key": "k"}).status_code == 200
