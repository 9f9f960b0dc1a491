// What happened: the node's journal as it is written, and what applications recorded, at any time and as a chart.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { useFeed, useLive, usePages, useSettled } from "../lib/live.js";
import { get, query, seg, textOf } from "../lib/node.js";
import { Badge, Empty, Facts, Id, Loaded, Problem, Section, Table, useNames, When } from "../lib/parts.js";
import { bytes, clock, credits, fieldOf, iso, moment, num, plain, prefs, short, stamp, t, tick, usOf } from "../lib/reader.js";

const FRESH_MAX = 1_000; // of the events that came while one looks
const FOUND = 100, PAGES = 50; // a look reads on until so many fit, or so many pages were read
// By the numbers of their types, as the node is asked for them.
const GROUPS = { all: [], jobs: [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], mesh: [1, 2, 3, 4, 5, 6, 7, 8, 33], storage: [22, 23, 24, 25, 26], ledger: [9, 27, 28, 29], sessions: [30], health: [31], mail: [32] };
const NOTHING = { rows: [], token: "", read: 0, over: false, busy: true, error: null };

// The events of the journal that fit, the newest first: {rows, read: how many were looked at, over: all, busy, error, older()}.
function useJournal(etypes, word, until, fits) {
  const [state, set] = useState(NOTHING), look = useRef(null);
  const on = async (from) => {
    const mine = look.current = {}, found = from.rows.length + FOUND;
    let now = { ...from, busy: true, error: null };
    set(now);
    try {
      for (let page = 0; page < PAGES && now.rows.length < found && !now.over; page += 1) {
        const { events, next_page_token: token } = await get(query("/v1/events", { page_size: word ? 1_000 : 200, newest_first: true, etypes, until_us: until || undefined, page_token: now.token }));
        if (look.current !== mine) return;
        set(now = { ...now, rows: [...now.rows, ...events.filter(fits)], token, read: now.read + events.length, over: !token });
      }
      set({ ...now, busy: false });
    } catch (error) { if (look.current === mine) set({ ...now, busy: false, error }); }
  };
  useEffect(() => {
    const timer = setTimeout(() => on(NOTHING), word ? 250 : 0);
    return () => { clearTimeout(timer); look.current = null; };
  }, [etypes, word, until]);
  return { ...state, on, older: () => on(state) };
}

