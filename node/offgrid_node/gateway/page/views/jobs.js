// Jobs as they come and go, the form that makes one, and the broker's order book.

import { html, useState } from "../vendor/htm-preact.js";
import { Badge, Empty, Facts, Id, Loaded, Section, Table, Tabs, useNames, When } from "../lib/parts.js";
import { num, percent, span } from "../lib/format.js";
import { useFeed, useLive, usePages } from "../lib/live.js";
import { t } from "../lib/words.js";
import { caseOf } from "./event_text.js";
import { JobForm } from "./job_form.js";

const FILTERS = {
  all: [],
  open: ["CREATED", "QUEUED", "AWARDED", "RUNNING"],
  completed: ["COMPLETED"],
  failed: ["FAILED", "CANCELLED", "EXPIRED"],
};
const TONES = { COMPLETED: "good", FAILED: "bad", EXPIRED: "bad", CANCELLED: "quiet", RUNNING: "busy", AWARDED: "busy", QUEUED: "warn", CREATED: "quiet" };
const NEWS_MAX = 200; // jobs that events have told of since the page was asked for

const plain = (state) => state.replace("JOB_STATE_", "");
export const ended = (job) => ["COMPLETED", "FAILED", "CANCELLED", "EXPIRED"].includes(plain(job.state));
export const JobBadge = ({ state }) => html`<${Badge} tone=${TONES[plain(state)]}>${t(`job.${plain(state)}`)}<//>`;

export function Jobs({ tab }) {
  return html`<h1 tabindex="-1">${t("nav.jobs")}</h1>
    <${Tabs} label=${t("nav.jobs")} here=${tab ? `#/jobs/${tab}` : "#/jobs"} items=${[["#/jobs", t("jobs.list")], ["#/jobs/offers", t("offers.title")]]} />
    ${tab === "offers" ? html`<${Offers} />` : html`<${JobForm} /><${List} />`}`;
}

function List() {
  const [filter, choose] = useState("all");
  const states = FILTERS[filter].map((state) => `&states=JOB_STATE_${state}`).join("");
  const live = usePages(`/v1/jobs?page_size=100&newest_first=true${states}`, { field: "jobs", on: ["JOB_"], every: 20_000 });
  const news = useNews();
  const name = useNames();
  const rows = merged(live.rows, news, FILTERS[filter]);
  return html`<${Section} title=${t("jobs.list")} actions=${html`<label class="inline">${t("jobs.show")} <select value=${filter} onChange=${(event) => choose(event.target.value)}>
      ${Object.keys(FILTERS).map((key) => html`<option value=${key}>${t(`jobs.filter_${key}`)}</option>`)}</select></label>`}>
    <${Loaded} live=${live}>${() => html`<${Table} caption=${t("jobs.list")} rows=${rows} keyOf=${(job) => job.job_id} more=${live.more}
      empty=${html`<${Empty} text=${t("jobs.empty")} command="offgrid job run --echo hello" />`}
      columns=${[
        { head: t("jobs.job"), cell: (job) => html`<${Id} id=${job.job_id} href=${`#/jobs/${encodeURIComponent(job.job_id)}`} />` },
        { head: t("jobs.state"), cell: (job) => html`<${JobBadge} state=${job.state} />` },
        { head: t("jobs.what"), cell: (job) => html`<code>${job.needs || job.kind}</code>${job.input_name && html` <span class="quiet">${job.input_name}</span>`}` },
        { head: t("jobs.host"), cell: (job) => job.host ? name(job.host) : "–" },
        { head: t("jobs.attempt"), num: true, wide: true, cell: (job) => num(job.attempt) },
        { head: t("jobs.took"), num: true, wide: true, cell: (job) => ended(job) ? span((job.updated_us - job.created_us) / 1e3) : "–" },
        { head: t("jobs.made"), cell: (job) => html`<${When} us=${job.created_us} />` },
      ]} />`}<//>
  <//>`;
}

