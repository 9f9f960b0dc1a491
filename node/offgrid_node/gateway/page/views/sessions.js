// What applications recorded: their events, what these came to at any time, and their numbers as a chart.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { get, query, seg, textOf } from "../lib/api.js";
import { bytes, clock, iso, moment, num, tick } from "../lib/format.js";
import { useLive, usePages } from "../lib/live.js";
import { Badge, Empty, Facts, Id, Loaded, Problem, Section, Table, When } from "../lib/parts.js";
import { prefs } from "../lib/prefs.js";
import { t } from "../lib/words.js";

const SERIES_MAX = 6, HEIGHT = 240;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
const ASK_AFTER_MS = 150;
const shown = (value) => { try { return JSON.stringify(JSON.parse(value), null, 2); } catch { return value; } };

export function Sessions() {
  const live = usePages("/v1/sessions?page_size=100", { field: "sessions", on: ["SESSION_"], every: 15_000 });
  return html`<h1 tabindex="-1">${t("nav.sessions")}</h1><${Section} title=${t("sessions.list")} hint=${t("sessions.hint")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("sessions.list")} rows=${live.rows} keyOf=${(session) => session.session_id} more=${live.more} empty=${html`<${Empty} text=${t("sessions.empty")} command="offgrid state sessions" />`} columns=${[
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
  return html`<p class="crumb"><a href="#/sessions">${t("nav.sessions")}</a></p><h1 tabindex="-1">${session?.name ?? part}</h1>
    <${Loaded} live=${live}>${() => html`<${Section} title=${t("session.facts")}><${Facts} rows=${[
        [t("session.started"), moment(session.started_us)],
        [t("session.ended_at"), session.ended_us ? moment(session.ended_us) : t("session.open")],
        [t("session.events"), t("session.kept", { recorded: session.recorded, kept: session.kept })],
        [t("session.kinds"), Object.entries(session.kinds).map(([kind, count]) => html`<code class="chip">${kind} ${num(count)}</code>`)],
        Object.keys(session.dropped).length > 0 && [t("session.dropped"), Object.entries(session.dropped).map(([kind, count]) => `${kind} ${num(count)}`).join(", ")],
        [t("node.id"), html`<${Id} id=${session.session_id} />`],
      ]} /><//>
      ${session.purged_us ? html`<${Empty} text=${t("session.purged_text")} />` : session.recorded ? html`<${TimeTravel} path=${path} session=${session} /><${Records} path=${path} session=${session} />` : html`<${Empty} text=${t("session.nothing")} />`}`}<//>`;
}

// What the events up to a number came to.
function TimeTravel({ path, session }) {
  const [number, move] = useState(0); // 0: all of them, also those to come
  const [state, set] = useState({ data: null, error: null });
  const at = number || session.recorded;
  useEffect(() => {
    let over = false;
    const timer = setTimeout(async () => {
      try { const data = await get(query(`${path}/state`, { number: number || undefined })); if (!over) set({ data, error: null }); } catch (error) { if (!over) set((before) => ({ ...before, error })); }
    }, ASK_AFTER_MS);
    return () => { over = true; clearTimeout(timer); };
  }, [path, at]);
  const text = state.data ? shown(textOf(state.data.state)) : "";
  return html`<${Section} title=${t("travel.title")} hint=${t("travel.hint")}>
    <div class="travel"><label for="travel">${t("travel.number", { number: at, of: session.recorded })}</label>
      <input id="travel" type="range" min="1" max=${session.recorded} value=${at} onInput=${(event) => move(Number(event.target.value) === session.recorded ? 0 : Number(event.target.value))} />
      <button type="button" class="plain small" disabled=${!number} onClick=${() => move(0)}>${t("travel.now")}</button></div>
    <${Problem} error=${state.error} /><pre tabindex="0" data-test="state">${text}</pre>
  <//>`;
}

function Records({ path, session }) {
  const [kind, choose] = useState("");
  const live = usePages(query(`${path}/records`, { page_size: 200, newest_first: true, kinds: kind }), { field: "records", on: ["SESSION_"], every: session.ended_us ? 0 : 5_000 });
  const rows = live.rows.map((record) => ({ ...record, text: textOf(record.data) }));
  const chart = seriesOf(rows);
  return html`${chart.names.length > 0 && html`<${Section} title=${t("chart.title")} hint=${t("chart.hint", { n: rows.length })}><${Chart} series=${chart} /><//>`}
    <${Section} title=${t("session.records")} actions=${html`<label class="inline">${t("session.kind")} <select value=${kind} onChange=${(event) => choose(event.target.value)}><option value="">${t("session.every_kind")}</option>${Object.keys(session.kinds).map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`}>
    <${Loaded} live=${live}>${() => html`<${Table} caption=${t("session.records")} tight rows=${rows} keyOf=${(record) => record.number} more=${live.more} columns=${[
      { head: t("events.number"), num: true, cell: (record) => num(record.number) },
      { head: t("tx.when"), cell: (record) => html`<time datetime=${iso(record.timestamp_us)} title=${moment(record.timestamp_us)}>${clock(record.timestamp_us)}</time>` },
      { head: t("session.kind"), cell: (record) => html`<code>${record.kind}</code>` },
      { head: t("session.data"), cell: (record) => html`<code class="wrap">${record.text.slice(0, 400)}</code>` },
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
        series: [{ value: (_, at) => at == null ? "–" : clock(at * 1e6) }, ...series.names.map((label, at) => ({ label, stroke: colour(COLOURS[at]), width: 1.5, spanGaps: true, value: (_, value) => value == null ? "–" : num(value, 3) }))],
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
