// Money: who has how much, what is not final yet and so at risk, and the blocks and epochs behind it.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { useDraft, useLive, usePages } from "../lib/live.js";
import { bytesOf, post, seg } from "../lib/node.js";
import { Act, Badge, Bar, Confirm, Empty, Facts, Field, Id, Loaded, Problem, Said, say, Section, Table, Tabs, useNames, When } from "../lib/parts.js";
import { credits, microOf, moment, num, plain, short, stamp, t, weight } from "../lib/reader.js";

const TX_TONES = { QUEUED: "quiet", SIGNED: "warn", CERTIFIED: "busy", FINAL: "good", VOID: "bad", UNKNOWN: "quiet" };
const TX_EVENTS = ["TX_", "SETTLED"];
const DRAWN = 60, STEP = 44, LANE = 46, LEFT = 24;
const OTHER = "*"; // no member is called so
const DIGITS = "abcdefghijklmnopqrstuvwxyz234567";

const isOpen = (tx) => ["QUEUED", "SIGNED", "CERTIFIED"].includes(plain(tx.state));

export function Ledger({ tab }) {
  const status = useLive("/v1/ledger", { on: [...TX_EVENTS, "PEER_"], every: 10_000 });
  const items = [["#/ledger", t("ledger.accounts")], ["#/ledger/transactions", t("ledger.transactions")], ["#/ledger/blocks", t("ledger.blocks")], ["#/ledger/epochs", t("ledger.epochs")]];
  return html`<h1 tabindex="-1">${t("nav.ledger")}</h1><${Tabs} label=${t("nav.ledger")} here=${tab ? `#/ledger/${tab}` : "#/ledger"} items=${items} />
    <${Loaded} live=${status}>${() => {
      if (!status.data.enabled) return html`<${Empty} text=${t("ledger.off")} />`;
      if (!status.data.open) return html`<${Empty} text=${t("ledger.closed")} command="offgrid ledger open" />`;
      const View = { transactions: Transactions, blocks: Blocks, epochs: Epochs }[tab] ?? Accounts;
      return html`<${Notices} status=${status.data} /><${View} status=${status.data} />`;
    }}<//>`;
}

function Notices({ status }) {
  const cutOff = status.reach_milli < status.quorum_milli;
  return html`${cutOff && html`<div class="problem"><p>${t("needs.cut_off")} ${t("ledger.reach", { reach: weight(status.reach_milli), quorum: weight(status.quorum_milli) })}</p></div>`}
    ${[...status.notices, status.muted_why].filter(Boolean).map((notice) => html`<div class="notice" key=${notice}><p><${Said} text=${notice} /></p></div>`)}`;
}

