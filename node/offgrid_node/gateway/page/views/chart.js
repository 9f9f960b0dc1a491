// Numbers of a session's events over time, drawn by uPlot, which is loaded when the first chart is shown.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Problem } from "../lib/parts.js";
import { clock, num, tick } from "../lib/format.js";
import { prefs } from "../lib/prefs.js";
import { t } from "../lib/words.js";

const SERIES_MAX = 6, HEIGHT = 240;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
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
export function seriesOf(records) {
  const points = [...records].sort((a, b) => a.timestamp_us - b.timestamp_us).map((record) => {
    let fields = {};
    try { fields = JSON.parse(record.text); } catch { /* no object: it has no numbers */ }
    return [record.timestamp_us / 1e6, Object.fromEntries(Object.entries(fields ?? {}).filter(([, value]) => typeof value === "number").map(([name, value]) => [`${record.kind}: ${name}`, value]))];
  });
  const names = [...new Set(points.flatMap(([, fields]) => Object.keys(fields)))].slice(0, SERIES_MAX);
  return { names, data: [points.map(([at]) => at), ...names.map((name) => points.map(([, fields]) => fields[name] ?? null))] };
}

export function Chart({ series }) {
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