// Jobs that events have told of, by id: on the screen before the list has been asked for again.
function useNews() {
  const [news, set] = useState(new Map());
  const take = (jobs) => {
    const own = jobs.filter((job) => !job.parent_id);
    if (own.length) set((before) => new Map([...before, ...own.map((job) => [job.job_id, job])].slice(-NEWS_MAX)));
  };
  useFeed("event", (event) => { if (caseOf(event) === "job") take([event.data]); });
  useFeed("change", (change) => take(change.jobs ?? []));
  return news;
}

export function merged(rows, news, states) {
  const known = new Map(rows.map((job) => [job.job_id, job]));
  for (const [id, job] of news) if ((known.get(id)?.updated_us ?? 0) <= job.updated_us) known.set(id, job);
  return [...known.values()].filter((job) => !states.length || states.includes(plain(job.state))).sort((a, b) => b.created_us - a.created_us);
}

function Offers() {
  const live = useLive("/v1/offers?page_size=200", { on: ["JOB_QUEUED", "JOB_AWARDED", "PEER_", "HOST_"], every: 3_000 });
  return html`<${Section} title=${t("offers.title")} hint=${t("offers.hint")}>
    ${live.error?.status === "FAILED_PRECONDITION" ? html`<${Empty} text=${live.error.message} />` : html`<${Loaded} live=${live}>${() => html`
      <${Facts} rows=${[[t("offers.queued"), num(live.data.queued)]]} />
      <${Table} caption=${t("offers.title")} rows=${live.data.entries} keyOf=${(entry) => entry.profile.host}
        empty=${html`<${Empty} text=${t("offers.empty")} command="offgrid market" />`}
        columns=${[
          { head: t("jobs.host"), cell: (entry) => entry.profile.name || html`<${Id} id=${entry.profile.host} />` },
          { head: t("jobs.state"), cell: (entry) => html`<${Badge} tone=${!entry.alive ? "bad" : entry.paused ? "warn" : "good"}>${t(!entry.alive ? "offers.dead" : entry.paused ? "offers.paused" : "offers.ready")}<//>` },
          { head: t("offers.slots"), num: true, cell: (entry) => `${num(entry.slots_free)} / ${num(entry.profile.slots)}` },
          { head: t("offers.does"), cell: (entry) => entry.profile.executors.map((one) => html`<code class="chip">${one}</code>`) },
          { head: t("offers.ask"), num: true, cell: (entry) => entry.offers.length ? num(Math.min(...entry.offers.map((offer) => offer.ask_micro)) / 1e6, 6) : "–" },
          { head: t("offers.reputation"), num: true, wide: true, cell: (entry) => percent(entry.reputation) },
          { head: t("offers.latency"), num: true, wide: true, cell: (entry) => `${num(entry.latency_ms)} ms` },
          { head: t("offers.machine"), wide: true, cell: (entry) => `${entry.profile.platform} · ${num(entry.profile.cpus)} CPU · ${num(entry.profile.memory_mb)} MB` },
        ]} />`}<//>`}
  <//>`;
}

export function Verdicts({ explained, name }) {
  return html`<${Table} caption=${t("why.title")} rows=${explained.verdicts} keyOf=${(verdict) => verdict.host} empty=${html`<p class="hint">${t("why.nobody")}</p>`}
    columns=${[
      { head: t("jobs.host"), cell: (verdict) => name(verdict.host) },
      { head: t("why.verdict"), cell: (verdict) => html`<${Badge} tone=${verdict.wins ? "good" : verdict.able ? "busy" : "quiet"}>${t(verdict.wins ? "why.wins" : verdict.able ? "why.able" : "why.unable")}<//>` },
      { head: t("why.reason"), cell: (verdict) => verdict.reason || "–" },
      { head: t("offers.ask"), num: true, wide: true, cell: (verdict) => num(verdict.ask_micro / 1e6, 6) },
    ]} />`;
}