function Accounts({ status }) {
  const balances = useLive("/v1/balances", { field: "balances", on: TX_EVENTS, every: 15_000 });
  const open = useLive("/v1/transactions?open=true&page_size=50", { on: TX_EVENTS, parts: ["transactions"], every: 30_000 });
  return html`<div class="columns"><${Transfer} status=${status} />
    <${Section} title=${t("ledger.risk")} hint=${t("ledger.risk_hint")}><${Facts} rows=${[
      [t("ledger.going_out"), credits(status.pending_out_micro)],
      [t("ledger.coming_in"), credits(status.pending_in_micro)],
      [t("ledger.accepted"), credits(status.accepted_in_micro)],
      [t("ledger.promised_out"), credits(status.promised_out_micro)],
      [t("ledger.promised_in"), credits(status.promised_in_micro)],
      [t("ledger.held"), credits(status.held_micro)],
      [t("ledger.owed"), credits(status.owed_micro)],
    ]} /><//></div>
    ${open.data?.transactions.length > 0 && html`<${Section} title=${t("ledger.under_way")}><${TxTable} caption=${t("ledger.under_way")} rows=${open.data.transactions} /><//>`}
    <${Section} title=${t("ledger.accounts")}><${Loaded} live=${balances}>${() => html`<${Table} caption=${t("ledger.accounts")} rows=${balances.data.balances} keyOf=${(balance) => balance.account} columns=${[
      { head: t("ledger.account"), first: "up", by: (balance) => `${/^hold |^$/.test(balance.name) ? 1 : 0} ${balance.name || balance.account}`, cell: (balance) => balance.name || html`<${Id} id=${balance.account} />` },
      { head: t("ledger.final"), num: true, by: (balance) => balance.final_micro, cell: (balance) => credits(balance.final_micro) },
      { head: t("ledger.going_out"), num: true, cell: (balance) => balance.pending_out_micro ? credits(balance.pending_out_micro) : "–" },
      { head: t("ledger.coming_in"), num: true, cell: (balance) => balance.pending_in_micro ? credits(balance.pending_in_micro) : "–" },
      { head: t("ledger.sent"), num: true, wide: true, cell: (balance) => num(balance.next_seq) },
    ]} />`}<//><//>
    <${Section} title=${t("ledger.witnesses")} hint=${t("ledger.survives", { n: status.faults_survived })}><${Table} caption=${t("ledger.witnesses")} rows=${status.witnesses} keyOf=${(witness) => witness.node_id} columns=${[
      { head: t("node.name"), cell: (witness) => witness.name || html`<${Id} id=${witness.node_id} />` },
      { head: t("mesh.weight"), num: true, cell: (witness) => weight(witness.weight_milli) },
      { head: t("mesh.life"), cell: (witness) => html`<${Badge} tone=${witness.away_ms ? "bad" : "good"}>${t(witness.away_ms ? "ledger.away" : "ledger.in_touch")}<//>` },
    ]} /><//>`;
}

function Transfer({ status }) {
  const [draft, change, clear, requestOf] = useDraft("transfer", { to: "", account: "", amount: "", reason: "" });
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 60_000 });
  const members = (peers.data?.peers ?? []).filter((peer) => !peer.self && !peer.member.removed).map((peer) => peer.member.name).sort(), dst = draft.to === OTHER ? draft.account.trim() : draft.to;
  const [state, set] = useState({ error: null, tx: "" }), [asked, ask] = useState(null);
  const micro = microOf(draft.amount), wrong = draft.amount && !(micro > 0) ? t("transfer.amount_wrong", { example: 12.5 }) : "";
  const submit = (event) => {
    event.preventDefault();
    if (micro > 0) ask({ dst, micro, reason: draft.reason.trim() });
  };
  const pay = async () => { // what is refused is said above the fields that are to be mended
    set({ error: null, tx: "" });
    try {
      const meta = asked.reason ? { reason: asked.reason } : {};
      const { transaction } = await post("/v1/transfers", { dst: asked.dst, amount_micro: asked.micro, meta, request_id: requestOf(asked) });
      set({ error: null, tx: transaction.tx_id });
      say(t("transfer.signed"));
      clear();
    } catch (error) { set({ error, tx: "" }); }
  };
  const text = (name) => ({ value: draft[name], onInput: (event) => change({ [name]: event.target.value }) });
  return html`<${Section} title=${t("transfer.title")} hint=${t("transfer.hint", { fee: credits(status.fee_micro) })}><form onSubmit=${submit}>
    <${Field} label=${t("transfer.to")}>${(field) => html`<select ...${field} ...${text("to")} required><option value="">${t("transfer.choose")}</option>
      ${members.map((name) => html`<option value=${name}>${name}</option>`)}<option value=${OTHER}>${t("transfer.another")}</option></select>`}<//>
    ${draft.to === OTHER && html`<${Field} label=${t("ledger.account")} hint=${t("transfer.account_hint")}>${(field) => html`<input ...${field} ...${text("account")} required autocomplete="off" autocapitalize="off" spellcheck=${false} />`}<//>`}
    <${Field} label=${t("transfer.amount")} error=${wrong}>${(field) => html`<input ...${field} ...${text("amount")} inputmode="decimal" required autocomplete="off" />`}<//>
    <${Field} label=${t("transfer.reason")}>${(field) => html`<input ...${field} ...${text("reason")} maxlength="200" />`}<//>
    <${Problem} error=${state.error} />
    <div class="row"><button type="submit">${t("transfer.go")}</button></div>
    ${state.tx && html`<${Sent} id=${state.tx} key=${state.tx} />`}
  </form>
  ${asked && html`<${Confirm} title=${t("transfer.sure", { amount: credits(asked.micro), name: asked.dst })} verb=${t("transfer.title")} onClose=${() => ask(null)} onYes=${pay}
    text=${t("transfer.hint", { fee: credits(status.fee_micro) })} />`}<//>`;
}

