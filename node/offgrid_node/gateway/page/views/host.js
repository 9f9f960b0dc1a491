// This node as a host: whether it takes work, for whom, and whose objects it keeps.

import { html, useState } from "../vendor/htm-preact.js";
import { useLive } from "../lib/live.js";
import { post } from "../lib/node.js";
import { Act, Badge, Confirm, Empty, Facts, Loaded, Said, Section, Table, useNames } from "../lib/parts.js";
import { bytes, credits, num, t } from "../lib/reader.js";

const HOST_TONES = { on: "good", off: "warn", draining: "busy", drained: "quiet" };

export function Host() {
  const status = useLive("/v1/status"), isHost = status.data?.roles.includes("ROLE_HOST");
  const live = useLive(isHost ? "/v1/host" : "", { on: ["HOST_"], parts: ["host"], every: 10_000 });
  const name = useNames(), [asking, ask] = useState(false);
  const turn = (state) => async () => { await post("/v1/host:toggle", { state }); live.reload(); };
  if (status.data && !isHost) return html`<${Empty} text=${t("host.none")} />`;
  return html`<${Loaded} live=${live}>${() => {
    const { host } = live.data;
    return html`<${Section} title=${t("host.title")} actions=${html`
        ${host.state !== "on" && html`<${Act} verb=${t("host.turn_on")} work=${turn("on")} />`}
        ${host.state === "on" && html`<${Act} verb=${t("host.turn_off")} work=${turn("off")} />`}
        ${["on", "off"].includes(host.state) && html`<button type="button" class="danger" onClick=${() => ask(true)}>${t("host.drain")}</button>`}`}>
      <${Facts} rows=${[
        [t("jobs.state"), html`<${Badge} tone=${HOST_TONES[host.state]}>${t(`host.${host.state}`)}<//> <${Said} text=${host.detail} />`],
        [t("host.slots"), `${num(host.slots_busy)} / ${num(host.profile.slots)}`],
        [t("host.unsettled"), num(host.unsettled)],
        [t("offers.does"), host.profile.executors.map((one) => html`<code class="chip">${one}</code>`)],
      ]} /><//>
      <${Section} title=${t("host.rules")}><${Table} caption=${t("host.rules")} rows=${host.rules} keyOf=${(rule) => rule.name} empty=${html`<${Empty} text=${t("host.no_rules")} />`} columns=${[
        { head: t("node.name"), cell: (rule) => rule.name },
        { head: t("host.owners"), cell: (rule) => rule.owners.join(", ") },
        { head: t("why.verdict"), cell: (rule) => html`<${Badge} tone=${rule.deny ? "bad" : rule.holds ? "good" : "quiet"}>${t(rule.deny ? "host.deny" : rule.holds ? "host.holds" : "host.rests")}<//>` },
        { head: t("offers.ask"), num: true, cell: (rule) => rule.deny ? "–" : credits(rule.price_micro) },
        { head: t("host.slots"), num: true, wide: true, cell: (rule) => `${num(rule.slots_busy)} / ${num(rule.slots || host.profile.slots)}` },
      ]} /><//>
      <${Section} title=${t("host.kept")}><${Table} caption=${t("host.kept")} rows=${host.kept} keyOf=${(kept) => kept.owner} empty=${html`<${Empty} text=${t("host.keeps_nothing")} />`} columns=${[
        { head: t("storage.owner"), cell: (kept) => name(kept.owner) },
        { head: t("storage.objects"), num: true, cell: (kept) => num(kept.objects) },
        { head: t("storage.size"), num: true, cell: (kept) => bytes(kept.bytes) },
        { head: t("mesh.life"), cell: (kept) => html`<${Badge} tone=${kept.removed ? "bad" : kept.alive ? "good" : "warn"}>${t(kept.removed ? "host.removed" : kept.alive ? "life.ALIVE" : "life.DEAD")}<//>` },
      ]} /><//>
      ${asking && html`<${Confirm} title=${t("host.drain")} text=${t("host.drain_text")} verb=${t("host.drain")} onClose=${() => ask(false)} onYes=${turn("drain")} />`}`;
  }}<//>`;
}
