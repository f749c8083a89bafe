// The form of a rule, and what the rule would have done: it is tried on the fleet's own history before it is saved.

import { post, put } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make, setText } from "../shared/dom.js";
import { duration, moment } from "../shared/format.js";
import { check, list, seconds, select, text } from "../shared/fields.js";
import { fieldsOf } from "./rule-fields.js";
import { timeline } from "./timeline.js";
import { KINDS } from "../shared/alert-words.js";

/** @import { Kind, Rule } from "../shared/alert-words.js" */

const TRIED_DAYS = 30;
const ID = "[A-Za-z0-9._\\-]{1,100}";
const OF_INTERFACES = new Set(["link", "rate", "errors", "filesystem"]);

/**
 * @param {Rule | null} rule the answer with it, whose version is replaced; null: a new one
 * @param {{ channels: string[], onSaved: () => void }} options `channels`: the names of those that there are
 */
export function ruleForm(rule, { channels, onSaved }) {
  const id = text("Name", { value: rule?.id, required: true, pattern: ID, maxlength: 100, hint: "Letters, digits, dots, dashes." });
  id.input.readOnly = rule !== null;
  const kind = select("Alert when", KINDS, rule?.kind ?? "rate");
  kind.input.disabled = rule !== null;
  const servers = list("Servers", { value: rule?.scope?.servers, hint: "Names or patterns such as web-*, with commas; empty: all." });
  const tags = list("Tags", { value: rule?.scope?.tags, hint: "Servers with one of these tags or keys, or patterns such as role=web*; empty: all." });
  const interfaces = list("Interfaces", { value: rule?.scope?.interfaces, hint: "Names or patterns such as eth*; empty: all." });
  const severity = select("Severity", { info: "info", warning: "warning", critical: "critical" }, rule?.severity ?? "warning");
  const holds = seconds("Once it has held for", { value: rule?.for_seconds ?? 0 });
  const keeps = seconds("Over once it has been clear for", { value: rule?.keep_seconds ?? 300 });
  const repeat = seconds("Repeat the message every", { value: rule?.repeat_seconds, hint: "Empty: never." });
  const named = list("Channels", { value: rule?.channels, hint: channels.length ? `Empty: all (${channels.join(", ")}).` : "There is none yet." });
  const note = text("Note", { value: rule?.note, maxlength: 4000, hint: "Goes out with every message." });
  const runbook = text("Runbook", { value: rule?.runbook, type: "url", maxlength: 2000 });
  const enabled = check("On", rule?.enabled ?? true);

  const own = make("div", { class: "fields" });
  let fields = fieldsOf(/** @type {Kind} */ (kind.input.value), rule);
  const showKind = () => {
    fields = fieldsOf(/** @type {Kind} */ (kind.input.value), rule);
    own.replaceChildren(...fields.elements);
    interfaces.element.hidden = !OF_INTERFACES.has(kind.input.value);
    const label = interfaces.element.querySelector("label");
    if (label) setText(label, kind.input.value === "filesystem" ? "Mount points" : "Interfaces");
  };
  kind.input.addEventListener("change", showKind);
  showKind();

  const read = () => {
    const scope = { servers: servers.read(), tags: tags.read(), ...(interfaces.element.hidden ? {} : { interfaces: interfaces.read() }) };
    return /** @type {any} */ ({
      kind: kind.input.value, scope, for_seconds: holds.read(), keep_seconds: keeps.read(), severity: severity.read(),
      channels: named.read(), repeat_seconds: repeat.read(), note: note.read() ?? "", runbook: runbook.read() ?? "", enabled: enabled.read(),
      ...(rule?.scope?.kinds ? { scope: { ...scope, kinds: rule.scope.kinds } } : {}),
      ...fields.read(),
    });
  };

  const problem = make("p", { class: "problem", role: "alert" });
  const tried = make("div", { class: "tried", role: "status" });
  const test = make("button", { type: "button" }, `What would it have done in the last ${TRIED_DAYS} days?`);
  const form = make(
    "form", { class: "alert-form" },
    make("div", { class: "fields" }, id.element, kind.element),
    own,
    make("div", { class: "fields" }, servers.element, tags.element, interfaces.element),
    make("div", { class: "fields" }, holds.element, keeps.element, severity.element),
    make(
      "details", {}, make("summary", {}, "Messages"),
      make("div", { class: "fields" }, named.element, repeat.element, note.element, runbook.element),
    ),
    enabled.element,
    make("div", { class: "actions" }, make("button", { type: "submit", class: "primary" }, "Save"), test),
    problem, tried,
  );
  test.addEventListener("click", () => attempt(problem, async () => {
    if (!form.reportValidity()) return;
    const until = new Date();
    const since = new Date(until.getTime() - TRIED_DAYS * 86_400_000);
    setText(tried, "Trying it …");
    try {
      const found = await post("/api/v1/alert-rules/test", { query: { since: since.toISOString(), until: until.toISOString() }, body: read() });
      tried.replaceChildren(...outcome(found, id.input.value || "this rule", /** @type {any} */ (severity.read())));
    } catch (error) {
      tried.replaceChildren();
      throw error;
    }
  }, test));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(problem, async () => {
      await put("/api/v1/alert-rules/{rule_id}", { path: { rule_id: id.input.value.trim() }, body: read(), seen: rule });
      onSaved();
    }, form.querySelector("[type=submit]"));
  });
  return form;
}

/**
 * @param {Api.Backtest} found
 * @param {string} name
 * @param {"critical" | "warning" | "info"} severity
 */
function outcome(found, name, severity) {
  const range = { since: Date.parse(found.since), until: Date.parse(found.until) };
  const episodes = found.episodes.map((one) => ({
    rule: name, server_id: one.server_id, subject: one.subject, severity, isLate: false, reason: one.reason,
    since: Date.parse(one.active_at), until: one.cleared_at ? Date.parse(one.cleared_at) : null,
  }));
  const total = episodes.reduce((sum, one) => sum + (one.until ?? range.until) - one.since, 0);
  const words = episodes.length
    ? `${found.is_truncated ? "More than " : ""}${episodes.length} alert${episodes.length === 1 ? "" : "s"}, ${duration(total / 1000)} in all, since ${moment(found.since)}.`
    : `No alert since ${moment(found.since)}.`;
  const basis = found.basis === "minutes" ? " Where samples are no longer kept, minutes were judged." : "";
  return [make("p", {}, words + basis), episodes.length ? timeline(episodes, range, { caption: "Alerts that the rule would have had", withRule: false }) : null]
    .filter((one) => one !== null);
}
