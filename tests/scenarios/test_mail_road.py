"""Mail from its sending to its answer, over whole nodes in virtual time: the two ends are never up together."""

from __future__ import annotations

from typing import TypeVar

import pytest
from google.protobuf.message import Message
from msgspec.structs import replace
from road_town import ANSWER_S, Town

from offgrid.v1 import jobs_pb2, mail_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_tools.sim.driver import AFTER_COMMIT, BEFORE_COMMIT
from offgrid_tools.sim.spec import Spec

ALICE = Spec("alice", frozenset({CORE, BROKER, HOST}), 1, 0)
BOX, CAROL = replace(ALICE, name="box"), replace(ALICE, name="carol", mail_jobs_from=("alice",))
AWHILE_S = 30.0
M = TypeVar("M", bound=Message)


class MailTown(Town):
    """Alice writes to Carol; the box is up all the time, and meets each of them alone."""

    def __init__(self, *specs: Spec) -> None:
        super().__init__(specs or (ALICE, BOX, CAROL))
        self.only("alice", "box")

    def only(self, *names: str) -> None:
        """These are up for a while, the others are not."""
        for name, process in self.cluster.processes.items():
            process.away = name not in names
            if process.away:
                process.crash()
            elif not process.up:
                process.start()
        self.run_for(AWHILE_S)

    def mail(self, at: str, method: str, request: Message, answer: type[M]) -> M:
        outcome = self.outcome(at, method, request)
        assert isinstance(outcome, answer), outcome
        return outcome

    def outcome(self, at: str, method: str, request: Message) -> Message | Fault:
        answers: list[Message | Fault] = []
        self[at].admin(f"offgrid.v1.MailService/{method}", request, answers.append)
        self.run_for(ANSWER_S)
        return answers[0]

    def write(self, text: str = "bring the battery", **terms: int) -> int:
        self.cluster.monitor.mail.expect(self["alice"].node_id, self["carol"].node_id, text)
        message = mail_pb2.TakeMessageRequest(data=text.encode())
        request = mail_pb2.SendMailRequest(node="carol", message=message, **terms)  # type: ignore[arg-type]
        return self.mail("alice", "SendMail", request, mail_pb2.SendMailResponse).mail.number

    def sent(self, number: int) -> mail_pb2.GetMailResponse:
        return self.mail("alice", "GetMail", mail_pb2.GetMailRequest(number=number), mail_pb2.GetMailResponse)

    def state(self, number: int) -> str:
        return mail_pb2.MailState.Name(self.sent(number).mail.state).removeprefix("MAIL_STATE_")

    def texts(self) -> list[bytes]:
        listed = self.mail("carol", "ListMessages", mail_pb2.ListMessagesRequest(), mail_pb2.ListMessagesResponse)
        wanted = (mail_pb2.ReadMessageRequest(message_id=each.message_id) for each in listed.messages)
        return [self.mail("carol", "ReadMessage", each, mail_pb2.ReadMessageResponse).data for each in wanted]

    def held(self) -> int:
        return self.mail("box", "GetMailbox", mail_pb2.GetMailboxRequest(), mail_pb2.GetMailboxResponse).count


@pytest.fixture
def town() -> MailTown:
    return MailTown()


def test_who_is_away_gets_it_from_the_box_and_the_answer_goes_back_the_same_way(town: MailTown) -> None:
    number = town.write()
    assert (town.state(number), town.held()) == ("HELD", 1)
    town.only("box", "carol")
    assert town.texts() == [b"bring the battery"]
    town.only("alice", "box")
    assert town.state(number) == "ANSWERED"
    assert town.sent(number).message.message_id.startswith("msg-")
    assert town.held() == 0


def test_the_box_carries_it_where_nobody_else_ever_meets(town: MailTown) -> None:
    """In the morning it is with Alice, in the evening with Carol."""
    number = town.write()
    town.only("box")
    town.only("box", "carol")
    town.only("carol")
    town.only("alice", "box")
    assert town.state(number) == "ANSWERED"


def test_those_who_are_both_up_need_no_box(town: MailTown) -> None:
    town.only("alice", "carol")
    number = town.write()
    assert town.state(number) == "ANSWERED"
    assert town.texts() == [b"bring the battery"]


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_messages_are_listed_as_they_came_or_the_newest_first_in_pages(town: MailTown, size: int) -> None:
    town.only("alice", "carol")
    for text in ("one", "two", "three", "four"):
        town.write(text)

    def listed(newest_first: bool) -> list[str]:
        ids, asked = [], mail_pb2.ListMessagesRequest(page_size=size, newest_first=newest_first)
        while True:
            page = town.mail("carol", "ListMessages", asked, mail_pb2.ListMessagesResponse)
            ids += [each.message_id for each in page.messages]
            if not page.next_page_token:
                return ids
            asked.page_token = page.next_page_token

    assert len(set(listed(False))) == 4
    assert listed(True) == listed(False)[::-1]


def test_the_box_learns_who_writes_to_whom_and_not_what(town: MailTown) -> None:
    town.write("bring the battery")
    store = town["box"].store
    rows = b"".join(value for table in store.tables for _, value in store.scan(table))
    assert b"battery" not in rows  # a twin's seal turns a text around (sim/crypto.py)


@pytest.mark.parametrize("moment", [BEFORE_COMMIT, AFTER_COMMIT])
@pytest.mark.parametrize("table", ["mail_seen", "mail_messages"])
def test_whoever_falls_while_it_takes_a_message_takes_it_once(town: MailTown, moment: str, table: str) -> None:
    number = town.write()
    town.falls_at(town["carol"], moment, [table])
    town.only("box", "carol")
    assert town.texts() == [b"bring the battery"]
    town.only("alice", "box")
    assert town.state(number) == "ANSWERED"


