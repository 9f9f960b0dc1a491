// The newest blocks of the ledger as a picture: one row for each author, a line to each block that was named.

import { html } from "../vendor/htm-preact.js";
import { bytesOf } from "../lib/api.js";
import { clock, num, short } from "../lib/format.js";
import { Loaded, Section, Table, useNames } from "../lib/parts.js";
import { useLive } from "../lib/live.js";
import { t } from "../lib/words.js";

const DRAWN = 60, STEP = 44, LANE = 46, LEFT = 120;
const DIGITS = "abcdefghijklmnopqrstuvwxyz234567";

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
export function readHeader(body) {
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
export function linked(blocks, heads) {
  const rows = blocks.map((block) => readHeader(block.header.body));
  const digests = new Map(heads.map((head) => [`${head.author} ${head.height}`, hex(bytesOf(head.digest))]));
  for (const row of rows) digests.set(`${row.author} ${row.height - 1}`, row.prev);
  return rows.map((row) => ({ ...row, digest: digests.get(`${row.author} ${row.height}`) ?? "" }));
}

export function Blocks({ status }) {
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
        { head: t("tx.when"), cell: (row) => clock(row.created_us) },
      ]} />`;
  }}<//><//>`;
}

function Picture({ rows, name }) {
  const authors = [...new Set(rows.map((row) => row.author))].sort();
  const spot = new Map(rows.map((row, at) => [row.digest, { x: LEFT + at * STEP, y: 28 + authors.indexOf(row.author) * LANE }]));
  const width = LEFT + rows.length * STEP, height = authors.length * LANE + 16;
  return html`<div class="scroll" role="group" tabindex="0" aria-label=${t("dag.picture")}><svg class="dag" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${t("dag.label", { n: rows.length })}>
    ${authors.map((author, at) => html`<g key=${author}><line class="lane" x1="0" x2=${width} y1=${28 + at * LANE} y2=${28 + at * LANE} /><text x="4" y=${22 + at * LANE}>${name(author)}</text></g>`)}
    ${rows.flatMap((row) => [row.prev, ...row.parents].filter((one) => spot.has(one)).map((one) => {
      const from = spot.get(row.digest), to = spot.get(one);
      return from && html`<path key=${`${row.digest}${one}`} class=${one === row.prev ? "prev" : "parent"} d=${`M${from.x} ${from.y}C${(from.x + to.x) / 2} ${from.y} ${(from.x + to.x) / 2} ${to.y} ${to.x} ${to.y}`} />`;
    }))}
    ${rows.map((row) => { const at = spot.get(row.digest); return html`<g key=${row.digest} class="block"><title>${name(row.author)} ${row.height}: ${t("dag.holds", { n: row.items })}</title><rect x=${at.x - 13} y=${at.y - 11} width="26" height="22" rx="5" /><text x=${at.x} y=${at.y + 4}>${row.height}</text></g>`; })}
  </svg></div>`;
}