// What has become of the transfer that was just signed.
function Sent({ id }) {
  const live = useLive(`/v1/transactions/${seg(id)}`, { on: TX_EVENTS, parts: ["transactions"], every: 1_000 });
  const tx = live.data?.transaction, box = useRef(null);
  useEffect(() => box.current.focus(), []);
  return html`<div class="sent" data-test="sent" tabindex="-1" ref=${box}>${tx ? html`<${TxState} tx=${tx} /> <${Weights} tx=${tx} />` : html`<${Badge} tone="warn">${t("tx.SIGNED")}<//>`} <code title=${id}>${id.slice(0, 12)}…</code><${Problem} error=${live.error} /></div>`;
}

const TxState = ({ tx }) => html`<${Badge} tone=${TX_TONES[plain(tx.state)]}>${t(`tx.${plain(tx.state)}`)}<//>`;

function Weights({ tx }) {
  if (!tx.quorum_milli) return "–";
  const label = t("tx.weights", { voted: weight(tx.voted_milli), confirmed: weight(tx.confirmed_milli), quorum: weight(tx.quorum_milli) });
  return html`<span class="weights" title=${label}><${Bar} value=${tx.confirmed_milli} max=${tx.quorum_milli} tone="good" label=${label} /><span class="quiet">${weight(tx.confirmed_milli)} / ${weight(tx.quorum_milli)}</span></span>`;
}

function TxTable({ caption, rows, more, busy, reload }) {
  return html`<${Table} caption=${caption} rows=${rows} more=${more} busy=${busy} keyOf=${(tx) => tx.tx_id} empty=${html`<${Empty} text=${t("ledger.no_tx")} command="offgrid transfer --dst NAME --amount 1" />`} columns=${[
    { head: t("tx.id"), cell: (tx) => html`<${Id} id=${tx.tx_id} />` },
    { head: t("jobs.state"), cell: (tx) => html`<${TxState} tx=${tx} />` },
    { head: t("tx.from"), cell: (tx) => tx.src_name || html`<${Id} id=${tx.src} />` },
    { head: t("transfer.to"), cell: (tx) => tx.outputs.slice(0, 3).map((output) => output.name || output.account.slice(0, 8)).join(", ") + (tx.outputs.length > 3 ? " …" : "") },
    { head: t("transfer.amount"), num: true, cell: (tx) => credits(tx.outputs.reduce((sum, output) => sum + output.amount_micro, 0)) },
    { head: t("tx.confirmed"), cell: (tx) => html`<${Weights} tx=${tx} />` },
    { head: t("tx.when"), wide: true, cell: (tx) => html`<${When} us=${tx.final_us || tx.created_us} />` },
    { head: t("tx.meta"), wide: true, cell: (tx) => Object.entries(tx.meta).map(([key, value]) => `${key}: ${key === "expires" ? moment(Number(value)) : value}`).join(", ") || "–" },
    ...(reload ? [{ head: t("mesh.actions"), wide: true, cell: (tx) => isOpen(tx) && tx.unsent ? html`<${Act} verb=${t("tx.send")} work=${async () => { await post("/v1/transactions:send", { signed: tx.signed }); reload(); }} />` : "" }] : []),
  ]} />`;
}

