"""/metrics: named as Prometheus wants it, about nobody, and for whoever may (`http.metrics_token`)."""

import re
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from server.config import from_tree, public_tree
from server.metrics import Metrics
from tests.live import live_server
from tests.participant import Participant

LABELS = {"state", "result", "direction", "type", "code", "reason", "route", "status", "kind", "fate", "le"}
PROCESS_LABELS = {"generation", "implementation", "major", "minor", "patchlevel", "version"}


@dataclass
class Facts:
    queued: int = 3
    written: int = 5
    failures: int = 1
    rejected: int = 2
    lost: int = 0


def test_names_follow_the_conventions():
    metrics = Metrics()
    metrics.watch_store(Facts())
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        assert family.documentation
        if family.name.startswith(("process_", "python_")):
            continue
        assert re.fullmatch(r"colloque_[a-z]+(_[a-z]+)*", family.name)
        assert not re.search(r"_(ms|milliseconds|count|total)$", family.name)
        for sample in family.samples:
            assert set(sample.labels) <= LABELS
            if family.type == "counter":
                assert sample.name == family.name + "_total"


def test_two_servers_in_one_process():
    assert Metrics().registry is not Metrics().registry


def test_store_facts_are_read_at_each_scrape():
    metrics, facts = Metrics(), Facts()
    metrics.watch_store(facts)
    assert metrics.registry.get_sample_value("colloque_store_queued") == 3
    facts.lost = 7
    assert metrics.registry.get_sample_value("colloque_store_facts_total", {"fate": "lost"}) == 7
    assert metrics.registry.get_sample_value("colloque_store_failures_total") == 1


async def scrape(live, **headers: str) -> dict[str, float]:
    async with live.api.get("/metrics", headers=headers) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_visit_is_counted(live):
    patient = await Participant.arrive(live, await live.link(await live.room(), "patient"))
    async with live.api.get("/t/clinique/r") as answer:
        await answer.read()
    async with live.api.get("/static/nothing.js") as answer:
        assert answer.status == 404
    counted = await scrape(live)
    assert counted["colloque_sockets[]"] == 1
    assert counted["colloque_rooms[]"] == 1
    assert counted["colloque_hellos_total[('result', 'welcome')]"] == 1
    assert counted["colloque_http_requests_total[('route', '/t/{tenant}/r'), ('status', '2xx')]"] == 1
    assert counted["colloque_http_requests_total[('route', '/static'), ('status', '4xx')]"] == 1
    assert counted["colloque_http_requests_total[('route', '/ws'), ('status', '1xx')]"] == 1
    assert counted["colloque_http_seconds_count[('route', '/t/{tenant}/r')]"] == 1
    assert not any("/ws" in name for name in counted if name.startswith("colloque_http_seconds")), "it stays open"
    assert counted["process_resident_memory_bytes[]"] > 0
    await patient.close()


async def test_loop_lag_is_sampled(live):
    for _ in range(200):
        if (await scrape(live))["colloque_loop_lag_seconds_count[]"] > 0:
            return
    raise AssertionError("no sample in the time of 200 requests")


async def test_a_token_is_all_it_takes():
    async with live_server(http={"metrics_token": "s3same", "public_url": "https://video.example.org"}) as live:
        assert await scrape(live, Authorization="Bearer s3same")
        for wrong in ("", "Bearer ", "Bearer s3sam", "Bearer s3sames", "s3same", "Basic s3same", "Bearer é"):
            async with live.api.get("/metrics", headers={"Authorization": wrong}) as answer:
                assert answer.status == 404, wrong


async def test_without_a_token_only_this_machine(live):
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9", "Forwarded": "for=::1", "Via": "1.1 p"}
    for name, value in forwarded.items():
        async with live.api.get("/metrics", headers={name: value}) as answer:
            assert answer.status == 404, name
    await scrape(live)


async def test_without_a_token_nobody_once_it_has_a_name():
    """Behind a proxy on the same machine everybody comes from loopback."""
    async with live_server(http={"public_url": "https://v.example.org"}) as live, live.api.get("/metrics") as answer:
        assert answer.status == 404


def test_the_token_is_not_shown():
    shown = public_tree(from_tree({"http": {"metrics_token": "s3same"}}))
    assert shown["http"]["metrics_token"] == "(set)"
