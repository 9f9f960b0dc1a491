"""The prototype's HTTP paths, replayed by curl as its users script them, on a live mesh of a core, a broker and hosts.

The broker and host-c have a shared secret, the others have none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shlex
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from live import GIVE_UP_S, eventually, run

from offgrid_node.local_mesh import LocalMesh

pytestmark = pytest.mark.xdist_group("mesh")

KEY = "a secret that all share"  # of broker and host-c, see conftest.py


ROOT = Path(__file__).parents[2]
# What fails ends the script; where there is no jq, what its lines use of it.
SHELL = """curl() { command curl -f "$@" && echo; }
command -v jq >/dev/null || jq() { python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }"""


class Answer(NamedTuple):
    code: int
    headers: str
    json: Any


def url_of(mesh: LocalMesh, node: str) -> str:
    with mesh[node].client() as client:
        return client.mesh.status().gateway


def curl(mesh: LocalMesh, node: str, line: str, body: object = None) -> Answer:
    """`curl LINE` at the gateway of that node; LINE is a path and options. A body is sent as curl's -d has it: as a
    form, if the Content-Type were to be believed."""
    path, *options = shlex.split(line)
    sent = ["-d", body if isinstance(body, str) else json.dumps(body)] if body is not None else []
    done = run(["curl", "-sS", "-i", *options, *sent, url_of(mesh, node) + path])
    assert done.code == 0, done.said
    head, _, text = done.out.partition("\n\n")
    return Answer(int(head.split()[1]), head.lower(), json.loads(text))


def signed(payload: dict[str, Any], key: str = KEY, at_s: float | None = None) -> dict[str, Any]:
    payload = payload | {"timestamp": time.time() if at_s is None else at_s}
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return payload | {"signature": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}


def refused(answer: Answer, code: int, reason: str, said: str = "") -> bool:
    error = answer.json["error"]
    assert (answer.code, error["code"], error["details"][0]["reason"]) == (code, code, reason), answer
    assert said in error["message"]
    return True


class TestTheWholeRoad:
    def test_a_mission_a_task_a_job_its_dispatch_and_its_result(self, mesh: LocalMesh) -> None:
        began = time.time()
        mission = curl(mesh, "core", "/api/missions", {"title": "First", "description": "of all"}).json
        assert (mission["title"], mission["status"], mission["id"]) == ("First", "active", mission["mission_id"])
        task = curl(mesh, "core", f"/api/missions/{mission['id']}/tasks", {"name": "count", "kind": "compute"}).json
        assert (task["name"], task["kind"], task["mission_id"]) == ("count", "compute", mission["id"])
        payload = {"command": "wc", "args": ["-w"], "input": "to be or not to be"}
        job = curl(mesh, "core", f"/api/tasks/{task['id']}/jobs", {"payload": payload, "size": "0.25"}).json
        assert (job["status"], job["kind"], job["size"], job["result"]) == ("created", "compute", 0.25, None)

        sent = curl(mesh, "core", f"/api/jobs/{job['id']}/dispatch -X POST")
        assert (sent.code, sent.json["route"], sent.json["reason"]) == (200, "offgrid", "a broker is alive")

        def ended() -> Any:
            found = curl(mesh, "core", f"/api/jobs/{job['id']}").json
            return found if found["status"] == "completed" else None

        done = eventually(ended, "the job is completed")
        result, receipt = done["result"], done["result"]["offgrid_receipt"]
        host = mesh.by_id(receipt["node_id"])
        assert result["host"] == done["quote"]["host"] == url_of(mesh, host.name)
        assert (result["ok"], result["output"], host.roles) == (True, "6\n", ("host",))
        assert receipt["metrics"]["compute_tokens_m"] == 0.25
        assert receipt["metrics"]["latency_ms"] > 0
        assert (receipt["job_id"], done["quote"]["price"] > 0) == (job["id"], True)

        event = curl(mesh, "core", f"/memory/query?limit=1&since_ts={began}").json["events"]
        assert [(each["etype"], each["type"], each["subject"]) for each in event] == [
            (10, "MISSION_CREATED", mission["id"])
        ]
        listed = curl(mesh, "core", "/api/jobs?limit=1&status=completed").json["jobs"]
        assert [each["id"] for each in listed] == [job["id"]]
        for path, name in (
            ("/api/missions?limit=1000", "missions"),
            (f"/api/missions/{mission['id']}/tasks", "tasks"),
            (f"/api/tasks/{task['id']}/jobs", "jobs"),
        ):
            found = curl(mesh, "core", path).json
            assert {mission["id"], task["id"], job["id"]} & {each["id"] for each in found[name]}, path

    def test_the_local_queue_is_the_other_way(self, mesh: LocalMesh) -> None:
        mission = curl(mesh, "core", "/api/missions", {"title": "here"}).json["id"]
        task = curl(mesh, "core", f"/api/missions/{mission}/tasks", {"name": "here"}).json["id"]
        job = curl(mesh, "core", f"/api/tasks/{task}/jobs", {"n": 5}).json
        sent = curl(mesh, "core", f"/api/jobs/{job['id']}/dispatch", {"mode": "disabled", "wait": 30}).json
        assert (sent["route"], sent["status"], sent["result"]["output"]) == ("file_queue", "completed", '{"n": 5}')
        assert sent["result"]["host"] == url_of(mesh, "core")


def test_every_line_of_the_manual_works(mesh: LocalMesh) -> None:
    """Those of docs/http.md, in one shell; an auction without a signature is refused here, and so left out."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "http.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks[0].startswith("core=http://127.0.0.1:8001 ")
    urls = {name: url_of(mesh, node) for name, node in (("core", "core"), ("broker", "broker"), ("host", "host-a"))}
    script = "\n".join([*(f"{name}={url}" for name, url in urls.items()), *blocks[1:]]).replace("our secret", KEY)
    lines = [line for line in script.splitlines() if "$broker/auction -d '" not in line]
    done = run(["bash", "-euc", "\n".join((SHELL, *lines))])
    assert done.code == 0, done.said
    said = [json.loads(line) for line in done.out.splitlines()]
    assert len(said) == script.count("curl ") - 1 - 3  # three are kept in variables
    assert sum(each.get("result") is not None for each in said) >= 2
    assert {"enabled": False, "state": "off"}.items() <= said[-6].items()


