"""The page that a node serves to Prometheus: both formats parse, every metric says what it is and in which unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from offgrid_node.gateway.metrics import MetricsPage
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.meters import Meters
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, DropBlob, Execute, Machine, Stop
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mesh.founding import found_mesh
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.records import ROLES_ALL
from offgrid_node.protocol.objects.errands import Audit, Compare, Regain, Reseal, Rewrap, Ship
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.runtime import Runtime
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT, NODE = NodeKey(b"r" * 32), NodeKey(b"n" * 32)
PROMISED = {"offgrid_jobs_total", "offgrid_job_duration_seconds", "offgrid_broker_errors_total"}
# Base units, and things that are counted: a name ends with what its number is a number of.
UNITS = ("seconds", "bytes", "inputs", "peers", "jobs", "slots", "info", "total", "fds", "entries", "objects", "events",
         "parcels", "messages", "requests", "notices", "alerts")  # fmt: skip
ALERTS = ("offgrid_alert_state", "offgrid_alert_value", "offgrid_alert_threshold")  # each in its figure's own unit
YES_OR_NO = {f"offgrid_{name}" for name in ("retention_held", "summaries_failing", "sql_mirror_failing")}
CHECKS = {
    "scrub_read_bytes": 5_000, "scrub_damaged": 2, "audit_verified": 7, "audit_oldest_us": 1_700_000_000_500_000,
    "audit_wrong": 3, "audit_read_bytes": 900,
}  # fmt: skip
FACTS = NodeFacts('1"0\\\n', 12, "/data", 0.5, "inline", jobs_open=3, slots_total=4, slots_busy=1, **CHECKS)

Parse = Callable[[str], Iterator[Metric]]


class House:
    """A founded node without a network."""

    def __init__(self) -> None:
        self.store, self.meters = MemoryStore(), Meters()
        rows = found_mesh(
            "home", ROOT, NODE, identity_certificate(NODE), "hub", 5, bytes(16),
            verify=verify, check_certificate=check_identity_certificate,
        )  # fmt: skip
        self.store.commit(Batch(writes=rows))
        settings = MeshSettings(ROLES_ALL, (), (), "0.1.0")

        def build() -> dict[str, Machine]:
            mesh = MeshMachine(settings, NODE, verify, check_identity_certificate)
            objects, mail = ObjectsSettings(NODE, b"s" * 16), MailSettings(NODE, b"s" * 16)
            return {"mesh": mesh, "objects": ObjectsMachine(objects), "mail": MailMachine(mail)}

        self.runtime = Runtime(build, self.store, self, Random(5), self)
        self.runtime.turn()
        self.page = MetricsPage(self.meters, self.runtime, lambda: FACTS)
        self.meters.on_rpc("S/A", "member", 0.003, Unavailable("no", reason='odd "reason"\\'))
        self.meters.on_rpc("S/A", "member", 20.0, None)

    def now(self) -> Now:
        return Now(0, 0)

    def call(self, call: Call) -> None: ...

    def execute(self, work: Execute) -> None: ...

    def stop(self, work: Stop) -> None: ...

    def ship(self, work: Ship) -> None: ...

    def drop_blob(self, work: DropBlob) -> None: ...

    def compare(self, work: Compare) -> None: ...
    def audit(self, work: Audit) -> None: ...

    def rewrap(self, work: Rewrap) -> None: ...

    def reseal(self, work: Reseal) -> None: ...

    def regain(self, work: Regain) -> None: ...

    def families(self, accept: str, parse: Parse) -> dict[str, Metric]:
        _, body = self.page.render(accept)
        return {family.name: family for family in parse(body.decode())}


FORMS = pytest.mark.parametrize(
    ("accept", "parse"),
    [
        ("", parser.text_string_to_metric_families),
        ("application/openmetrics-text;version=1.0.0", openmetrics_parser.text_string_to_metric_families),
    ],
    ids=["prometheus", "openmetrics"],
)


@FORMS
def test_every_metric_has_help_a_type_and_ends_with_its_unit(accept: str, parse: Parse) -> None:
    families = House().families(accept, parse)
    for family in families.values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        name = f"{name}_info" if family.type == "info" else name
        assert family.documentation.endswith("."), name
        assert family.type != "unknown", name
        assert name.rpartition("_")[2] in UNITS or name in ALERTS or name in YES_OR_NO, name
        assert name.startswith(("offgrid_", "process_")), name
    named = set(families) | {f"{family.name}_total" for family in families.values() if family.type == "counter"}
    assert named >= PROMISED
    assert named >= {"offgrid_outbox_entries", "offgrid_peers", "offgrid_mailbox_bytes"}
    assert "offgrid_transfer_finality_seconds" in named


@FORMS
def test_buckets_are_cumulative_and_end_with_the_count(accept: str, parse: Parse) -> None:
    family = House().families(accept, parse)["offgrid_rpc_duration_seconds"]
    samples = {
        (sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value
        for sample in family.samples
        if sample.labels["method"] == "S/A"
    }
    buckets = [(float(le), value) for (kind, le), value in samples.items() if kind == "bucket" and le]
    assert buckets == sorted(buckets)
    assert dict(buckets)[0.0025] == 0
    assert dict(buckets)[0.005] == 1
    assert dict(buckets)[10.0] == 1
    assert dict(buckets)[float("inf")] == samples["count", None] == 2
    assert samples["sum", None] == pytest.approx(20.003)


@FORMS
def test_what_scrub_and_audits_found_is_told(accept: str, parse: Parse) -> None:
    families = House().families(accept, parse)
    told = {
        name: {sample.labels.get("by", ""): sample.value for sample in families[f"offgrid_{name}"].samples}
        for name in ("check_read_bytes", "wrong_shards", "verified_objects", "verified_oldest_timestamp_seconds")
    }
    assert told == {
        "check_read_bytes": {"scrub": 5_000, "audit": 900},
        "wrong_shards": {"scrub": 2, "audit": 3},
        "verified_objects": {"": 7},
        "verified_oldest_timestamp_seconds": {"": 1_700_000_000.5},
    }


@FORMS
def test_labels_say_what_was_said_whatever_it_was(accept: str, parse: Parse) -> None:
    families = House().families(accept, parse)
    reasons = {sample.labels["reason"] for sample in families["offgrid_rpc_errors"].samples}
    assert reasons == {'odd "reason"\\'}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/html,application/xhtml+xml;q=0.9", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5", "application/openmetrics-text"),
        ("APPLICATION/OpenMetrics-Text", "application/openmetrics-text"),
        ("application/openmetrics-text;version=abc;escaping=x", "application/openmetrics-text"),
        ("application/openmetrics-text;q=0,text/plain", "text/plain"),
        ("application/openmetrics-text;version=1.0.0;q=0.0, text/plain", "text/plain"),
        ("\x00" * 100, "text/plain"),
    ],
)  # fmt: skip
def test_openmetrics_is_for_those_who_ask_for_it(accept: str, form: str) -> None:
    content_type, body = House().page.render(accept)
    assert content_type.startswith(form)
    assert body.endswith(b"# EOF\n") is (form != "text/plain")


def test_while_the_node_loads_what_it_knows_the_rest_is_still_served() -> None:
    house = House()
    house.store.refuse(Unavailable("planted", reason="DiskError"))
    house.runtime.reload()
    house.store.refuse(None)
    families = house.families("", parser.text_string_to_metric_families)
    assert not {"offgrid_peers", "offgrid_outbox_entries"} & set(families)
    assert families["offgrid_runtime_failures"].samples[0].value == 1


def test_two_nodes_in_one_process_have_pages_of_their_own() -> None:
    first, second = House(), House()
    first.meters.on_commit(1, 0.1)
    counted = [
        house.families("", parser.text_string_to_metric_families)["offgrid_commit_inputs"].samples[-2].value
        for house in (first, second)
    ]
    assert sorted(counted) == [0, 1]
