// What views show: answers of the node, kept fresh by its events. Bounded, whatever happens for however long.

import { useEffect, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import { get, hurry, listen } from "./node.js";

const ANSWERS_MAX = 40; // answers that no view shows now
const GAP_MS = 250, GAP_MAX_MS = 2_000; // between two askings of the same: the slower it is to get and to draw, the longer
const WHOLE_MAX = 10_000, WHOLE_GAP_MAX_MS = 60_000; // of a list that is asked for to its end
const TOLD_MAX = 1_000; // what the feed tells is shown at once, or together with what follows within a gap, which is
const TOLD_GAP_MS = 100, TOLD_GAP_MAX_MS = 1_000; // the longer, the longer it takes to draw
const SETTLED_MS = 200;
const queries = new Map();

class Query {
  constructor(path, field) {
    this.path = path;
    this.field = field; // of a list that is asked for to its end
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
      const data = this.field ? await whole(this.path, this.field) : await get(this.path);
      this.become({ data, error: null, loading: false, at: Date.now() });
      hurry();
    } catch (error) {
      this.become({ error, loading: false, at: Date.now() });
    }
    await new Promise((drawn) => setTimeout(drawn)); // by then it is drawn
    const took = Date.now() - began;
    this.gap = this.field ? Math.min(WHOLE_GAP_MAX_MS, Math.max(GAP_MS, 20 * took)) : Math.min(GAP_MAX_MS, Math.max(GAP_MS, 4 * took));
    this.asking = false;
    if (this.again) { this.again = false; this.soon(); }
  }
}

// All pages of a list as one answer, up to WHOLE_MAX rows; `cut`: there are more.
async function whole(path, field) {
  const all = await get(path, { page_size: 1_000 });
  let token = all.next_page_token;
  while (token && all[field].length < WHOLE_MAX) {
    const page = await get(path, { page_size: 1_000, page_token: token });
    for (const [name, rows] of Object.entries(page)) if (Array.isArray(rows)) all[name].push(...rows);
    token = page.next_page_token;
  }
  return { ...all, cut: Boolean(token) };
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
// `parts` has changed, and `every` so many ms. Of a list, all pages, by the name of its `field`; `cut` says if some are left.
export function useLive(path, { on = [], parts = [], every = 0, field = "" } = {}) {
  const [, changed] = useReducer((count) => count + 1, 0);
  let query = path ? queries.get(path + field) : null;
  if (path && !query) queries.set(path + field, query = new Query(path, field));
  useEffect(() => query ? query.watch({ on, parts, every, changed }) : undefined, [path, on.join(), every]);
  return query ? { ...query.state, reload: () => query.refresh() } : { data: null, error: null, loading: false, at: 0, reload: () => {} };
}

// Calls `listener` with what the feed has told of `kind` ("event", "change", "sync") since the last time, in its order.
export function useFeed(kind, listener) {
  const newest = useRef(listener);
  newest.current = listener;
  useEffect(() => {
    let told = [], timer = 0, at = 0, gap = TOLD_GAP_MS;
    const drawn = () => { gap = Math.min(TOLD_GAP_MAX_MS, Math.max(TOLD_GAP_MS, 5 * (Date.now() - at))); };
    const pass = () => {
      timer = 0;
      at = Date.now();
      newest.current(told.splice(0));
      requestAnimationFrame(() => setTimeout(drawn));
    };
    const stop = listen(kind, (message) => {
      told.push(message);
      if (told.length > TOLD_MAX) told = told.slice(-TOLD_MAX);
      timer ||= setTimeout(pass, Math.max(0, at + gap - Date.now()));
    });
    return () => { clearTimeout(timer); stop(); };
  }, [kind]);
}

// A list that grows by pages, `limit` rows at most: {rows, error, more, busy, loading, reload}. While the node finds none of
// the rows that are asked for among those it looked at, it is asked on.
export function usePages(first, { field, on = [], parts = [], every = 0, limit = 1_000 }) {
  const live = useLive(first, { on, parts, every });
  const none = { first, rows: [], token: null, error: null, busy: false };
  const [extra, setExtra] = useState(none);
  const mine = extra.first === first ? extra : none;
  const rows = [...live.data?.[field] ?? [], ...mine.rows], token = mine.token ?? live.data?.next_page_token;
  const more = token && rows.length < limit ? async () => {
    setExtra({ ...mine, busy: true });
    try {
      const page = await get(first, { page_token: token });
      setExtra({ ...mine, rows: [...mine.rows, ...page[field]], token: page.next_page_token, error: null, busy: false });
    } catch (error) {
      setExtra({ ...mine, error, busy: false });
    }
  } : null;
  const goOn = more && !rows.length && !mine.busy && !mine.error;
  useEffect(() => { if (goOn) more(); }, [goOn, token]);
  return { ...live, rows, error: live.error ?? mine.error, more, busy: mine.busy };
}

const clocks = new Set();
setInterval(() => { if (!document.hidden) for (const tell of clocks) tell(); }, 1_000);

// What `say` makes of now (in microseconds), again every second while somebody looks; drawn anew only where it differs.
export function useNow(say) {
  const newest = useRef(say), [, set] = useState(null);
  newest.current = say;
  useEffect(() => {
    const tell = () => set(newest.current(Date.now() * 1_000));
    clocks.add(tell);
    return () => clocks.delete(tell);
  }, []);
  return say(Date.now() * 1_000);
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

// What is typed, once nobody has typed for a moment.
export function useSettled(typed) {
  const [settled, set] = useState(typed);
  useEffect(() => {
    const timer = setTimeout(() => set(typed), SETTLED_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  return settled;
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
