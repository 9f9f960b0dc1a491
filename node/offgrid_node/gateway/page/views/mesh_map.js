// This node in the middle, the others around it, each on the road that the next call would take.

import { html } from "../vendor/htm-preact.js";
import { num, percent, rate } from "../lib/format.js";
import { t } from "../lib/words.js";
import { inUse, lifeOf, TONES } from "./mesh.js";

const DRAWN_MAX = 60, RING_MAX = 16, WIDTH = 760, RADIUS = 140;

// Places around the middle, in rings of at most RING_MAX; the same for the same members, whoever of them is away.
export function places(count) {
  const rings = Math.max(1, Math.ceil(count / RING_MAX)), each = Math.ceil(count / rings);
  return Array.from({ length: count }, (_, at) => {
    const ring = Math.floor(at / each), here = Math.min(each, count - ring * each);
    const angle = (2 * Math.PI * (at % each)) / here - Math.PI / 2 + ring * 0.2 + (count === 2 ? Math.PI / 2 : 0);
    const radius = RADIUS + ring * 95;
    return { x: Math.cos(angle) * radius * 1.75, y: Math.sin(angle) * radius };
  });
}

export function MeshMap({ peers, roads }) {
  const self = peers.find((peer) => peer.self);
  const others = peers.filter((peer) => !peer.self).sort((a, b) => a.member.node_id < b.member.node_id ? -1 : 1).slice(0, DRAWN_MAX);
  const spots = places(others.length), rings = Math.max(1, Math.ceil(others.length / RING_MAX));
  const height = 2 * (RADIUS + (rings - 1) * 95) + 110, width = Math.max(WIDTH, (RADIUS + (rings - 1) * 95) * 3.5 + 170);
  return html`<svg class="map" viewBox=${`${-width / 2} ${-height / 2} ${width} ${height}`} role="img" aria-label=${t("mesh.map_label", { n: others.length })}>
    ${others.map((peer, at) => html`<${RoadLine} key=${`r${peer.member.node_id}`} road=${inUse(roads.get(peer.member.node_id))} life=${lifeOf(peer)} to=${spots[at]} />`)}
    ${others.map((peer, at) => html`<${Spot} key=${peer.member.node_id} peer=${peer} x=${spots[at].x} y=${spots[at].y} />`)}
    ${self && html`<${Spot} peer=${self} x=${0} y=${0} />`}
  </svg>${peers.length - 1 > DRAWN_MAX && html`<p class="hint">${t("mesh.map_more", { n: peers.length - 1 - DRAWN_MAX })}</p>`}`;
}

function Spot({ peer, x, y }) {
  const life = lifeOf(peer), name = peer.member.name;
  const roles = peer.roles_in_force.map((role) => t(`role.${role.replace("ROLE_", "")}`)).join(", ");
  return html`<g class=${`spot ${TONES[life]} ${peer.self ? "self" : ""}`} transform=${`translate(${x} ${y})`} data-node=${name} data-life=${life}>
    <title>${name} · ${t(`life.${life}`)} · ${roles}</title>
    <circle r=${peer.self ? 24 : 18} /><text class="glyph" y="5">${{ ALIVE: "✓", SUSPECT: "?", DEAD: "✕" }[life] ?? ""}</text>
    <text class="name" y=${peer.self ? 44 : 37}>${name.length > 16 ? `${name.slice(0, 15)}…` : name}</text>
    <text class="role" y=${peer.self ? 60 : 52}>${roles}</text>
  </g>`;
}

function RoadLine({ road, life, to }) {
  const tone = life === "DEAD" ? "bad" : { IN_USE: "good", READY: "good", FAILING: "warn", DOWN: "bad" }[road?.state.replace("ROAD_STATE_", "")] ?? "quiet";
  const figures = road && life !== "DEAD" ? [
    road.rtt_ms != null && `${num(road.rtt_ms, road.rtt_ms < 10 ? 1 : 0)} ms`,
    road.bytes_per_s > 0 && rate(road.bytes_per_s),
    road.loss_milli > 0 && t("mesh.loss_of", { share: percent(road.loss_milli / 1e3, 1) }),
  ].filter(Boolean).join(" · ") : "";
  const width = road?.bytes_per_s ? Math.min(6, 1.5 + Math.log10(road.bytes_per_s) / 2) : 2;
  return html`<g class=${`road ${tone}`}><line x1="0" y1="0" x2=${to.x} y2=${to.y} stroke-width=${width} stroke-dasharray=${life === "DEAD" || road?.state === "ROAD_STATE_DOWN" ? "4 5" : null} />
    ${road && html`<text x=${to.x * 0.55} y=${to.y * 0.55 - 6}>${road.via.split(":")[0]}${road.hops.length > 0 ? ` (+${road.hops.length})` : ""}</text>`}
    ${figures && html`<text x=${to.x * 0.55} y=${to.y * 0.55 + 9} class="figures">${figures}</text>`}</g>`;
}
