// Jobs as they come and go, one of them whole, and the broker's order book.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { caseOf } from "./events.js";
import { Host } from "./host.js";
import { JobForm } from "./job_form.js";
import { useFeed, useLive, usePages } from "../lib/live.js";
import { bringObject, bytesOf, call, lines, post, query, save, seg, textOf } from "../lib/node.js";
import { Act, Badge, Confirm, Empty, Facts, Id, Loaded, Problem, Said, Section, Table, Tabs, useNames, When } from "../lib/parts.js";
import { bytes, credits, moment, num, percent, plain, span, t } from "../lib/reader.js";

const FILTERS = {
  all: [],
  open: ["CREATED", "QUEUED", "AWARDED", "RUNNING"],
  completed: ["COMPLETED"],
  failed: ["FAILED", "CANCELLED", "EXPIRED"],
};
const JOB_TONES = { COMPLETED: "good", FAILED: "bad", EXPIRED: "bad", CANCELLED: "quiet", RUNNING: "busy", AWARDED: "busy", QUEUED: "warn", CREATED: "quiet" };
const LOG_CHARS_MAX = 100_000;
const NEWS_MAX = 200; // jobs that events have told of since the page was asked for

const ended = (job) => ["COMPLETED", "FAILED", "CANCELLED", "EXPIRED"].includes(plain(job.state));
const JobBadge = ({ state }) => html`<${Badge} tone=${JOB_TONES[plain(state)]}>${t(`job.${plain(state)}`)}<//>`;

