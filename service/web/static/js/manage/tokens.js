// Tokens and enrolments: the list, and the forms of new ones. A token is shown once.

import { post } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make, setText } from "../shared/dom.js";
import { number, select, text } from "../shared/fields.js";
import { moment } from "../shared/format.js";

const KINDS = { server: "reports for one server", fleet: "reports for any server", read: "reads", admin: "does everything", enrolment: "enrols agents" };
const NEW_KINDS = { read: "read: reads everything", server: "server: reports for one server", fleet: "fleet: reports for any server", admin: "admin: does everything" };
const STATES = /** @type {const} */ ({ active: "ok", spent: "warn", expired: "warn", revoked: "bad" });

/**
 * @param {Api.TokenInfo[]} tokens
 * @param {{ onRevoke: (token: Api.TokenInfo) => void }} options
 */
export function tokenTable(tokens, { onRevoke }) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Tokens, by id"),
    make("thead", {}, make(
      "tr", {}, ...["Token", "What it does", "State"].map((name) => make("th", { scope: "col" }, name)),
      ...["Created", "Last used", "Until"].map((name) => make("th", { scope: "col", class: "wide" }, name)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Revoke")),
    )),
    make("tbody", {}, ...tokens.map((token) => make(
      "tr", { class: token.state === "active" ? "" : "off" },
      make("th", { scope: "row" }, make("code", {}, token.id), make("span", { class: "muted reason" }, token.name)),
      make("td", {}, `${KINDS[token.kind]}${token.server_id ? `: ${token.server_id}` : ""}`),
      make("td", {}, make("span", { class: `badge ${STATES[token.state]}` }, token.uses_left ? `${token.state}, ${token.uses_left} left` : token.state)),
      make("td", { class: "wide" }, moment(token.created_at)),
      make("td", { class: "wide" }, token.last_used_at ? moment(token.last_used_at) : "never"),
      make("td", { class: "wide" }, token.expires_at ? moment(token.expires_at) : "it is revoked"),
      make("td", { class: "number" }, token.state === "active" || token.state === "spent"
        ? make("button", { type: "button", class: "quiet", "aria-label": `Revoke ${token.id}`, onclick: () => onRevoke(token) }, "Revoke") : null),
    ))),
  );
}

/** @param {() => void} onMade */
export function tokenForm(onMade) {
  const kind = select("Kind", NEW_KINDS, "read");
  const server = text("Server", { maxlength: 100, pattern: "[A-Za-z0-9._\\-]{1,100}", hint: "The only server it may report for." });
  const name = text("Description", { maxlength: 255, hint: "For example: wall display, Ada’s laptop." });
  const days = number("Valid for", { min: 0.01, max: 3650, after: "days", hint: "Leave empty for no expiry." });
  const show = () => {
    server.element.hidden = kind.input.value !== "server";
    server.input.required = !server.element.hidden;
  };
  kind.input.addEventListener("change", show);
  show();
  return formOf([kind, server, name, days], () => post("/api/v1/tokens", {
    body: /** @type {any} */ ({
      kind: kind.read(), name: name.read() ?? "", server_id: server.element.hidden ? null : server.read(), expires_days: days.read() ?? null,
    }),
  }), onMade);
}

/** @param {() => void} onMade */
export function enrolmentForm(onMade) {
  const uses = number("Agents", { value: 1, min: 1, max: 100_000, step: 1, required: true });
  const minutes = number("Valid for", { value: 60, min: 1, max: 1440, required: true, after: "minutes" });
  const name = text("Description", { maxlength: 255 });
  return formOf([uses, minutes, name], () => post("/api/v1/enrolments", {
    body: /** @type {any} */ ({ uses: uses.read(), expires_minutes: minutes.read(), name: name.read() ?? "" }),
  }), onMade);
}

/**
 * @param {{ element: HTMLElement }[]} fields
 * @param {() => Promise<Api.Created>} request
 * @param {() => void} onMade
 */
function formOf(fields, request, onMade) {
  const problem = make("p", { class: "problem", role: "alert" });
  const submit = make("button", { type: "submit", class: "primary" }, "Create");
  const form = make("form", { class: "alert-form" }, make("div", { class: "fields" }, ...fields.map((one) => one.element)), make("div", { class: "actions" }, submit), problem);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(problem, async () => {
      const made = await request();
      form.replaceChildren(shownOnce(made.token));
      form.querySelector("input")?.select();
      onMade();
    }, submit);
  });
  return form;
}

/** @param {string} token */
function shownOnce(token) {
  const field = make("input", { type: "text", readonly: true, "aria-label": "The new token", spellcheck: "false", autocomplete: "off" });
  field.value = token;
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(token);
    } catch {
      // Over plain HTTP, browsers give no page the clipboard: it is marked, to be copied by hand.
      field.select();
      done = "Press Ctrl+C";
    }
    setText(button, done);
  });
  return make("div", { class: "once" }, make("p", { role: "status" }, "Copy it now: it will not be shown again."), field, make("div", { class: "actions" }, button));
}
