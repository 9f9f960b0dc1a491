// What views show: answers of the node, kept fresh by its events. Bounded, whatever happens for however long.

import { useEffect, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import { get, hurry, listen, newId } from "./node.js";

const ANSWERS_MAX = 40; // answers that no view shows now
const GAP_MS = 250, GAP_MAX_MS = 2_000; // between two askings of the same: the slower it is to get and to draw, the longer
const WHOLE_MAX = 10_000, WHOLE_GAP_MAX_MS = 60_000; // of a list that is asked for to its end
const PAGE_MAX = 1_000; // rows in an answer of the node
const GROWN_MAX = 1_000; // of a list that grows by pages
const TOLD_MAX = 1_000; // what the feed tells is shown at once, or together with what follows within a gap, which is
const TOLD_GAP_MS = 100, TOLD_GAP_MAX_MS = 1_000; // the longer, the longer it takes to draw
const SETTLED_MS = 200;
const queries = new Map();

class Query {
  constructor(path, field, size) {
    Object.assign(this, { path, field, size }); // field: of a list, size: of its pages where it grows by them
    this.watchers = new Set();
    this.state = { data: null, error: null, loading: true, busy: false, at: 0 };
    this.asking = this.again = false;
    this.timer = 0;
    this.gap = GAP_MS;
    this.shrink();
  }
  shrink() { // to the first page
    this.rows = this.size || WHOLE_MAX;
    this.calls = this.size ? 1 : Infinity;
  }
  watch(watcher) {
    this.watchers.add(watcher);
    if (Date.now() - this.state.at > GAP_MS) this.refresh();
    return () => {
      this.watchers.delete(watcher);
      setTimeout(() => this.leave()); // unless the same view watches on, otherwise
    };
  }
  leave() {
    if (this.watchers.size) return;
    clearTimeout(this.timer);
    this.timer = 0;
    this.shrink();
    trim();
  }
  become(change) {
    this.state = { ...this.state, ...change };
    for (const watcher of this.watchers) watcher.changed();
  }
  soon() { // at once, or a gap after the last time
    if (this.timer || !this.watchers.size) return;
    this.timer = setTimeout(() => { this.timer = 0; this.refresh(); }, Math.max(0, this.state.at + this.gap - Date.now()));
  }
  grow() { // by a page
    this.become({ busy: true });
    this.refresh();
  }
  async refresh() {
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    const began = Date.now(), { data: before, busy } = this.state;
    let calls = 1;
    try {
      let data;
      if (!this.field) data = await get(this.path);
      else if (busy && before) {
        const rows = Math.min(GROWN_MAX, this.rows + this.size);
        data = await pages(this, before, rows, 1);
        Object.assign(this, { rows, calls: this.calls + 1 });
      } else {
        data = await pages(this, null, this.rows, this.calls);
        calls = data.calls;
      }
      this.become({ data, error: null, loading: false, busy: this.state.busy && !busy, at: Date.now() });
      hurry();
    } catch (error) {
      this.become({ error, loading: false, busy: false, at: Date.now() });
    }
    await new Promise((drawn) => setTimeout(drawn)); // by then it is drawn
    const took = Date.now() - began;
    this.gap = !this.size && this.field || calls > 1 ? Math.min(WHOLE_GAP_MAX_MS, Math.max(GAP_MS, 20 * took)) : Math.min(GAP_MAX_MS, Math.max(GAP_MS, 4 * took));
    this.asking = false;
    if (this.state.busy) this.refresh();
    else if (this.again) this.soon();
    this.again = false;
  }
}

// A list as one answer: behind `all` page after page, until it has `rows` or was asked for `calls` times.
async function pages({ path, field }, all, rows, calls) {
  let count = 0;
  do {
    const page = await get(path, { page_size: Math.min(PAGE_MAX, rows - (all?.[field].length ?? 0)), page_token: all?.next_page_token });
    for (const [name, some] of Object.entries(page)) if (Array.isArray(some) && all) page[name] = [...all[name], ...some];
    all = page;
    count += 1;
  } while (all.next_page_token && all[field].length < rows && count < calls);
  return { ...all, calls: count };
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
// `parts` has changed, and `every` so many ms. Of a list, by the name of its `field`, all pages; where they have a `size`,
// the first and what `grow` adds: as much is asked for again, so nothing is missed where the list begins anew.
export function useLive(path, { on = [], parts = [], every = 0, field = "", size = 0 } = {}) {
  const [, changed] = useReducer((count) => count + 1, 0), key = `${path} ${field} ${size}`;
  let query = path ? queries.get(key) : null;
  if (path && !query) queries.set(key, query = new Query(path, field, size));
  useEffect(() => query ? query.watch({ on, parts, every, changed }) : undefined, [key, on.join(), every]);
  return query ? { ...query.state, reload: () => query.refresh(), grow: () => query.grow() } : { data: null, error: null, loading: false, busy: false, at: 0, reload: () => {} };
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

// A list that grows by pages of `size`: {rows, error, more, busy, loading, reload}. While the node finds none of the rows
// that are asked for among those it looked at, it is asked on.
export function usePages(path, { field, size = 100, ...when }) {
  const live = useLive(path, { field, size, ...when });
  const rows = live.data?.[field] ?? [], token = live.data?.next_page_token;
  const more = token && rows.length < GROWN_MAX ? live.grow : null;
  const goOn = more && !rows.length && !live.busy && !live.error;
  useEffect(() => { if (goOn) more(); }, [goOn, token]);
  return { ...live, rows, more };
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

// Text that is typed and not sent yet: it outlives the view, reconnects and a reload of this tab. So does the request id of
// what was sent last, [..., requestOf(what)]: as long as an answer may have been lost, the same is not carried out twice.
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
  const requestOf = (what) => {
    const said = JSON.stringify(what), request = value.request?.said === said ? value.request : { id: newId(), said };
    change({ request });
    return request.id;
  };
  return [value, change, (part) => change({ ...initial, ...part, request: undefined }), requestOf];
}
