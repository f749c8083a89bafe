// Mutes: the list, and the form of a new one.

import { put } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make } from "../shared/dom.js";
import { moment } from "../shared/format.js";
import { list, select, text } from "../shared/fields.js";
import { zoneOfPage } from "../shared/zone.js";

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const SPANS = { 1: "an hour", 4: "four hours", 24: "a day", 168: "a week" };

/**
 * @param {Api.AlertMute[]} mutes
 * @param {{ onRemove: (mute: Api.AlertMute) => void }} options
 */
export function muteTable(mutes, { onRemove }) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Mutes, by name"),
    make("thead", {}, make(
      "tr", {}, ...["Mute", "What", "When", "By"].map((name) => make("th", { scope: "col" }, name)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Remove")),
    )),
    make("tbody", {}, ...mutes.map((mute) => make(
      "tr", { class: mute.is_on ? "" : "off" },
      make("th", { scope: "row" }, mute.id, make("span", { class: "muted reason" }, mute.comment ?? "")),
      make("td", {}, matched(mute)),
      make("td", {}, times(mute), mute.is_on ? make("span", { class: "badge warn reason" }, "mutes now") : null),
      make("td", {}, mute.created_by ?? ""),
      make("td", { class: "number" }, make("button", { type: "button", class: "quiet", "aria-label": `Remove ${mute.id}`, onclick: () => onRemove(mute) }, "Remove")),
    ))),
  );
}

/** @param {Api.AlertMute} mute */
function matched({ matcher }) {
  const parts = [matcher.servers?.join(", "), matcher.tags?.length ? `tags ${matcher.tags.join(", ")}` : null, matcher.rules?.length ? `rules ${matcher.rules.join(", ")}` : null].filter(Boolean);
  return parts.join(" · ") || "everything";
}

/** @param {Api.AlertMute} mute */
function times({ starts_at: starts, ends_at: ends, weekly, time_zone: zone }) {
  const days = weekly?.days?.map((day) => DAYS[day - 1]).join(", ") ?? "every day";
  const hours = weekly ? `${days}, ${weekly.from}–${weekly.until} (${zone})` : "";
  return [hours, starts ? `from ${moment(starts)}` : "", ends ? `until ${moment(ends)}` : ""].filter(Boolean).join(" ");
}

/**
 * The form of a new mute: from now for a while, or every week.
 * @param {() => void} onSaved
 */
export function muteForm(onSaved) {
  const id = text("Name", { required: true, pattern: "[A-Za-z0-9._\\-]{1,100}", maxlength: 100 });
  const servers = list("Servers", { hint: "Names or patterns such as web-*, with commas; empty: all." });
  const tags = list("Tags", { hint: "Servers with one of these tags or keys; empty: all." });
  const rules = list("Rules", { hint: "Names or patterns; empty: all." });
  const kind = select("When", { once: "from now on, for a while", weekly: "every week" }, "once");
  const span = select("For", SPANS, "1");
  const from = text("From", { value: "22:00", type: "time" });
  const until = text("Until", { value: "06:00", type: "time" });
  const zone = text("Time zone", { value: zoneOfPage() });
  const boxes = DAYS.map((name, index) => ({ day: index + 1, name, input: make("input", { type: "checkbox", checked: true }) }));
  const days = make(
    "fieldset", { class: "days" }, make("legend", {}, "On"),
    ...boxes.map(({ input, name }) => make("label", { class: "check" }, input, ` ${name}`)),
  );
  const comment = text("Why", { maxlength: 4000 });
  const show = () => {
    const isWeekly = kind.input.value === "weekly";
    span.element.hidden = isWeekly;
    for (const element of [from.element, until.element, zone.element, days]) element.hidden = !isWeekly;
  };
  kind.input.addEventListener("change", show);
  show();
  const problem = make("p", { class: "problem", role: "alert" });
  const form = make(
    "form", { class: "alert-form" },
    make("div", { class: "fields" }, id.element, servers.element, tags.element, rules.element),
    make("div", { class: "fields" }, kind.element, span.element, from.element, until.element, zone.element),
    days,
    make("div", { class: "fields" }, comment.element),
    make("div", { class: "actions" }, make("button", { type: "submit", class: "primary" }, "Mute")),
    problem,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(problem, async () => {
      const chosen = boxes.filter(({ input }) => input.checked).map(({ day }) => day);
      const when = kind.input.value === "weekly"
        ? { weekly: { from: from.input.value, until: until.input.value, ...(chosen.length && chosen.length < 7 ? { days: chosen } : {}) }, time_zone: zone.read() }
        : { ends_at: new Date(Date.now() + Number(span.input.value) * 3_600_000).toISOString() };
      const body = /** @type {any} */ ({ matcher: { servers: servers.read(), tags: tags.read(), rules: rules.read() }, comment: comment.read() ?? "", ...when });
      await put("/api/v1/alert-mutes/{mute_id}", { path: { mute_id: id.input.value.trim() }, body });
      onSaved();
    }, form.querySelector("[type=submit]"));
  });
  return form;
}