export function Jobs({ tab }) {
  return html`<h1 tabindex="-1">${t("nav.jobs")}</h1>
    <${Tabs} label=${t("nav.jobs")} here=${tab ? `#/jobs/${tab}` : "#/jobs"} items=${[["#/jobs", t("jobs.list")], ["#/jobs/offers", t("offers.title")], ["#/jobs/schedules", t("schedules.title")], ["#/jobs/host", t("host.title")]]} />
    ${tab === "offers" ? html`<${Offers} />` : tab === "schedules" ? html`<${Schedules} />` : tab === "host" ? html`<${Host} />` : html`<${JobForm} /><${List} />`}`;
}

function List() {
  const [filter, choose] = useState("all");
  const states = FILTERS[filter].map((state) => `JOB_STATE_${state}`);
  const live = usePages(query("/v1/jobs", { newest_first: true, states }), { field: "jobs", on: ["JOB_"], every: 20_000 });
  const news = useNews();
  const name = useNames();
  const rows = merged(live.rows, news, FILTERS[filter]);
  return html`<${Section} title=${t("jobs.list")} actions=${html`<label class="inline">${t("jobs.show")} <select value=${filter} onChange=${(event) => choose(event.target.value)}>
      ${Object.keys(FILTERS).map((key) => html`<option value=${key}>${t(`jobs.filter_${key}`)}</option>`)}</select></label>`}>
    <${Loaded} live=${live}>${() => html`<${Table} caption=${t("jobs.list")} rows=${rows} keyOf=${(job) => job.job_id} more=${live.more} busy=${live.busy}
      empty=${html`<${Empty} text=${t("jobs.empty")} command="offgrid job run FILE --builtin echo" />`}
      columns=${[
        { head: t("jobs.job"), cell: (job) => html`<${Id} id=${job.job_id} href=${`#/jobs/${encodeURIComponent(job.job_id)}`} />` },
        { head: t("jobs.state"), bare: true, cell: (job) => html`<${JobBadge} state=${job.state} /> ${job.error && html`<span class="quiet">${job.error}</span>`}` },
        { head: t("jobs.what"), bare: true, cell: (job) => html`<code>${job.needs || job.kind}</code>${job.input_name && html` <span class="quiet">${job.input_name}</span>`}` },
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
  useFeed("event", (events) => take(events.filter((event) => caseOf(event) === "job").map((event) => event.data)));
  useFeed("change", (changes) => take(changes.flatMap((change) => change.jobs ?? [])));
  return news;
}

function merged(rows, news, states) {
  const known = new Map(rows.map((job) => [job.job_id, job]));
  for (const [id, job] of news) if ((known.get(id)?.updated_us ?? 0) <= job.updated_us) known.set(id, job);
  return [...known.values()].filter((job) => !states.length || states.includes(plain(job.state))).sort((a, b) => b.created_us - a.created_us);
}

// The book of this node; of one that is no broker, who keeps one.
function Offers() {
  const peers = useLive("/v1/peers?page_size=1000", { on: ["MEMBER_", "PEER_"], every: 60_000 });
  const rows = peers.data?.peers ?? [], keeps = (peer) => peer.roles_in_force.includes("ROLE_BROKER");
  const names = rows.filter(keeps).map((peer) => peer.member.name).join(", ");
  return html`<${Loaded} live=${peers}>${() => rows.some((peer) => peer.self && keeps(peer)) ? html`<${Book} />`
    : html`<${Section} title=${t("offers.title")}><${Empty} text=${t("offers.elsewhere", { names: names || "–" })} command="offgrid peers" /><//>`}<//>`;
}

function Book() {
  const live = useLive("/v1/offers?page_size=200", { on: ["JOB_QUEUED", "JOB_AWARDED", "PEER_", "HOST_"], every: 3_000 });
  return html`<${Section} title=${t("offers.title")} hint=${t("offers.hint")}>
    ${live.error?.status === "FAILED_PRECONDITION" ? html`<p class="empty"><${Said} text=${live.error.message} /></p>` : html`<${Loaded} live=${live}>${() => html`
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
          { head: t("offers.latency"), num: true, wide: true, cell: (entry) => `${entry.latency_ms > 0 ? "+" : ""}${num(entry.latency_ms)} ms` },
          { head: t("offers.machine"), wide: true, cell: (entry) => `${entry.profile.platform} · ${num(entry.profile.cpus)} CPU · ${num(entry.profile.memory_mb)} MB` },
        ]} />`}<//>`}
  <//>`;
}

function Schedules() {
  const live = usePages("/v1/schedules", { field: "schedules", on: ["JOB_CREATED"], every: 15_000 });
  const turn = ({ schedule_id, paused }) => async () => { await call("PATCH", `/v1/schedules/${seg(schedule_id)}`, { paused: !paused }); live.reload(); };
  return html`<${Section} title=${t("schedules.title")} hint=${t("schedules.hint")}><${Loaded} live=${live}>${() => html`
    <${Table} caption=${t("schedules.title")} rows=${live.rows} keyOf=${(one) => one.schedule_id} more=${live.more} busy=${live.busy} empty=${html`<${Empty} text=${t("schedules.empty")} command="offgrid schedule add '0 3 * * *' FILE --builtin echo" />`} columns=${[
      { head: t("node.name"), cell: (one) => one.name || html`<${Id} id=${one.schedule_id} />` },
      { head: t("schedules.times"), bare: true, cell: (one) => html`<code>${one.cron}</code> <span class="quiet">${one.timezone}</span>` },
      { head: t("jobs.state"), bare: true, cell: (one) => html`<${Badge} tone=${one.trouble ? "bad" : one.paused ? "warn" : "good"}>${t(one.paused ? "schedules.paused" : "schedules.on")}<//> ${one.trouble && html`<${Said} text=${one.trouble} />`}` },
      { head: t("schedules.next"), cell: (one) => one.paused ? "–" : html`<${When} us=${one.next_us} />` },
      { head: t("schedules.last"), cell: (one) => one.last_job_id ? html`<${Id} id=${one.last_job_id} href=${`#/jobs/${encodeURIComponent(one.last_job_id)}`} />` : "–" },
      { head: t("mesh.actions"), bare: true, cell: (one) => html`<${Act} verb=${t(one.paused ? "events.go_on" : "events.hold")} work=${turn(one)} />` },
    ]} />`}<//><//>`;
}

function Verdicts({ explained, name }) {
  return html`<${Table} caption=${t("why.title")} rows=${explained.verdicts} keyOf=${(verdict) => verdict.host} empty=${html`<p class="hint">${t("why.nobody")}</p>`}
    columns=${[
      { head: t("jobs.host"), cell: (verdict) => name(verdict.host) },
      { head: t("why.verdict"), cell: (verdict) => html`<${Badge} tone=${verdict.wins ? "good" : verdict.able ? "busy" : "quiet"}>${t(verdict.wins ? "why.wins" : verdict.able ? "why.able" : "why.unable")}<//>` },
      { head: t("why.reason"), cell: (verdict) => verdict.reason ? html`<${Said} text=${verdict.reason} />` : "–" },
      { head: t("offers.ask"), num: true, wide: true, cell: (verdict) => num(verdict.ask_micro / 1e6, 6) },
    ]} />`;
}

// ---- one job

export function Job({ part }) {
  const path = `/v1/jobs/${seg(part)}`;
  const live = useLive(path, { every: 10_000 });
  useFeed("event", (events) => { if (events.some((event) => event.subject === part)) live.reload(); });
  useFeed("change", (changes) => { if (changes.some((change) => change.jobs?.some((job) => job.job_id === part))) live.reload(); });
  const name = useNames();
  const [asking, ask] = useState(false);
  const job = live.data?.job;
  return html`<p class="crumb"><a href="#/jobs">${t("nav.jobs")}</a></p><h1 tabindex="-1">${t("jobs.job")} <code class="wrap">${part}</code></h1>
    <${Loaded} live=${live}>${() => html`
      <${Section} title=${t("job.state")} actions=${!ended(job) && html`<button type="button" class="danger" onClick=${() => ask(true)}>${t("job.cancel")}</button>`}>
        <${JobFacts} job=${job} name=${name} />
      <//>
      <${Why} path=${path} job=${job} name=${name} />
      ${!ended(job) && html`<${Progress} path=${path} key=${job.attempt} />`}
      ${job.result && html`<${Result} job=${job} />`}
      ${job.result?.receipt?.facts && html`<${Receipt} facts=${job.result.receipt.facts} name=${name} />`}
      <${Attempts} job=${job} name=${name} executions=${live.data.executions} />
      ${asking && html`<${Confirm} title=${t("job.cancel_title")} text=${t("job.cancel_text")} verb=${t("job.cancel")} onClose=${() => ask(false)}
        onYes=${async () => { await post("/v1/jobs:cancel", { job_ids: [part], reason: "cancelled on the web page" }); live.reload(); }} />`}`}<//>`;
}

