// One job: where it is, why, what it says, and what came of it.

import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { bytesOf, lines, post, save, send, seg, textOf } from "../lib/api.js";
import { Badge, Confirm, Facts, Id, Loaded, Problem, Section, Table, useNames, When } from "../lib/parts.js";
import { bytes, credits, moment, num, span } from "../lib/format.js";
import { useFeed, useLive } from "../lib/live.js";
import { t } from "../lib/words.js";
import { ended, JobBadge, Verdicts } from "./jobs.js";

const LOG_CHARS_MAX = 100_000;

export function Job({ part }) {
  const path = `/v1/jobs/${seg(part)}`;
  const live = useLive(path, { every: 10_000 });
  useFeed("event", (event) => { if (event.subject === part) live.reload(); });
  useFeed("change", (change) => { if (change.jobs?.some((job) => job.job_id === part)) live.reload(); });
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
    job.error && [t("job.error"), html`<strong>${job.error}</strong> ${job.error_detail}`],
    [t("jobs.what"), html`<code>${job.needs || job.kind}</code> ${job.input_name}`],
    [t("jobs.host"), job.host ? name(job.host) : "–"],
    job.broker && [t("job.broker"), name(job.broker)],
    [t("job.route"), html`${t(`route.${job.route.replace("ROUTE_", "")}`)} ${job.route_reason}`],
    [t("jobs.made"), html`<${When} us=${job.created_us} /> <span class="quiet">${moment(job.created_us)}</span>`],
    ended(job) && [t("jobs.took"), span((job.updated_us - job.created_us) / 1e3)],
    [t("job.size"), t("job.tokens", { n: job.size_tokens })],
    [t("job.price"), t("job.per_million", { price: credits(job.price_micro) })],
    job.requirements && [t("form.requirements"), html`<code class="wrap">${job.requirements}</code>`],
    job.priority !== 0 && [t("form.priority"), num(job.priority)],
    job.deadline_us > 0 && [t("job.deadline"), moment(job.deadline_us)],
    job.replicas > 1 && [t("job.replicas"), t("job.agree", { quorum: job.quorum, replicas: job.replicas })],
  ]} />`;
}

function Why({ path, job, name }) {
  const why = useLive(`${path}:explain`, { on: ["JOB_"], every: ended(job) ? 0 : 5_000 });
  return html`<${Section} title=${t("why.title")}>
    <${Loaded} live=${why}>${() => html`<p>${why.data.story}</p>${!ended(job) && html`<${Verdicts} explained=${why.data} name=${name} />`}`}<//>
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
  const { result } = job, [error, setError] = useState(null);
  const text = result.output ? textOf(result.output) : "";
  const download = (object, name) => async () => {
    try { save(await (await send("GET", `/v1/objects/${seg(object)}:bytes`, undefined, "*/*")).blob(), name); } catch (why) { setError(why); }
  };
  return html`<${Section} title=${t("job.output")} actions=${html`
      ${result.output && html`<button type="button" class="plain" onClick=${() => save(new Blob([bytesOf(result.output)]), `${job.job_id}.out`)}>${t("download")}</button>`}
      ${result.output_object && html`<button type="button" class="plain" onClick=${download(result.output_object, `${job.job_id}.out`)}>${t("download")} (${bytes(result.output_bytes)})</button>`}
      ${result.files_object && html`<button type="button" class="plain" onClick=${download(result.files_object, `${job.job_id}.tar`)}>${t("job.files", { n: result.files.length })}</button>`}`}>
    <${Problem} error=${error} />
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