def test_the_program_of_the_manual_signs_what_a_broker_takes(mesh: LocalMesh) -> None:
    program, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "http.md").read_text("utf-8"), re.DOTALL)
    program = program.replace("http://127.0.0.1:9000", url_of(mesh, "broker")).replace("our secret", KEY)
    done = run([sys.executable, "-c", program])
    assert done.code == 0, done.said


class TestTheMarket:
    def test_an_auction_names_the_host_that_wins_and_its_quote_and_that_host_runs_the_work(
        self, mesh: LocalMesh
    ) -> None:
        job = {"job_id": "old-1", "type": "compute", "size": 0.5}
        won = curl(mesh, "broker", "/auction", signed(job))
        assert won.code == 200
        assert (won.json["ok"], won.json["job_id"], won.json["host"]) == (True, "old-1", won.json["quote"]["host"])
        assert won.json["quote"]["price"] > 0
        assert len(won.json["quotes"]) == 3
        host = mesh.by_id(won.json["quote"]["node_id"])
        assert won.json["host"] == url_of(mesh, host.name)
        work = job | {"payload": {"command": "wc", "args": ["-c"], "input": "four"}}
        ran = curl(mesh, host.name, "/run", signed(work)).json
        assert (ran["status"], ran["ok"], ran["job_id"], ran["host"]) == ("completed", True, "old-1", won.json["host"])
        assert (ran["result"]["output"], ran["offgrid_receipt"]["node_id"]) == ("4\n", host.node_id)
        again = curl(mesh, host.name, "/run", signed(work)).json
        assert again["offgrid_receipt"] == ran["offgrid_receipt"]  # one result, whoever sends it twice
        assert ran["reason"] == "it was sent to this host"
        other = curl(mesh, host.name, "/run", signed(work | {"size": 1}))
        assert refused(other, 409, "JobIdReused", "job_id 'old-1' came with other work")

    def test_work_that_no_host_can_do_is_refused_with_what_they_lack(self, mesh: LocalMesh) -> None:
        answer = curl(mesh, "broker", "/auction", signed({"job_id": "x", "type": "llm_call", "model": "nosuch"}))
        assert refused(answer, 503, "NoHostsAvailable", "host-a: does not offer llm:nosuch")
        assert "retry-after:" in answer.headers

    @pytest.mark.parametrize(
        ("change", "field"),
        [({"job_id": "a/b"}, "job_id"), ({"needs": "x" * 200}, "needs"), ({"requirements": "cores >"}, "requirements")],
    )
    def test_an_auction_for_what_is_none_is_refused(self, mesh: LocalMesh, change: dict[str, str], field: str) -> None:
        answer = curl(mesh, "broker", "/auction", signed({"job_id": "x"} | change))
        assert answer.code == 400
        assert field in answer.json["error"]["message"]

    def test_a_host_is_switched_off_and_on(self, mesh: LocalMesh) -> None:
        before = curl(mesh, "host-a", "/announce").json
        assert (before["enabled"], before["roles"], before["kinds"]) == (True, ["host"], ["compute"])
        assert before["node_id"] == mesh["host-a"].node_id
        assert before["price"] > 0
        assert before["capacity"]["slots"] >= 1
        assert before["grpc"] in before["addresses"]
        off = curl(mesh, "host-a", "/toggle -X POST").json
        try:
            assert (off["enabled"], off["state"]) == (False, "off")
            assert curl(mesh, "host-a", "/toggle", {"enabled": False}).json["enabled"] is False
            assert curl(mesh, "host-a", "/announce").json["enabled"] is False
            assert refused(curl(mesh, "host-a", "/run", {"job_id": "y"}), 503, "HostOff", "/toggle")
        finally:
            on = curl(mesh, "host-a", "/toggle", {"enabled": "true"}).json
        assert (on["enabled"], on["state"]) == (True, "on")

    @pytest.mark.parametrize(
        ("node", "path", "role"),
        [("core", "/auction", "Broker"), ("core", "/run", "Host"), ("broker", "/toggle", "Host")],
    )
    def test_a_role_that_the_node_has_not_is_named(self, mesh: LocalMesh, node: str, path: str, role: str) -> None:
        assert refused(curl(mesh, node, path, {"enabled": True}), 409, f"NotA{role}", role.lower())


