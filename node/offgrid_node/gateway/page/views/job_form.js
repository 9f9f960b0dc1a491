// The form that makes a job. What is typed stays until the node has taken it.

import { html, useRef, useState } from "../vendor/htm-preact.js";
import { useDraft } from "../lib/live.js";
import { base64Of, base64OfText, post } from "../lib/node.js";
import { Field, Problem, say } from "../lib/parts.js";
import { bytes, t } from "../lib/reader.js";

const KINDS = ["echo", "command", "wasm", "llm"];
const EMPTY = { kind: "echo", input: "", command: "", args: "", model: "", requirements: "", priority: "0", timeout: "" };
const MODULE_BYTES_MAX = 8_000_000, INPUT_BYTES_MAX = 65_536;

export function JobForm() {
  const [draft, change, clear, requestOf] = useDraft("job", EMPTY);
  const [state, set] = useState({ busy: false, error: null, made: "" });
  const module = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    set({ busy: true, error: null, made: "" });
    try {
      const file = module.current?.files[0], { request, ...typed } = draft;
      const request_id = requestOf([typed, file?.name, file?.size, file?.lastModified]);
      const job = await specOf(draft, file);
      const task_id = await taskFor(draft.kind);
      const made = await post("/v1/jobs:run", { task_id, jobs: [job], request_id });
      set({ busy: false, error: null, made: made.job_ids[0] });
      say(t("form.made"));
      clear({ kind: draft.kind });
    } catch (error) {
      set({ busy: false, error, made: "" });
    }
  };
  const text = (name) => ({ value: draft[name], onInput: (event) => change({ [name]: event.target.value }) });
  return html`<details class="panel form"><summary>${t("form.title")}</summary>
    <form onSubmit=${submit}>
      <fieldset class="choices"><legend>${t("form.kind")}</legend>${KINDS.map((kind) => html`<label><input type="radio" name="kind" value=${kind} checked=${draft.kind === kind} onChange=${() => change({ kind })} /> ${t(`form.kind_${kind}`)}</label>`)}</fieldset>
      <p class="hint">${t(`form.hint_${draft.kind}`)}</p>
      <div class="grid">
        ${draft.kind === "command" && html`<${Field} label=${t("form.command")}>${(field) => html`<input ...${field} ...${text("command")} required autocapitalize="off" spellcheck=${false} />`}<//>`}
        ${draft.kind === "wasm" && html`<${Field} label=${t("form.module")} hint=${t("form.module_hint", { size: bytes(MODULE_BYTES_MAX) })}>${(field) => html`<input ...${field} type="file" accept=".wasm,.wat" ref=${module} required />`}<//>`}
        ${(draft.kind === "command" || draft.kind === "wasm") && html`<${Field} label=${t("form.args")} hint=${t("form.args_hint")}>${(field) => html`<input ...${field} ...${text("args")} spellcheck=${false} />`}<//>`}
        ${draft.kind === "llm" && html`<${Field} label=${t("form.model")}>${(field) => html`<input ...${field} ...${text("model")} required spellcheck=${false} />`}<//>`}
      </div>
      <${Field} label=${t(draft.kind === "llm" ? "form.question" : "form.input")}>${(field) => html`<textarea ...${field} ...${text("input")} rows="3"></textarea>`}<//>
      <details class="more-fields"><summary>${t("form.more")}</summary><div class="grid">
        <${Field} label=${t("form.requirements")} hint=${t("form.requirements_hint")}>${(field) => html`<input ...${field} ...${text("requirements")} spellcheck=${false} />`}<//>
        <${Field} label=${t("form.priority")} hint=${t("form.priority_hint")}>${(field) => html`<input ...${field} ...${text("priority")} type="number" min="-100" max="100" />`}<//>
        <${Field} label=${t("form.timeout")} hint=${t("form.timeout_hint")}>${(field) => html`<input ...${field} ...${text("timeout")} type="number" min="1" max="86400" />`}<//>
      </div></details>
      <${Problem} error=${state.error} group="form" />
      <div class="row"><button type="submit" disabled=${state.busy}>${t("form.submit")}</button>
        ${state.made && html`<span>${t("form.made")} <a href=${`#/jobs/${state.made}`}><code>${state.made}</code></a></span>`}</div>
    </form></details>`;
}

async function specOf(draft, file) {
  const input = base64OfText(draft.input);
  if (draft.input.length > INPUT_BYTES_MAX) throw new Error(t("form.too_long", { size: bytes(INPUT_BYTES_MAX) }));
  const args = draft.args.split(/\s+/).filter(Boolean);
  const payload = { input };
  if (draft.kind === "echo") payload.builtin = { name: "echo" };
  if (draft.kind === "command") payload.process = { command: draft.command.trim(), args };
  if (draft.kind === "llm") payload.llm = { model: draft.model.trim() };
  if (draft.kind === "wasm") {
    if (file.size > MODULE_BYTES_MAX) throw new Error(t("form.too_large", { size: bytes(MODULE_BYTES_MAX) }));
    payload.wasm = { module: base64Of(new Uint8Array(await file.arrayBuffer())), args };
    payload.input_name = file.name;
  }
  return { payload, requirements: draft.requirements.trim(), priority: Number(draft.priority) || 0, timeout_ms: Math.round(Number(draft.timeout) * 1_000) || 0 };
}

// The task of this browser's day for such jobs: made once, found again by its request id.
async function taskFor(kind) {
  const what = kind === "llm" ? "llm_call" : "compute", day = new Date().toISOString().slice(0, 10);
  const { mission } = await post("/v1/missions", { title: `Web page ${day}`, request_id: `page-mission-${day}` });
  const { task } = await post("/v1/tasks", { mission_id: mission.mission_id, name: "jobs of the web page", kind: what, request_id: `page-task-${day}-${what}` });
  return task.task_id;
}