function JobFacts({ job, name }) {
  return html`<${Facts} rows=${[
    [t("jobs.state"), html`<${JobBadge} state=${job.state} />`],
    job.error && [t("job.error"), html`<strong>${job.error}</strong>`],
    [t("jobs.what"), html`<code>${job.needs || job.kind}</code> ${job.input_name}`],
    [t("jobs.host"), job.host ? name(job.host) : "–"],
    job.broker && [t("job.broker"), name(job.broker)],
    [t("job.route"), html`${t(`route.${plain(job.route)}`)} <${Said} text=${job.route_reason} />`],
    [t("jobs.made"), html`<${When} us=${job.created_us} /> <span class="quiet">${moment(job.created_us)}</span>`],
    ended(job) && [t("jobs.took"), span((job.updated_us - job.created_us) / 1e3)],
    [t("job.size"), t("job.tokens", { n: job.size_tokens })],
    [t("job.price"), job.price_micro ? credits(job.price_micro) : "–"],
    job.requirements && [t("form.requirements"), html`<code class="wrap">${job.requirements}</code>`],
    job.priority !== 0 && [t("form.priority"), num(job.priority)],
    job.deadline_us > 0 && [t("job.deadline"), moment(job.deadline_us)],
    job.replicas > 1 && [t("job.replicas"), t("job.agree", { quorum: job.quorum, replicas: job.replicas })],
  ]} />`;
}

function Why({ path, job, name }) {
  const why = useLive(`${path}:explain`, { on: ["JOB_"], every: ended(job) ? 0 : 5_000 });
  return html`<${Section} title=${t("why.title")}>
    <${Loaded} live=${why}>${() => html`<p><${Said} text=${why.data.story} /></p><${Verdicts} explained=${why.data} name=${name} />`}<//>
  <//>`;
}