def test_a_box_that_falls_keeps_what_it_has_acked(town: MailTown) -> None:
    number = town.write()
    town["box"].crash()
    town.only("box", "carol")
    assert town.texts() == [b"bring the battery"]
    town.only("alice", "box")
    assert town.state(number) == "ANSWERED"


def test_what_nobody_takes_in_time_expires_and_its_sender_is_told(town: MailTown) -> None:
    number = town.write(expires_in_ms=60_000)
    town.run_for(150)
    assert (town.state(number), town.held()) == ("EXPIRED", 0)
    town.only("box", "carol")
    assert town.texts() == []


def test_an_answer_that_comes_after_all_is_told_as_well() -> None:
    town = MailTown()
    number = town.write(expires_in_ms=40_000)
    town.only("box", "carol")  # it is there in time, by 30 s; its answer is not
    town.only("box")
    town.only("alice")
    town.run_for(100)
    assert town.state(number) == "EXPIRED"
    town.only("alice", "box")
    assert town.state(number) == "ANSWERED"


def test_a_box_that_is_none_takes_nothing_and_the_sender_waits() -> None:
    town = MailTown(ALICE, replace(BOX, mailbox_bytes=0), CAROL)
    number = town.write()
    assert (town.state(number), town.held()) == ("WAITING", 0)
    town.only("alice", "carol")
    assert town.state(number) == "ANSWERED"


def test_a_job_for_a_core_that_is_away_is_run_once_and_its_end_is_the_answer(town: MailTown) -> None:
    payload = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="tool"), input=b"one two")
    town.cluster.monitor.jobs.expect(payload)
    job = mail_pb2.TakeJobRequest(job=jobs_pb2.JobSpec(payload=payload))
    request = mail_pb2.SendMailRequest(node="carol", job=job)
    number = town.mail("alice", "SendMail", request, mail_pb2.SendMailResponse).mail.number
    town.falls_at(town["carol"], AFTER_COMMIT, ["jobs"])
    town.only("box", "carol")
    jobs: list[Message | Fault] = []
    town["carol"].admin("offgrid.v1.JobService/ListJobs", jobs_pb2.ListJobsRequest(), jobs.append)
    town.run_for(1)
    assert isinstance(jobs[0], jobs_pb2.ListJobsResponse)
    assert len(jobs[0].jobs) == 1
    town.only("alice", "box")
    answer = town.sent(number)
    assert answer.job.job.state == jobs_pb2.JOB_STATE_COMPLETED
    assert answer.job.job.job_id == jobs[0].jobs[0].job_id


def test_request_ids_of_jobs_for_others_are_apart_from_the_owners(town: MailTown) -> None:
    town.only("alice", "carol")
    payload = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="tool"), input=b"one two")
    town.cluster.monitor.jobs.expect(payload)
    own: list[Message | Fault] = []
    create = jobs_pb2.CreateMissionRequest(title="Carol's", request_id="r-1")
    town["carol"].admin("offgrid.v1.JobService/CreateMission", create, own.append)
    town.run_for(1)
    answers: list[Message | Fault] = []
    job = mail_pb2.TakeJobRequest(job=jobs_pb2.JobSpec(payload=payload), request_id="r-1").SerializeToString()
    for _ in range(2):
        town["carol"].on_request(town["alice"].node_id, "offgrid.v1.MailService/TakeJob", job, answers.append)
    town.run_for(20)
    first, again = answers
    assert isinstance(first, mail_pb2.TakeJobResponse), first
    assert isinstance(again, mail_pb2.TakeJobResponse), again
    assert first.job.job_id == again.job.job_id


def test_a_core_runs_no_job_of_whom_it_has_not_named() -> None:
    town = MailTown(ALICE, BOX, replace(CAROL, mail_jobs_from=("dora",)))
    payload = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="tool"))
    job = mail_pb2.TakeJobRequest(job=jobs_pb2.JobSpec(payload=payload))
    request = mail_pb2.SendMailRequest(node="carol", job=job)
    number = town.mail("alice", "SendMail", request, mail_pb2.SendMailResponse).mail.number
    town.only("box", "carol")
    town.only("alice", "box")
    assert (town.state(number), town.sent(number).reason) == ("REFUSED", "NoJobsFromThere")


def test_two_of_several_boxes_are_asked() -> None:
    boxes = [replace(BOX, name=f"box-{n}") for n in range(4)]
    town = MailTown(ALICE, *boxes, CAROL)
    town.only("alice", *(box.name for box in boxes))
    number = town.write()
    town.run_for(5)
    assert len(town.sent(number).mail.mailboxes) == 2


def test_once_it_is_answered_the_boxes_drop_it() -> None:
    town = MailTown()
    number = town.write()
    town.only("alice", "carol")  # it goes the straight way
    assert town.state(number) == "ANSWERED"
    assert town.outcome("alice", "GetMail", mail_pb2.GetMailRequest(number=number))
    town.only("alice", "box")
    assert town.held() == 0


def test_sending_it_twice_under_one_request_id_sends_it_once(town: MailTown) -> None:
    message = mail_pb2.TakeMessageRequest(data=b"once")
    request = mail_pb2.SendMailRequest(node="carol", message=message, request_id="r-1")
    first, again = (town.mail("alice", "SendMail", request, mail_pb2.SendMailResponse).mail for _ in range(2))
    assert first.number == again.number
    request.message.data = b"another"
    refusal = town.outcome("alice", "SendMail", request)
    assert isinstance(refusal, Fault)
    assert refusal.reason == "RequestIdReused"
