// What this node is, whether all is well, and what needs a hand.

import { html, useEffect, useRef } from "../vendor/htm-preact.js";
import { describe } from "./events.js";
import { useLive } from "../lib/live.js";
import { Badge, Bar, Copy, Facts, Id, isOfMail, Loaded, Problem, Said, say, Section, useNames, When } from "../lib/parts.js";
import { bytes, credits, num, plain, span, stamp, t } from "../lib/reader.js";

export function Overview() {
  const status = useLive("/v1/status", { on: ["HEALTH_", "PEER_", "MEMBER_"], parts: ["status"], every: 15_000 });
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], parts: ["peers"], every: 60_000 });
  const ledger = useLive("/v1/ledger", { on: ["TX_", "SETTLED", "PEER_"], every: 30_000 });
  const outbox = useLive("/v1/outbox?page_size=1000&open_only=true", { on: ["OBJECT_", "QUORUM_ACKED"], every: 30_000 });
  const balance = useLive(ledger.data?.open ? "/v1/wallet" : "", { on: ["TX_", "SETTLED"], every: 60_000 });
  const retention = useLive("/v1/retention", { every: 60_000 });
  const events = useLive("/v1/events?page_size=8&newest_first=true", { on: [""] });
  const name = useNames();
  return html`<h1 tabindex="-1">${t("nav.overview")}</h1>
    <${Loaded} live=${status}>${() => {
      const matters = needs(status.data, peers.data, ledger.data, retention.data, outbox.data);
      return html`<${Health} matters=${matters} asked=${[peers, ledger, outbox, retention]} />
        <${Figures} status=${status.data} ledger=${ledger.data} wallet=${balance.data} outbox=${outbox.data} />
        <div class="columns">
          <${Section} title=${t("overview.lately")} actions=${html`<a href="#/events">${t("overview.all_events")}</a>`}>
            <${Loaded} live=${events}>${() => html`<ol class="log">${events.data.events.map((event) => html`<li key=${event.seq}>
              <${When} us=${event.timestamp_us} /><code>${event.type}</code><span>${describe(event, name)}</span></li>`)}</ol>`}<//>
          <//>
          <${About} status=${status.data} retention=${retention.data} />
        </div>`;
    }}<//>`;
}

// What an owner should look at, the worst first: [tone, text, address, what the node says of it].
function needs(status, peers, ledger, retention, outbox) {
  const risks = status.objects;
  const dead = (peers?.peers ?? []).filter((peer) => peer.liveness === "LIVENESS_DEAD" && !peer.member.removed);
  const stuck = (outbox?.entries ?? []).filter((entry) => entry.trouble);
  const alerts = status.alerts.filter((alert) => alert.state !== "ALERT_STATE_OK" && !["objects_gone", "objects_at_risk"].includes(alert.name));
  return [
    status.removed && ["bad", t("needs.removed"), "#/mesh"],
    ...alerts.map((alert) => [
      alert.state === "ALERT_STATE_CRITICAL" ? "bad" : "warn",
      t("needs.alert", { name: `${t(`figures.${alert.name}`)}${alert.about && ` (${alert.about})`}`, value: num(alert.value, 1), threshold: num(alert.threshold, 1), since: stamp(alert.since_us) }),
      alert.about ? `#/sessions/${encodeURIComponent(alert.about)}` : "#/events",
    ]),
    ...status.notices.filter((notice) => !isOfMail(notice)).map((notice) => ["warn", "", "", notice]),
    dead.length > 0 && ["warn", t("needs.dead", { n: dead.length, names: dead.slice(0, 5).map((peer) => peer.member.name).join(", ") }), "#/mesh"],
    ledger?.enabled && ledger.open && ledger.reach_milli < ledger.quorum_milli && ["bad", t("needs.cut_off"), "#/ledger"],
    ledger?.muted_why && ["warn", "", "#/ledger", ledger.muted_why],
    risks?.gone > 0 && ["bad", t("needs.lost", { n: risks.gone, names: some(risks.gone_names, risks.gone) }), "#/storage/risk"],
    risks?.at_risk > 0 && ["warn", t("needs.bare", { n: risks.at_risk, names: some(risks.at_risk_names, risks.at_risk) }), "#/storage/risk"],
    stuck.length > 0 && ["warn", t("needs.stuck", { n: stuck.length }), "#/storage/outbox", stuck[0].trouble],
    retention?.held && ["warn", t("needs.held"), "#/storage/retention", retention.held],
  ].filter(Boolean).sort((a, b) => (a[0] === "bad" ? 0 : 1) - (b[0] === "bad" ? 0 : 1));
}

