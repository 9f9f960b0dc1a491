// What views show: answers of the node, kept fresh by its events. Bounded, whatever happens for however long.

import { useEffect, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import { get, hurry, listen } from "./node.js";

const ANSWERS_MAX = 40; // answers that no view shows now
const GAP_MS = 250, GAP_MAX_MS = 2_000; // between two askings of the same: the slower it is to get and to draw, the longer
const queries = new Map();

class Query {
  constructor(path) {
    this.path = path;
    this.watchers = new Set();
    this.state = { data: null, error: null, loading: true, at: 0 };
    this.asking = this.again = false;
    this.timer = 0;
    this.gap = GAP_MS;
  }
  watch(watcher) {
    this.watchers.add(watcher);
    if (Date.now() - this.state.at > GAP_MS) this.refresh();
    return () => {
      this.watchers.delete(watcher);
      if (!this.watchers.size) { clearTimeout(this.timer); this.timer = 0; trim(); }
    };
  }
  become(change) {
    this.state = { ...this.state, ...change };
    for (const watcher of this.watchers) watcher.changed();
  }
  soon() { // at once, or a gap after the last time
    if (this.timer || !this.watchers.size) return;
    this.timer = setTimeout(() => { this.timer = 0; this.refresh(); }, Math.max(0, this.state.at + this.gap - Date.now()));
  }
  async refresh() {
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    const began = Date.now();
    try {
      const data = await get(this.path);
      this.become({ data, error: null, loading: false, at: Date.now() });
      hurry();
    } catch (error) {
      this.become({ error, loading: false, at: Date.now() });
    }
    await new Promise((drawn) => setTimeout(drawn)); // by then it is drawn
    this.gap = Math.min(GAP_MAX_MS, Math.max(GAP_MS, 4 * (Date.now() - began)));
    this.asking = false;
    if (this.again) { this.again = false; this.soon(); }
  }
}

function trim() {
  for (const [path, query] of queries) {
    if (queries.size <= ANSWERS_MAX) return;
    if (!query.watchers.size) queries.delete(path);
  }
}

const matches = (watcher, name) => watcher.on.some((start) => name.startsWith(start));

function each(question) {
  for (const query of queries.values()) if ([...query.watchers].some(question)) query.soon();
}

listen("event", (event) => each((watcher) => matches(watcher, event.type)));
listen("sync", () => each(() => true));
listen("change", (message) => each((watcher) => watcher.parts.some((part) => part in message || part in (message.gone ?? {}))));
setInterval(() => {
  if (document.hidden) return;
  for (const query of queries.values()) {
    const every = Math.min(...[...query.watchers].map((watcher) => watcher.every || Infinity));
    if (Date.now() - query.state.at >= every) query.soon();
  }
}, 500);
document.addEventListener("visibilitychange", () => { if (!document.hidden) each(() => true); });

// The answer to GET `path` ("": nothing yet), asked again at events whose types begin as `on` says, when one of the feed's
// `parts` has changed, and `every` so many ms.
export function useLive(path, { on = [], parts = [], every = 0 } = {}) {
  const [, changed] = useReducer((count) => count + 1, 0);
  let query = path ? queries.get(path) : null;
  if (path && !query) queries.set(path, query = new Query(path));
  useEffect(() => query ? query.watch({ on, parts, every, changed }) : undefined, [path, on.join(), every]);
  return query ? { ...query.state, reload: () => query.refresh() } : { data: null, error: null, loading: false, at: 0, reload: () => {} };
}

// Calls `listener` with what the feed tells of `kind`: "event" or "change".
export function useFeed(kind, listener) {
  const newest = useRef(listener);
  newest.current = listener;
  useEffect(() => listen(kind, (message) => newest.current(message)), [kind]);
}

// A list that grows by pages, `limit` rows at most: {rows, error, more, loading, reload}.
export function usePages(first, { field, on = [], parts = [], every = 0, limit = 1_000 }) {
  const live = useLive(first, { on, parts, every });
  const [extra, setExtra] = useState({ first: "", rows: [], token: "", error: null, busy: false });
  const mine = extra.first === first ? extra : { first, rows: [], token: "", error: null, busy: false };
  const head = live.data?.[field] ?? [];
  const token = mine.rows.length ? mine.token : live.data?.next_page_token;
  const more = token && head.length + mine.rows.length < limit ? async () => {
    setExtra({ ...mine, busy: true });
    try {
      const page = await get(`${first}${first.includes("?") ? "&" : "?"}page_token=${encodeURIComponent(token)}`);
      setExtra({ ...mine, rows: [...mine.rows, ...page[field]], token: page.next_page_token, error: null, busy: false });
    } catch (error) {
      setExtra({ ...mine, error, busy: false });
    }
  } : null;
  return { ...live, rows: [...head, ...mine.rows], error: live.error ?? mine.error, more };
}

// Now, in microseconds, again every second while somebody looks.
export function useNow(every = 1_000) {
  const [now, set] = useState(() => Date.now() * 1_000);
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) set(Date.now() * 1_000); }, every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

// Whether the window is as small as a phone's.
export function useNarrow() {
  const query = matchMedia("(max-width: 40rem)");
  const [narrow, set] = useState(query.matches);
  useEffect(() => {
    const change = () => set(query.matches);
    query.addEventListener("change", change);
    return () => query.removeEventListener("change", change);
  }, []);
  return narrow;
}

// Text that is typed and not sent yet: it outlives the view, reconnects and a reload of this tab.
export function useDraft(name, initial) {
  const key = `offgrid.draft.${name}`;
  const [value, set] = useState(() => {
    try { return { ...initial, ...JSON.parse(sessionStorage.getItem(key) ?? "{}") }; } catch { return initial; }
  });
  const change = (part) => set((before) => {
    const after = { ...before, ...part };
    try { sessionStorage.setItem(key, JSON.stringify(after)); } catch { /* no room: it is kept until the tab ends */ }
    return after;
  });
  return [value, change, () => change(initial)];
}
