// An event of the journal in one line. Both forms are read: ListEvents' and the feed's.

import { credits, short } from "../lib/format.js";

const CASES = {
  node_started: (node) => node.version,
  member: (member) => member.name,
  mission: (mission) => mission.title,
  task: (task) => task.name,
  job: (job) => [short(job.job_id), job.needs, job.error].filter(Boolean).join(" · "),
  attempt: (attempt) => [`${short(attempt.job_id)} #${attempt.attempt}`, attempt.outcome].filter(Boolean).join(" · "),
  invite: (invite) => short(invite.invite_id),
  peer: (peer) => short(peer.node_id),
  quorum: (quorum) => `${quorum.quorum_id} · ${quorum.acked_milli / 1e3} / ${quorum.required_milli / 1e3}`,
  object: (object) => [short(object.object_id), object.outcome, object.key].filter(Boolean).join(" · "),
  ledger: (ledger) => [ledger.tx_id && short(ledger.tx_id), ledger.amount_micro && credits(ledger.amount_micro), ledger.outcome].filter(Boolean).join(" · "),
  session: (session) => [session.name, session.outcome].filter(Boolean).join(" · "),
  block: (block) => `${short(block.session_id)} +${block.count}`,
  alert: (alert) => `${alert.name} ${alert.state.replace("ALERT_STATE_", "").toLowerCase()}`,
  mail: (mail) => mail.outcome,
};

const BY_TYPE = [
  ["NODE_", "node_started"], ["MEMBER_", "member"], ["INVITE_", "invite"], ["PEER_", "peer"], ["MISSION_", "mission"], ["TASK_", "task"],
  ["QUORUM_", "quorum"], ["OBJECT_", "object"], ["TX_", "ledger"], ["SETTLED", "ledger"], ["BLOCK_", "ledger"], ["HEALTH_", "alert"], ["MAIL_", "mail"],
];

// Which case of Event.data the feed's `data` is; "": none that is known here.
export function caseOf({ type, data }) {
  if (!data) return "";
  if ("object_id" in data) return "object"; // also of what an application put into the outbox, under any type
  if (type.startsWith("JOB_")) return "attempts" in data ? "job" : "attempt";
  if (type.startsWith("SESSION_")) return "count" in data ? "block" : "session";
  return BY_TYPE.find(([start]) => type.startsWith(start))?.[1] ?? "";
}

export function describe(event) {
  const name = "data" in event ? caseOf(event) : Object.keys(CASES).find((one) => event[one]);
  return name ? CASES[name](event.data ?? event[name]) : short(event.subject);
}