function Transactions() {
  const live = usePages("/v1/transactions", { field: "transactions", on: TX_EVENTS, every: 15_000 });
  const booked = usePages("/v1/bookings", { field: "bookings", size: 50, on: ["JOB_COMPLETED", "SETTLED"], every: 30_000 });
  return html`<${Section} title=${t("ledger.transactions")}><${Loaded} live=${live}>${() => html`<${TxTable} caption=${t("ledger.transactions")} rows=${live.rows} more=${live.more} busy=${live.busy} reload=${live.reload} />`}<//><//>
    <${Section} title=${t("ledger.bookings")} hint=${t("ledger.bookings_hint")} actions=${html`<${Act} verb=${t("ledger.settle")} work=${async () => { await post("/v1/ledger:settle"); booked.reload(); }} />`}>
    <${Loaded} live=${booked}>${() => html`<${Table} caption=${t("ledger.bookings")} rows=${booked.rows} more=${booked.more} busy=${booked.busy} keyOf=${(one) => `${one.job_id}/${one.attempt}`} empty=${html`<${Empty} text=${t("ledger.no_bookings")} />`} columns=${[
      { head: t("jobs.job"), cell: (one) => html`<${Id} id=${one.job_id} href=${`#/jobs/${encodeURIComponent(one.job_id)}`} />` },
      { head: t("ledger.payee"), cell: (one) => one.payee_name || html`<${Id} id=${one.payee} />` },
      { head: t("transfer.amount"), num: true, cell: (one) => credits(one.amount_micro) },
      { head: t("jobs.state"), cell: (one) => html`<${Badge} tone=${one.tx_id ? "good" : one.owed ? "warn" : "busy"}>${t(one.tx_id ? "booking.paid" : one.owed ? "booking.owed" : one.promised ? "booking.promised" : "booking.booked")}<//>` },
      { head: t("jobs.made"), wide: true, cell: (one) => html`<${When} us=${one.booked_us} />` },
    ]} />`}<//><//>`;
}

function Epochs({ status }) {
  const live = usePages("/v1/ledger/epochs", { field: "epochs", size: 50, every: 30_000 });
  return html`<${Section} title=${t("ledger.epoch_now", { epoch: status.epoch })}><${Facts} rows=${[
      [t("epoch.since"), moment(status.entered_us)],
      [t("epoch.fees"), credits(status.fees_micro)],
      [t("epoch.supply"), credits(status.supply_micro)],
      status.wishing.length > 0 && [t("epoch.wishing"), status.wishing.map((witness) => witness.name).join(", ")],
      status.waits.length > 0 && [t("epoch.waits"), html`<${Said} text=${status.waits.join("; ")} />`],
    ]} /><//>
    <${Section} title=${t("ledger.epochs")}><${Loaded} live=${live}>${() => html`<${Table} caption=${t("ledger.epochs")} rows=${live.rows} more=${live.more} busy=${live.busy} keyOf=${(epoch) => epoch.epoch} empty=${html`<${Empty} text=${t("epoch.none")} command="offgrid ledger checkpoint" />`} columns=${[
      { head: t("epoch.number"), cell: (epoch) => num(epoch.epoch) },
      { head: t("epoch.ended"), cell: (epoch) => moment(epoch.ended_us) },
      { head: t("epoch.fees"), num: true, cell: (epoch) => credits(epoch.fees_micro) },
      { head: t("epoch.sealed"), cell: (epoch) => html`<${Badge} tone=${epoch.is_sealed ? "good" : "warn"}>${num(epoch.sealed.length)} / ${num(epoch.witnesses.length)}<//>` },
      { head: t("epoch.rewards"), wide: true, cell: (epoch) => epoch.rewards.map((reward) => `${reward.name}: ${credits(reward.amount_micro)}`).join(", ") || "–" },
    ]} />`}<//><//>`;
}

// ---- the newest blocks as a picture: one row for each author, a line to each block that was named

function base32(bytes) {
  let out = "", bits = 0, value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) out += DIGITS[(value >>> (bits - 5)) & 31];
    value &= (1 << bits) - 1;
  }
  return bits ? out + DIGITS[(value << (5 - bits)) & 31] : out;
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// A header's body, as protocol/ledger/records.py writes it:
// ver1 | author20 | height8 | prev32 | n1 x parent32 | epoch4 | root32 | items4 | created8
function readHeader(body) {
  const bytes = bytesOf(body), view = new DataView(bytes.buffer), parents = [];
  const count = bytes[61];
  for (let at = 62; at < 62 + 32 * count; at += 32) parents.push(hex(bytes.subarray(at, at + 32)));
  const after = 62 + 32 * count;
  return {
    author: base32(bytes.subarray(1, 21)), height: Number(view.getBigUint64(21)), prev: hex(bytes.subarray(29, 61)), parents,
    epoch: view.getUint32(after), items: view.getUint32(after + 36), created_us: Number(view.getBigUint64(after + 40)),
  };
}

