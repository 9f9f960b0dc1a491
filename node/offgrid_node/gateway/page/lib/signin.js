// Where the node asks for a token: it is sent once, and the browser keeps the cookie that comes back.

import { useRef, useState } from "../vendor/htm-preact.js";
import { post } from "./api.js";
import { Empty, Field, html, Problem } from "./parts.js";
import { t } from "./words.js";

export function SignIn({ done }) {
  const input = useRef(null);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try { await post("/v1/login", { token: input.current.value.trim() }); done(); } catch (why) { setError(why); }
  };
  return html`<h1 tabindex="-1">${t("signin.title")}</h1>
    <form class="panel narrow" onSubmit=${submit}>
      <p>${t("signin.text")}</p>
      <${Field} label=${t("signin.token")}>${(field) => html`<input ...${field} ref=${input} type="password" autocomplete="current-password" required />`}<//>
      <${Problem} error=${error} />
      <button type="submit">${t("signin.go")}</button>
      <${Empty} text=${t("signin.where")} command="offgrid page" />
    </form>`;
}