export function Events() {
  const [fresh, set] = useState([]);
  const [group, choose] = useState("all"), [typed, type] = useState(""), [held, hold] = useState(false), [until, travel] = useState(0);
  const waiting = useRef([]), name = useNames(), word = typed.trim().toLowerCase();
  const fits = (event) => (group === "all" || GROUPS[group].includes(event.etype)) && (!word || `${event.type} ${event.subject} ${describe(event, name)}`.toLowerCase().includes(word));
  const journal = useJournal(GROUPS[group], word, until, fits);
  useFeed("sync", (told) => { // what was before it counts no more
    if (told.some(({ type }) => type === "state.sync")) { set([]); journal.on(NOTHING); }
  });
  useFeed("event", (events) => {
    const newest = events.reverse();
    if (held) { waiting.current = [...newest, ...waiting.current].slice(0, FRESH_MAX); return; }
    set((before) => [...newest, ...before].slice(0, FRESH_MAX));
  });
  const go = () => { set((before) => [...waiting.current, ...before].slice(0, FRESH_MAX)); waiting.current = []; hold(false); };
  const rows = useMemo(() => {
    const known = new Set(journal.rows.map((event) => event.seq));
    return until ? journal.rows : [...fresh.filter((event) => !known.has(event.seq) && fits(event)), ...journal.rows];
  }, [fresh, journal.rows, group, word, until]);
  return html`<h1 tabindex="-1">${t("nav.events")}</h1>
    <${Section} title=${t("events.journal")} actions=${html`
      <label class="inline">${t("events.group")} <select value=${group} onChange=${(event) => choose(event.target.value)}>${Object.keys(GROUPS).map((key) => html`<option value=${key}>${t(`events.group_${key}`)}</option>`)}</select></label>
      <label class="inline">${t("events.find")} <input type="search" value=${typed} onInput=${(event) => type(event.target.value)} /></label>
      <${AsOf} us=${until} choose=${travel} />
      <button type="button" class="plain" aria-pressed=${held} onClick=${() => held ? go() : hold(true)}>${t(held ? "events.go_on" : "events.hold")}</button>`}>
      ${until > 0 && html`<p class="notice">${t("events.past", { time: moment(until) })} <button type="button" class="plain small" onClick=${() => travel(0)}>${t("travel.now")}</button></p>`}
      <${Table} caption=${t("events.journal")} rows=${rows} keyOf=${(event) => event.seq} tight more=${journal.over ? null : journal.older} busy=${journal.busy}
        empty=${html`<${Empty} text=${t("events.empty")} command="offgrid events" />`} columns=${[
        { head: t("tx.when"), cell: (event) => html`<time datetime=${iso(event.timestamp_us)} title=${moment(event.timestamp_us)}>${stamp(event.timestamp_us)}</time>` },
        { head: t("events.type"), bare: true, cell: (event) => html`<${Badge} tone=${toneOf(event.type)}>${event.type}<//>` },
        { head: t("events.about"), bare: true, cell: (event) => html`<details><summary>${describe(event, name)}</summary><pre tabindex="0">${inFull(event)}</pre></details>` },
        { head: t("events.number"), num: true, wide: true, cell: (event) => num(event.seq) },
      ]} />
      <${Problem} error=${journal.error} />
      ${!journal.over && html`<p class="hint">${t("events.read", { n: journal.read })}</p>`}
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
  alert: (alert) => `${t(`figures.${alert.name}`)} · ${plain(alert.state).toLowerCase()}`,
  mail: (mail, name) => [`${name(mail.source)} → ${name(mail.destination)}`, mail.outcome].join(" · "),
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

const inFull = (event) => { const what = Object.keys(CASES).find((one) => event[one]); return JSON.stringify(event.data ?? event[what] ?? {}, null, 2); };

// ---- sessions of applications

const SERIES_MAX = 6, HEIGHT = 240;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
const ASK_AFTER_MS = 150;
const pretty = (value) => { try { return JSON.stringify(JSON.parse(value), null, 2); } catch { return value; } };

export function Sessions() {
  const live = usePages("/v1/sessions", { field: "sessions", on: ["SESSION_"], every: 15_000 });
  return html`<h1 tabindex="-1">${t("nav.sessions")}</h1><${Section} title=${t("sessions.list")} hint=${t("sessions.hint")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("sessions.list")} rows=${live.rows} keyOf=${(session) => session.session_id} more=${live.more} busy=${live.busy} empty=${html`<${Empty} text=${t("sessions.empty")} command="offgrid state sessions" />`} columns=${[
      { head: t("node.name"), cell: (session) => html`<a href=${`#/sessions/${encodeURIComponent(session.session_id)}`}>${session.name}</a>` },
      { head: t("jobs.state"), cell: (session) => html`<${Badge} tone=${session.purged_us ? "bad" : session.ended_us ? "quiet" : "good"}>${t(session.purged_us ? "session.purged" : session.ended_us ? "session.ended" : "session.open")}<//>` },
      { head: t("session.events"), num: true, cell: (session) => num(session.recorded) },
      { head: t("storage.size"), num: true, wide: true, cell: (session) => bytes(session.bytes) },
      { head: t("session.newest"), cell: (session) => html`<${When} us=${session.newest_us} />` },
    ]} />`}<//><//>`;
}

