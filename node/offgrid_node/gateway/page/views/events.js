// The journal as it is written, the newest first; and any of its events in one line.

import { html, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { clock, credits, iso, moment, num, short } from "../lib/format.js";
import { useFeed, useLive } from "../lib/live.js";
import { Badge, Empty, Loaded, Section, Table, useNames } from "../lib/parts.js";
import { t } from "../lib/words.js";

const KEPT_MAX = 1_000;
const GROUPS = { all: [""], jobs: ["JOB_", "MISSION_", "TASK_"], mesh: ["MEMBER_", "PEER_", "INVITE_", "HOST_", "NODE_"], storage: ["OBJECT_", "QUORUM_"], ledger: ["TX_", "SETTLED", "BLOCK_"], sessions: ["SESSION_"], health: ["HEALTH_"], mail: ["MAIL_"] };

export function Events() {
  const live = useLive("/v1/events?page_size=200&newest_first=true", { on: [], every: 0 });
  const [fresh, set] = useState([]);
  const [group, choose] = useState("all"), [word, type] = useState(""), [held, hold] = useState(false);
  const waiting = useRef([]), name = useNames();
  useFeed("event", (event) => {
    if (held) { waiting.current = [event, ...waiting.current].slice(0, KEPT_MAX); return; }
    set((before) => [event, ...before].slice(0, KEPT_MAX));
  });
  const go = () => { set((before) => [...waiting.current, ...before].slice(0, KEPT_MAX)); waiting.current = []; hold(false); };
  const rows = useMemo(() => {
    const seen = new Set(), wanted = word.trim().toLowerCase();
    return [...fresh, ...(live.data?.events ?? [])].filter((event) => {
      if (seen.has(event.seq) || !GROUPS[group].some((start) => event.type.startsWith(start))) return false;
      seen.add(event.seq);
      return !wanted || `${event.type} ${event.subject} ${describe(event, name)}`.toLowerCase().includes(wanted);
    }).slice(0, KEPT_MAX);
  }, [fresh, live.data, group, word]);
  return html`<h1 tabindex="-1">${t("nav.events")}</h1>
    <${Section} title=${t("events.journal")} actions=${html`
      <label class="inline">${t("events.group")} <select value=${group} onChange=${(event) => choose(event.target.value)}>${Object.keys(GROUPS).map((key) => html`<option value=${key}>${t(`events.group_${key}`)}</option>`)}</select></label>
      <label class="inline">${t("events.find")} <input type="search" value=${word} onInput=${(event) => type(event.target.value)} /></label>
      <button type="button" class="plain" aria-pressed=${held} onClick=${() => held ? go() : hold(true)}>${t(held ? "events.go_on" : "events.hold")}</button>`}>
      <${Loaded} live=${live}>${() => html`<${Table} caption=${t("events.journal")} rows=${rows} keyOf=${(event) => event.seq} tight empty=${html`<${Empty} text=${t("events.empty")} command="offgrid events" />`} columns=${[
        { head: t("events.number"), num: true, cell: (event) => num(event.seq) },
        { head: t("tx.when"), cell: (event) => html`<time datetime=${iso(event.timestamp_us)} title=${moment(event.timestamp_us)}>${clock(event.timestamp_us)}</time>` },
        { head: t("events.type"), cell: (event) => html`<${Badge} tone=${toneOf(event.type)}>${event.type}<//>` },
        { head: t("events.about"), cell: (event) => describe(event, name) },
      ]} />`}<//>
    <//>`;
}

function toneOf(type) {
  if (/FAILED|DEAD|REMOVED/.test(type)) return "bad";
  if (/COMPLETED|FINAL|ALIVE|ACKED|SETTLED/.test(type)) return "good";
  return /HEALTH|CANCELLED|DELETED/.test(type) ? "warn" : "quiet";
}

// ---- an event in one line, as GET /v1/events has it or as the feed does

const CASES = {
  node_started: (node) => node.version,
  member: (member) => member.name,
  mission: (mission) => mission.title,
  task: (task) => task.name,
  job: (job) => [short(job.job_id), job.needs, job.error].filter(Boolean).join(" · "),
  attempt: (attempt) => [`${short(attempt.job_id)} #${attempt.attempt}`, attempt.outcome].filter(Boolean).join(" · "),
  invite: (invite) => short(invite.invite_id),
  peer: (peer, name) => name(peer.node_id),
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

// `name` gives members' names by their ids.
export function describe(event, name) {
  const what = "data" in event ? caseOf(event) : Object.keys(CASES).find((one) => event[one]);
  return what ? CASES[what](event.data ?? event[what], name) : short(event.subject);
}