def test_a_session_s_events_are_asked_for_by_its_name(mesh: LocalMesh) -> None:
    with mesh["core"].client() as client:
        session = client.sessions.open("old paths")
        for frame in range(3):
            session.record("health.heartbeat", {"uptime_s": frame}, frame=frame)
        session.flush()
    found = curl(mesh, "core", "/memory/query?session=old%20paths&etype=30&order=newest&limit=2").json["events"]
    assert [(each["type"], each["frame_id"], each["data"]) for each in found] == [
        ("health.heartbeat", 2, {"uptime_s": 2}),
        ("health.heartbeat", 1, {"uptime_s": 1}),
    ]
    assert curl(mesh, "core", "/memory/query?session=old%20paths&type=user.prompt").json["events"] == []


def test_each_node_says_how_it_is(mesh: LocalMesh) -> None:
    for name, node in mesh.nodes.items():
        said = curl(mesh, name, "/status").json
        assert (said["name"], said["node_id"], tuple(said["roles"])) == (name, node.node_id, node.roles)
        assert said["peers"]["total"] == len(mesh.nodes)


JOB = {"job_id": "s-1", "type": "compute", "size": 0.1}


class TestTheSharedSecret:
    def test_machines_that_do_not_sign_are_told_so(self, mesh: LocalMesh) -> None:
        for node, path in (("broker", "/auction"), ("host-c", "/run")):
            answer = curl(mesh, node, path, JOB)
            assert refused(answer, 401, "SignatureMissing", "HMAC-SHA256")
            assert "www-authenticate:" in answer.headers
        assert curl(mesh, "host-c", "/status").code == 200

    def test_a_request_counts_for_five_minutes(self, mesh: LocalMesh) -> None:
        now = time.time()
        assert curl(mesh, "broker", "/auction", signed(JOB, at_s=now - 290)).code == 200
        assert curl(mesh, "broker", "/auction", signed(JOB, at_s=now + 290)).code == 200
        late, early = signed(JOB, at_s=now - 310), signed(JOB, at_s=now + 310)
        assert refused(curl(mesh, "broker", "/auction", late), 401, "SignatureExpired", "s behind this node's clock")
        assert refused(curl(mesh, "broker", "/auction", early), 401, "SignatureExpired", "s ahead of")

    def test_a_replay_is_refused_also_by_the_node_that_has_started_again(self, mesh: LocalMesh) -> None:
        body = signed(JOB | {"payload": {"n": 1}})
        assert curl(mesh, "host-c", "/run", body).json["status"] == "completed"
        assert refused(curl(mesh, "host-c", "/run", body), 401, "SignatureReplayed")
        host = mesh["host-c"]
        host.kill()
        host.run("run")
        host.wait_ready()
        assert refused(curl(mesh, "host-c", "/run", body), 401, "SignatureReplayed")
        mesh.wait_alive()
        mesh.wait_offers(3)

    @pytest.mark.parametrize(("key", "changed"), [("another", {}), (KEY, {"size": 99}), (KEY, {"signature": "no"})])
    def test_what_was_signed_otherwise_is_refused(self, mesh: LocalMesh, key: str, changed: dict[str, Any]) -> None:
        body = signed(JOB, key) | changed
        assert refused(curl(mesh, "host-c", "/run", body), 401, "SignatureInvalid")
        assert refused(
            curl(mesh, "host-c", "/toggle", body), 401, "SignatureInvalid"
        )  # a wrong one is never passed over

    def test_what_names_its_node_is_of_no_use_at_another(self, mesh: LocalMesh) -> None:
        """Who reads along can send a body once to each node that has the secret, unless it says which is meant."""
        host_c = curl(mesh, "host-c", "/announce").json["node_id"]
        bound = signed(JOB | {"job_id": "s-3", "signed_node": host_c, "signed_path": "/run"})
        assert refused(curl(mesh, "broker", "/auction", bound), 401, "SignatureMisplaced", "signed_")
        assert refused(curl(mesh, "host-c", "/toggle", bound), 401, "SignatureMisplaced", "/run")
        assert curl(mesh, "host-c", "/run", bound).json["status"] == "completed"
        loose = signed(JOB | {"job_id": "s-4"})
        assert [curl(mesh, node, path, loose).code for node, path in (("broker", "/auction"), ("host-c", "/run"))] == [
            200,
            200,
        ]

    def test_as_openssl_signs_in_a_shell(self, mesh: LocalMesh) -> None:
        """The line of docs/http.md."""
        script = f"""
        body='{{"job_id":"s-2","size":0.1,"timestamp":'$(date +%s)',"type":"compute"}}'
        mac=$(printf %s "$body" | openssl dgst -sha256 -hmac "{KEY}" -r | cut -d" " -f1)
        printf %s "${{body%?}},\\"signature\\":\\"$mac\\"}}"
        """
        body = run(["sh", "-c", script]).out
        assert curl(mesh, "broker", "/auction", body).code == 200


