// The pieces that views are made of.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { useLive, useNarrow, useNow } from "./live.js";
import { ago, iso, moment, short, t } from "./reader.js";

const ROWS_SHOWN = 50;
let serial = 0;

const useId = (name) => useRef(`${name}-${++serial}`).current;

export function Section({ title, hint, actions, children }) {
  const id = useId("s");
  return html`<section class="panel" aria-labelledby=${id}>
    <div class="panel-head"><h2 id=${id}>${title}</h2>${actions && html`<div class="row">${actions}</div>`}</div>
    ${hint && html`<p class="hint">${hint}</p>`}
    ${children}
  </section>`;
}

// `columns` are {head, cell(row), num, wide, bare, by(row)}: `wide` ones are for wide screens, `bare` ones need no name on a
// phone, where it is a list, a row an entry; where `by` says what a row is sorted by, the reader may sort, and those that
// are `first` are so at first, "up" or "down". Some rows are drawn, the others and `more()` when they are asked for.
export function Table({ caption, columns, rows, keyOf, empty, more, busy, tight }) {
  const [shown, show] = useState(ROWS_SHOWN), narrow = useNarrow(), [order, setOrder] = useState(() => orderAtFirst(columns));
  const sorted = useMemo(() => order ? [...rows].sort((a, b) => order.sign * compare(columns[order.at].by(a), columns[order.at].by(b))) : rows, [rows, order]);
  if (!rows.length && !more && !busy) return empty ?? html`<${Empty} text=${t("table.empty")} />`;
  const left = rows.length - shown, drawn = { caption, keyOf, rows: sorted.slice(0, shown) };
  const grow = () => { show(Math.min(shown, rows.length) + ROWS_SHOWN); if (left < ROWS_SHOWN) more?.(); };
  return html`${narrow ? html`${rows.length > 1 && html`<${Order} columns=${columns} order=${order} set=${setOrder} />`}<${Entries} ...${drawn} columns=${columns.filter((column) => !column.wide)} />`
    : rows.length > 0 && html`<div class="scroll" role="group" aria-label=${caption} tabindex="0"><table class=${tight ? "tight" : ""}>
    <caption class="sr">${caption}</caption>
    <thead><tr>${columns.map((column, at) => html`<${Head} column=${column} at=${at} order=${order} set=${setOrder} />`)}</tr></thead>
    <tbody>${drawn.rows.map((row) => html`<tr key=${keyOf(row)}>${columns.map((column, at) => at === 0
      ? html`<th scope="row" class=${classes(column)}>${column.cell(row)}</th>`
      : html`<td class=${classes(column)}>${column.cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`}
  ${busy ? html`<p class="hint" aria-busy="true">${t("loading")}</p>`
    : (left > 0 || more) && html`<p class="more"><button type="button" class="plain" onClick=${grow}>${t("table.more")}</button> <span class="hint">${rows.length > 0 && t(more ? "table.shown_more" : "table.shown", { shown: drawn.rows.length, n: rows.length })}</span></p>`}`;
}

const classes = ({ num, wide }) => `${num ? "num" : ""} ${wide ? "wide" : ""}`;

function orderAtFirst(columns) {
  const at = columns.findIndex((column) => column.first);
  return at < 0 ? null : { at, sign: columns[at].first === "down" ? -1 : 1 };
}

const collator = new Intl.Collator(undefined, { numeric: true });
const compare = (a, b) => typeof a === "string" ? collator.compare(a, b) : a - b;

// The head of a column, by which the reader may sort: the other way round when it is so already.
function Head({ column, at, order, set }) {
  const mine = order?.at === at;
  return html`<th scope="col" class=${classes(column)} aria-sort=${mine ? (order.sign > 0 ? "ascending" : "descending") : undefined}>${column.by
    ? html`<button type="button" class="sort" onClick=${() => set({ at, sign: mine ? -order.sign : 1 })}>${column.head}<span aria-hidden="true">${mine ? order.sign > 0 ? " ↑" : " ↓" : " ↕"}</span></button>` : column.head}</th>`;
}

// The same where there are no heads.
function Order({ columns, order, set }) {
  if (!order) return null;
  const options = columns.flatMap(({ by, head }, at) => by ? [[at, 1, head, "↑"], [at, -1, head, "↓"]] : []);
  return html`<p><label class="inline">${t("table.sort")} <select value=${`${order.at} ${order.sign}`} onChange=${(event) => { const [at, sign] = event.target.value.split(" ").map(Number); set({ at, sign }); }}>
    ${options.map(([at, sign, head, arrow]) => html`<option value=${`${at} ${sign}`}>${head} ${arrow}</option>`)}</select></label></p>`;
}

function Entries({ caption, columns: [first, ...others], rows, keyOf }) {
  return html`<ul class="entries" aria-label=${caption}>${rows.map((row) => html`<li key=${keyOf(row)}><div class="entry-head">${first.cell(row)}</div>
    <dl>${others.map((column) => { const cell = column.cell(row); return cell === "" || cell === "–" ? "" : html`<div><dt class=${column.bare ? "sr" : ""}>${column.head}</dt><dd>${cell}</dd></div>`; })}</dl></li>`)}</ul>`;
}

// `tone`: good, warn, bad, busy or quiet. Said in words too, never by colour alone.
export const Badge = ({ tone = "quiet", children, title }) => html`<span class=${`badge ${tone}`} title=${title}>${children}</span>`;

// At the name of a view: how much is there.
export const Mark = ({ text }) => text && html` <span class="mark-of">${text}</span>`;

// Of what the node has to tell: that there is mail, which the name of that view says.
export const isOfMail = (notice) => notice.startsWith("new messages:");

export function Empty({ text, command }) {
  return html`<div class="empty"><p>${text}</p>${command && html`<p><code>${command}</code> <${Copy} text=${command} /></p>`}</div>`;
}

// What went wrong, in the node's own words; of fields by their names in the `group` of words, where they have one.
export function Problem({ error, retry, again = t("problem.again"), group = "" }) {
  if (!error) return null;
  const said = error.status === "UNAVAILABLE" && ["away", "timeout"].includes(error.message) ? t(`problem.${error.message}`) : error.message;
  const fields = error.details?.flatMap((detail) => detail.field_violations ?? detail.fieldViolations ?? []) ?? [];
  const told = fields.length > 0 && fields.every(({ description }) => said.includes(description)); // the message says no more
  const called = (field) => { const key = `${group}.${field.split(".").pop()}`, words = t(key); return words === key ? html`<code>${field}</code>` : html`<strong>${words}</strong>`; };
  return html`<div class="problem" role="alert">
    ${!told && html`<p>${said === error.message && error.code ? html`<${Said} text=${said} />` : said}</p>`}
    ${fields.length > 0 && html`<ul>${fields.map((one) => html`<li>${called(one.field)} <${Said} text=${one.description} /></li>`)}</ul>`}
    ${retry && html`<button type="button" class="plain" onClick=${retry}>${again}</button>`}
  </div>`;
}

// A list that is still on its way, or cannot be had, instead of its rows.
export function Loaded({ live, children }) {
  if (live.data) return html`${live.error && html`<${Problem} error=${live.error} retry=${live.reload} />`}${children()}`;
  if (live.error) return html`<${Problem} error=${live.error} retry=${live.reload} />`;
  return html`<p class="hint" aria-busy="true">${t("loading")}</p>`;
}

export function Facts({ rows }) {
  return html`<dl class="facts">${rows.filter(Boolean).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export function When({ us }) {
  const text = useNow((now) => ago(us, now));
  return us ? html`<time datetime=${iso(us)} title=${moment(us)}>${text}</time>` : "–";
}

// The node's own words, which are English, with members by their names in place of their ids.
export function Said({ text }) {
  const name = useNames(), said = text.replace(/\b[a-z2-7]{32}\b/g, name);
  return html`<span lang="en">${said.charAt(0).toUpperCase()}${said.slice(1)}</span>`;
}

export const Id = ({ id, href }) => href ? html`<a href=${href} title=${id}><code>${short(id)}</code></a>` : html`<code title=${id}>${short(id)}</code>`;

export function Copy({ text }) {
  const [done, set] = useState(false);
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); set(true); setTimeout(() => set(false), 2_000); } catch { /* not allowed here: it can be marked */ }
  };
  return navigator.clipboard ? html`<button type="button" class="plain small" onClick=${copy}>${done ? t("copied") : t("copy")}</button>` : null;
}

export function Bar({ value, max, label, tone = "" }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  return html`<svg class=${`bar ${tone}`} viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=${label}>
    <rect width="100" height="6" class="bar-room" /><rect width=${share * 100} height="6" class="bar-used" /></svg>`;
}

export function Field({ label, hint, error, children }) {
  const id = useId("f");
  const child = children({ id, "aria-describedby": hint || error ? `${id}-hint` : undefined, "aria-invalid": error ? "true" : undefined });
  return html`<div class="field"><label for=${id}>${label}</label>${child}
    ${(hint || error) && html`<p class=${error ? "hint wrong" : "hint"} id=${`${id}-hint`}>${error || hint}</p>`}</div>`;
}

export function Tabs({ label, items, here }) {
  return html`<nav class="tabs" aria-label=${label}>${items.map(([href, name]) => html`<a href=${href} aria-current=${here === href ? "page" : undefined}>${name}</a>`)}</nav>`;
}

// Asks before what cannot be taken back. The browser keeps the focus inside, and gives it back.
export function Confirm({ title, text, verb, onYes, onClose }) {
  const ref = useRef(null), id = useId("d");
  const [error, setError] = useState(null), [busy, setBusy] = useState(false);
  useEffect(() => { ref.current.showModal(); }, []);
  const yes = async () => {
    setBusy(true);
    try { await onYes(); ref.current ? ref.current.close() : onClose(); } catch (why) { setError(why); setBusy(false); }
  };
  return html`<dialog ref=${ref} aria-labelledby=${id} onClose=${onClose}>
    <h2 id=${id}>${title}</h2><p>${text}</p><${Problem} error=${error} />
    <div class="row end"><button type="button" class="plain" onClick=${() => ref.current.close()}>${t("cancel")}</button>
    <button type="button" class="danger" disabled=${busy} onClick=${yes}>${verb}</button></div>
  </dialog>`;
}

// A button that works until its promise has ended, and shows why it failed.
export function Act({ verb, work, plain = true }) {
  const [state, set] = useState({ busy: false, error: null });
  const go = async () => {
    set({ busy: true, error: null });
    try { await work(); set({ busy: false, error: null }); } catch (error) { set({ busy: false, error }); }
  };
  return html`<button type="button" class=${plain ? "plain" : ""} disabled=${state.busy} onClick=${go}>${verb}</button><${Problem} error=${state.error} />`;
}

// Said by screen readers, once.
export function say(text) {
  const region = document.getElementById("said");
  if (region) region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}

// Names of members by their ids, for views that get ids alone.
export function useNames() {
  const { data } = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 60_000 });
  const names = useMemo(() => new Map(data?.peers.map((peer) => [peer.member.node_id, peer.member.name])), [data]);
  return (id) => names.get(id) || short(id);
}