const some = (names, total) => names.join(", ") + (total > names.length ? ", …" : "");

// Nothing is called well before all that could be wrong has been asked for, and was told.
function Health({ matters, asked }) {
  const failed = asked.find((live) => live.error), known = !failed && asked.every((live) => !live.loading);
  const well = failed ? t("overview.unsure") : known ? t("overview.well") : t("loading");
  const said = useRef(null), text = matters.map(([, what, , why]) => `${what} ${why ?? ""}`).join(" ");
  useEffect(() => {
    if (!known) return;
    if (said.current !== null && said.current !== text) say(text || well);
    said.current = text;
  }, [text, known]);
  const worst = matters[0]?.[0] ?? (failed ? "warn" : known ? "good" : "");
  return html`<section class=${`health ${worst}`} aria-label=${t("overview.health")}>
    <p class="health-head"><span class="dot big" aria-hidden="true"></span><strong>${matters.length ? t("overview.attention", { n: matters.length }) : well}</strong></p>
    <${Problem} error=${failed?.error} retry=${failed?.reload} />
    ${matters.length > 0 && html`<ul>${matters.map(([tone, text, href, why]) => {
      const said = html`${text} ${why && html`<${Said} text=${why} />`}`;
      return html`<li key=${text + why}><${Badge} tone=${tone}>${t(`tone.${tone}`)}<//> ${href ? html`<a href=${href}>${said}</a>` : said}</li>`;
    })}</ul><p class="hint">${t("needs.more")} <code>offgrid doctor</code> <${Copy} text="offgrid doctor" /></p>`}
  </section>`;
}

function Figures({ status, ledger, wallet, outbox }) {
  const own = wallet?.accounts?.[0]?.balance;
  const waiting = (outbox?.entries ?? []).filter((entry) => !["OUTBOX_STATUS_COMPLETED", "OUTBOX_STATUS_CANCELLED"].includes(entry.status)).length;
  const cards = [
    ["#/mesh", t("figure.members"), `${num(status.peers_alive)} / ${num(status.peers_total)}`, t("figure.members_hint")],
    ["#/jobs", t("figure.jobs"), num(status.jobs_open), status.slots_total ? t("figure.slots", { busy: status.slots_busy, total: status.slots_total }) : t("figure.jobs_hint")],
    ["#/storage/outbox", t("figure.outbox"), outbox?.next_page_token ? `≥ ${num(waiting)}` : num(waiting), t("figure.outbox_hint")],
    ["#/ledger", t("figure.balance"), own ? credits(own.final_micro, 2) : "–", ledger?.pending_out_micro ? t("figure.pending", { amount: credits(ledger.pending_out_micro) }) : ledger?.open ? t("figure.pending", { amount: 0 }) : t("figure.no_ledger")],
    ["#/events", t("figure.events"), num(status.journal_seq), t("figure.commit", { ms: num(status.commit_ms_p50, 1) })],
  ];
  return html`<ul class="cards">${cards.map(([href, name, value, hint]) => html`<li><a class="card" href=${href}><span class="card-name">${name}</span><span class="card-value">${value}</span><span class="card-hint">${hint}</span></a></li>`)}</ul>`;
}

function About({ status, retention }) {
  const used = (retention?.shares ?? []).reduce((sum, share) => sum + share.used_bytes, 0);
  return html`<${Section} title=${t("overview.this_node")}>
    <${Facts} rows=${[
      [t("node.name"), status.name],
      [t("node.id"), html`<${Id} id=${status.node_id} />`],
      [t("node.mesh"), status.mesh],
      [t("node.roles"), status.roles.map((role) => t(`role.${plain(role)}`)).join(", ")],
      [t("node.version"), status.version],
      [t("node.uptime"), span(status.uptime_ms)],
      [t("node.data_dir"), html`<code class="wrap">${status.data_dir}</code>`],
      status.retention && [t("node.retention"), html`<${Said} text=${status.retention} />`],
      retention && [t("node.kept"), html`${bytes(used)} / ${bytes(retention.budget_bytes)} <${Bar} value=${used} max=${retention.budget_bytes} label=${t("node.kept")} />`],
    ]} />
  <//>`;
}