WORDS = "title name kind payload size timeout priority requirements mode wait enabled state command input wasm prompt"
VALUES: tuple[object, ...] = (
    "",
    "x",
    "compute",
    "drop",
    -1,
    1e308,
    10**40,
    True,
    None,
    [],
    {},
    ["a"],
    "\0",
    "memory_mb >=",
)
QUERY = "limit page_token status etype type since_ts until_ts order session subject"


def test_nothing_that_is_sent_is_a_defect_of_the_node(mesh: LocalMesh) -> None:
    rng, address = Random(7), urlsplit(url_of(mesh, "core")).netloc
    mission = curl(mesh, "core", "/api/missions", {"title": "any"}).json["id"]
    task = curl(mesh, "core", f"/api/missions/{mission}/tasks", {"name": "any"}).json["id"]
    posts = [
        "/api/missions",
        f"/api/missions/{mission}/tasks",
        f"/api/tasks/{task}/jobs",
        "/toggle",
        "/run",
        "/auction",
    ]
    gets = ["/api/missions", "/api/jobs", f"/api/tasks/{task}/jobs", "/memory/query"]
    connection = HTTPConnection(address, timeout=GIVE_UP_S)
    for _ in range(200):
        fields = {word: rng.choice(VALUES) for word in rng.sample(WORDS.split(), 4)}
        asked = {word: str(rng.choice(VALUES)) for word in rng.sample(QUERY.split(), 2)}
        get = f"{rng.choice(gets)}?{urlencode(asked)}"
        if rng.random() < 0.5:
            connection.request("GET", get)
        else:
            connection.request("POST", rng.choice(posts), json.dumps(fields | {"payload": fields}))
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status in (200, 400, 404, 409), (get, fields, said)
    connection.close()


@pytest.mark.parametrize(
    ("line", "body", "code", "said"),
    [
        ("/api/missions", "{}", 400, "title"),
        ("/api/missions", "{", 400, "JSON"),
        ("/api/missions", '{"title": "\\ud800"}', 400, "surrogate"),
        ("/api/missions/m-nosuch", None, 404, "m-nosuch"),
        ("/api/missions/m-nosuch/tasks", None, 404, "m-nosuch"),
        ("/api/missions/m-nosuch/tasks", '{"name": "t"}', 404, "m-nosuch"),
        ("/api/tasks/t-nosuch/jobs", "{}", 404, "t-nosuch"),
        ("/api/jobs/j-nosuch", None, 404, "j-nosuch"),
        ("/api/jobs/j-nosuch/dispatch -X POST", None, 404, "j-nosuch"),
        ("/api/jobs/j-nosuch/dispatch", '{"mode": "fast"}', 400, "auto, offgrid, disabled"),
        ("/api/jobs?status=done", None, 400, "completed"),
        ("/memory/query?limit=0", None, 400, "limit"),
        ("/memory/query?since_ts=soon", None, 400, "ISO 8601"),
        ("/memory/query?etype=JOB_CREATE", None, 400, "did you mean JOB_CREATED? /docs/reference/events lists them"),
        ("/memory/query?order=foo", None, 400, "oldest, newest"),
        ("/memory/query?session=nosuch", None, 404, "nosuch"),
        ("/api/missions -X DELETE", None, 405, "POST"),
    ],
)
def test_what_is_wrong_is_said_and_never_a_500(
    mesh: LocalMesh, line: str, body: str | None, code: int, said: str
) -> None:
    answer = curl(mesh, "core", line, body)
    assert answer.code == code
    assert said in answer.json["error"]["message"]