export function Session({ part }) {
  const path = `/v1/sessions/${seg(part)}`;
  const live = useLive(path, { on: ["SESSION_"], every: 10_000 });
  const session = live.data?.session;
  const [until, travel] = useState(0), [number, move] = useState(0); // 0: now, and all of them, also those to come
  return html`<p class="crumb"><a href="#/sessions">${t("nav.sessions")}</a></p><h1 tabindex="-1">${session?.name ?? part}</h1>
    <${Loaded} live=${live}>${() => html`<${Section} title=${t("session.facts")}><${Facts} rows=${[
        [t("session.started"), moment(session.started_us)],
        [t("session.ended_at"), session.ended_us ? moment(session.ended_us) : t("session.open")],
        [t("session.events"), t("session.kept", { recorded: session.recorded, kept: session.kept })],
        [t("session.kinds"), Object.entries(session.kinds).map(([kind, count]) => html`<code class="chip">${kind} ${num(count)}</code>`)],
        Object.keys(session.dropped).length > 0 && [t("session.dropped"), Object.entries(session.dropped).map(([kind, count]) => `${kind} ${num(count)}`).join(", ")],
        [t("node.id"), html`<${Id} id=${session.session_id} />`],
      ]} /><//>
      ${session.purged_us ? html`<${Empty} text=${t("session.purged_text")} />` : session.recorded ? html`<${TimeTravel} path=${path} session=${session} until=${until} travel=${travel} number=${number} move=${move} /><${Records} path=${path} session=${session} until=${until} number=${number} />` : html`<${Empty} text=${t("session.nothing")} />`}`}<//>`;
}

// What the events up to a number, or of a time in microseconds, came to.
function TimeTravel({ path, session, until, travel, number, move }) {
  const [state, set] = useState({ data: null, error: null });
  const newest = number || session.recorded;
  useEffect(() => {
    let over = false;
    const timer = setTimeout(async () => {
      try { const data = await get(query(`${path}/state`, until ? { at_us: until } : { number: number || undefined })); if (!over) set({ data, error: null }); } catch (error) { if (!over) set((before) => ({ ...before, error })); }
    }, ASK_AFTER_MS);
    return () => { over = true; clearTimeout(timer); };
  }, [path, newest, until]);
  const at = until ? Number(state.data?.number ?? 0) : newest;
  const goTo = (chosen) => { travel(0); move(chosen === session.recorded ? 0 : chosen); };
  return html`<${Section} title=${t("travel.title")} hint=${t("travel.hint")}>
    <div class="travel"><label for="travel">${t("travel.number", { number: at, of: session.recorded })}</label>
      <input id="travel" type="range" min="1" max=${session.recorded} value=${at} onInput=${(event) => goTo(Number(event.target.value))} />
      <${AsOf} us=${until} choose=${(us) => { move(0); travel(us); }} />
      <button type="button" class="plain small" disabled=${!number && !until} onClick=${() => goTo(session.recorded)}>${t("travel.now")}</button></div>
    <${Problem} error=${state.error} /><pre tabindex="0" data-test="state">${state.data ? pretty(textOf(state.data.state)) : ""}</pre>
  <//>`;
}

// A field for a time of the past, in the zone that the reader chose; 0 where it is empty.
function AsOf({ us, choose }) {
  return html`<label class="inline">${t("travel.as_of")} <input type="datetime-local" step="1" value=${us ? fieldOf(us) : ""} max=${fieldOf(Date.now() * 1_000)} onChange=${(event) => choose(usOf(event.target.value))} /></label>`;
}