// Blocks with their digests, which the author's next block names, or the head of the author's chain.
function linked(blocks, heads) {
  const rows = blocks.map((block) => readHeader(block.header.body));
  const digests = new Map(heads.map((head) => [`${head.author} ${head.height}`, hex(bytesOf(head.digest))]));
  for (const row of rows) digests.set(`${row.author} ${row.height - 1}`, row.prev);
  return rows.map((row) => ({ ...row, digest: digests.get(`${row.author} ${row.height}`) ?? "" }));
}

function Blocks({ status }) {
  const live = useLive(`/v1/ledger/blocks?count=${DRAWN}`, { on: ["TX_", "BLOCK_", "SETTLED"], every: 5_000 });
  const name = useNames();
  return html`<${Section} title=${t("ledger.blocks")} hint=${t("dag.hint")}><${Loaded} live=${live}>${() => {
    const rows = linked(live.data.blocks, status.heads);
    return html`<${Picture} rows=${rows} name=${name} />
      <${Table} caption=${t("ledger.blocks")} rows=${[...rows].reverse()} keyOf=${(row) => `${row.author} ${row.height}`} columns=${[
        { head: t("dag.author"), cell: (row) => name(row.author) },
        { head: t("dag.height"), num: true, cell: (row) => num(row.height) },
        { head: t("dag.items"), num: true, cell: (row) => num(row.items) },
        { head: t("dag.parents"), num: true, cell: (row) => num(row.parents.length) },
        { head: t("epoch.number"), num: true, wide: true, cell: (row) => num(row.epoch) },
        { head: t("dag.digest"), wide: true, cell: (row) => html`<code title=${row.digest}>${short(row.digest)}</code>` },
        { head: t("tx.when"), cell: (row) => stamp(row.created_us) },
      ]} />`;
  }}<//><//>`;
}

function Picture({ rows, name }) {
  const authors = [...new Set(rows.map((row) => row.author))].sort();
  const spot = new Map(rows.map((row, at) => [row.digest, { x: LEFT + at * STEP, y: 28 + authors.indexOf(row.author) * LANE }]));
  const width = LEFT + rows.length * STEP, height = authors.length * LANE + 16;
  const box = useRef(null), newest = rows.at(-1)?.digest;
  useEffect(() => { box.current.scrollLeft = width; }, [newest]);
  return html`<div class="authors"><ul aria-hidden="true">${authors.map((author) => html`<li key=${author}>${name(author)}</li>`)}</ul>
    <div class="scroll" ref=${box} role="group" tabindex="0" aria-label=${t("dag.picture")}><svg class="dag" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${t("dag.label", { n: rows.length })}>
    ${authors.map((author, at) => html`<line key=${author} class="lane" x1="0" x2=${width} y1=${28 + at * LANE} y2=${28 + at * LANE} />`)}
    ${rows.flatMap((row) => [row.prev, ...row.parents].filter((one) => spot.has(one)).map((one) => {
      const from = spot.get(row.digest), to = spot.get(one);
      return from && html`<path key=${`${row.digest}${one}`} class=${one === row.prev ? "prev" : "parent"} d=${`M${from.x} ${from.y}C${(from.x + to.x) / 2} ${from.y} ${(from.x + to.x) / 2} ${to.y} ${to.x} ${to.y}`} />`;
    }))}
    ${rows.map((row) => { const at = spot.get(row.digest); return html`<g key=${row.digest} class="block"><title>${name(row.author)} ${row.height}: ${t("dag.holds", { n: row.items })}</title><rect x=${at.x - 13} y=${at.y - 11} width="26" height="22" rx="5" /><text x=${at.x} y=${at.y + 4}>${row.height}</text></g>`; })}
  </svg></div></div>`;
}