// What the job says while it runs, as it says it.
function Progress({ path }) {
  const [said, set] = useState({ log: "", fraction: null, message: "", error: null });
  useEffect(() => {
    const stop = new AbortController();
    (async () => {
      try {
        for await (const { progress } of lines(`${path}:progress`, stop.signal)) {
          if (!progress) continue;
          const more = (progress.log ? textOf(progress.log) : "") + (progress.output ? textOf(progress.output) : "");
          set((before) => ({ log: (before.log + more).slice(-LOG_CHARS_MAX), fraction: progress.fraction ?? before.fraction, message: progress.message || before.message, error: null }));
        }
      } catch (error) {
        if (!stop.signal.aborted) set((before) => ({ ...before, error }));
      }
    })();
    return () => stop.abort();
  }, [path]);
  const silent = !said.log && said.fraction === null && !said.message;
  return html`<${Section} title=${t("job.says")}>
    ${said.fraction !== null && html`<progress max="1" value=${said.fraction} aria-label=${t("job.progress")}></progress> `}${said.message && html`<span>${said.message}</span>`}
    ${said.log && html`<pre tabindex="0">${said.log}</pre>`}${silent && html`<p class="hint">${t("job.silent")}</p>`}<${Problem} error=${said.error} />
  <//>`;
}

function Result({ job }) {
  const { result } = job;
  const text = result.output ? textOf(result.output) : "";
  return html`<${Section} title=${t("job.output")} actions=${html`
      ${result.output && html`<button type="button" class="plain" onClick=${() => save(new Blob([bytesOf(result.output)]), `${job.job_id}.output`)}>${t("download")}</button>`}
      ${result.output_object && html`<${Act} verb=${`${t("download")} (${bytes(result.output_bytes)})`} work=${() => bringObject(result.output_object)} />`}
      ${result.files_object && html`<${Act} verb=${t("job.files", { n: result.files.length })} work=${() => bringObject(result.files_object)} />`}`}>
    ${text ? html`<pre tabindex="0" data-test="output">${text.slice(0, LOG_CHARS_MAX)}</pre>` : html`<p class="hint">${t(result.output_object ? "job.output_large" : "job.output_empty")}</p>`}
    ${result.log && html`<h3>${t("job.log")}</h3><pre tabindex="0">${textOf(result.log).slice(-LOG_CHARS_MAX)}</pre>`}
    ${result.exit_code !== 0 && html`<p>${t("job.exit", { code: result.exit_code })}</p>`}
  <//>`;
}

function Receipt({ facts, name }) {
  return html`<${Section} title=${t("receipt.title")} hint=${t("receipt.hint")}>
    <${Facts} rows=${[
      [t("jobs.host"), name(facts.node_id)],
      [t("receipt.executor"), facts.executor],
      [t("receipt.latency"), span(facts.latency_ms)],
      [t("receipt.cpu"), span(facts.cpu_ms)],
      [t("receipt.memory"), bytes(facts.memory_peak_bytes)],
      [t("receipt.tokens"), num(facts.compute_tokens_m, 6)],
      [t("receipt.digest"), html`<code class="wrap">${facts.result_digest}</code>`],
    ]} />
  <//>`;
}

function Attempts({ job, name, executions }) {
  if (!job.attempts.length && !executions.length) return null;
  return html`<${Section} title=${t("job.attempts")}>
    <${Table} caption=${t("job.attempts")} rows=${job.attempts} keyOf=${(attempt) => attempt.number} empty=${html`<span></span>`} columns=${[
      { head: t("jobs.attempt"), cell: (attempt) => num(attempt.number) },
      { head: t("jobs.host"), cell: (attempt) => attempt.host ? name(attempt.host) : "–" },
      { head: t("job.outcome"), cell: (attempt) => attempt.outcome || "–" },
      { head: t("jobs.took"), num: true, cell: (attempt) => attempt.ended_us ? span((attempt.ended_us - attempt.started_us) / 1e3) : "–" },
    ]} />
    ${executions.length > 0 && html`<${Table} caption=${t("job.executions")} rows=${executions} keyOf=${(one) => one.job_id} columns=${[
      { head: t("job.execution"), cell: (one) => html`<${Id} id=${one.job_id} href=${`#/jobs/${one.job_id}`} />` },
      { head: t("jobs.state"), cell: (one) => html`<${JobBadge} state=${one.state} />` },
      { head: t("jobs.host"), cell: (one) => one.host ? name(one.host) : "–" },
      { head: t("job.agreed"), cell: (one) => html`<${Badge} tone=${one.agreed ? "good" : "quiet"}>${t(one.agreed ? "yes" : "no")}<//>` },
    ]} />`}
  <//>`;
}