function Records({ path, session, until, number }) {
  const [kind, choose] = useState(""), last = useSettled(number);
  const live = usePages(query(`${path}/records`, { newest_first: true, kinds: kind, until_us: until || undefined, until_number: last || undefined }), { field: "records", size: 200, on: ["SESSION_"], every: session.ended_us ? 0 : 5_000 });
  const rows = live.rows.map((record) => ({ ...record, text: textOf(record.data) }));
  const chart = seriesOf(rows);
  return html`${chart.names.length > 0 && html`<${Section} title=${t("chart.title")} hint=${t("chart.hint", { n: rows.length })}><${Chart} series=${chart} /><//>`}
    <${Section} title=${t("session.records")} actions=${html`<label class="inline">${t("session.kind")} <select value=${kind} onChange=${(event) => choose(event.target.value)}><option value="">${t("session.every_kind")}</option>${Object.keys(session.kinds).map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`}>
    <${Loaded} live=${live}>${() => html`<${Table} caption=${t("session.records")} tight rows=${rows} keyOf=${(record) => record.number} more=${live.more} busy=${live.busy} columns=${[
      { head: t("tx.when"), cell: (record) => html`<time datetime=${iso(record.timestamp_us)} title=${moment(record.timestamp_us)}>${stamp(record.timestamp_us)}</time>` },
      { head: t("session.kind"), bare: true, cell: (record) => html`<code>${record.kind}</code>` },
      { head: t("session.data"), bare: true, cell: (record) => html`<code class="wrap">${record.text.slice(0, 400)}</code>` },
      { head: t("events.number"), num: true, wide: true, cell: (record) => num(record.number) },
    ]} />`}<//><//>`;
}

// ---- the chart, drawn by uPlot, which is loaded when the first one is shown

let loading = null;

function load() {
  return loading ??= new Promise((done, failed) => {
    const base = new URL("../vendor/", import.meta.url);
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: `${base}uplot.css` }));
    const script = Object.assign(document.createElement("script"), { src: `${base}uplot.js` });
    script.onload = () => done(globalThis.uPlot);
    script.onerror = () => { loading = null; failed(new Error(t("chart.failed"))); };
    document.head.append(script);
  });
}

// Of records with `text` (a JSON object): {names, data: [seconds, values of each name…]}, the oldest first.
function seriesOf(records) {
  const points = [...records].sort((a, b) => a.timestamp_us - b.timestamp_us).map((record) => {
    let fields = {};
    try { fields = JSON.parse(record.text); } catch { /* no object: it has no numbers */ }
    return [record.timestamp_us / 1e6, Object.fromEntries(Object.entries(fields ?? {}).filter(([, value]) => typeof value === "number").map(([name, value]) => [`${record.kind}: ${name}`, value]))];
  });
  const names = [...new Set(points.flatMap(([, fields]) => Object.keys(fields)))].slice(0, SERIES_MAX);
  return { names, data: [points.map(([at]) => at), ...names.map((name) => points.map(([, fields]) => fields[name] ?? null))] };
}

function Chart({ series }) {
  const box = useRef(null), plot = useRef(null), [error, setError] = useState(null);
  const key = series.names.join();
  useEffect(() => {
    let over = false, watcher = null;
    load().then((UPlot) => {
      if (over) return;
      const colour = (name) => { box.current.style.color = `var(${name})`; const { color } = getComputedStyle(box.current); box.current.style.color = ""; return color; };
      const axis = { stroke: () => getComputedStyle(box.current).color, grid: { stroke: "#8884" }, ticks: { stroke: "#8884" } };
      plot.current = new UPlot({
        width: box.current.clientWidth, height: HEIGHT,
        series: [{ label: t("tx.when"), value: (_, at) => at == null ? "–" : clock(at * 1e6) }, ...series.names.map((label, at) => ({ label, stroke: colour(COLOURS[at]), width: 1.5, spanGaps: true, value: (_, value) => value == null ? "–" : num(value, 3) }))],
        axes: [{ ...axis, space: 90, values: (_, ticks, axis, space, step) => ticks.map((at) => tick(at * 1e6, step)) }, { ...axis, size: 60, values: (_, ticks) => ticks.map((value) => num(value, 3)) }],
      }, series.data, box.current);
      watcher = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height: HEIGHT }));
      watcher.observe(box.current);
    }, setError);
    return () => { over = true; watcher?.disconnect(); plot.current?.destroy(); plot.current = null; };
  }, [key, prefs.theme]);
  useEffect(() => { plot.current?.setData(series.data); }, [series.data[0].length, series.data[0].at(-1)]);
  return html`<${Problem} error=${error} /><div class="chart" ref=${box} role="img" aria-label=${t("chart.label", { names: series.names.join(", ") })}></div>`;
}
