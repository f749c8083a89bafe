// The form of a channel. Secrets are never answered: an empty field leaves them as they are stored.

import { put } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make } from "../shared/dom.js";
import { check, list, number, readAll, seconds, select, text } from "../shared/fields.js";
import { zoneOfPage } from "../shared/zone.js";

/** @import { Field } from "../shared/fields.js" */
/** @typedef {Api.AlertChannel["kind"]} ChannelKind */

const ID = "[A-Za-z0-9._\\-]{1,100}";
/** @type {Record<ChannelKind, string>} */
export const CHANNEL_KINDS = {
  webhook: "Webhook", email: "E-mail", alertmanager: "Alertmanager", ping: "Dead man's ping", apprise: "Apprise",
};
const KEPT = "Empty: as it is stored.";

/** @type {Record<ChannelKind, (channel: Partial<Api.AlertChannel>) => Record<string, Field>>} */
const MAKERS = {
  webhook: (channel) => ({
    url: text("URL", { value: channel.url, required: true, hint: "… stands for the path that is stored." }),
    secret: text("Secret of the signature", { type: "password", hint: channel.has_secret ? KEPT : "Empty: none." }),
  }),
  email: (channel) => ({
    recipients: list("To", { value: channel.recipients, required: true }),
    sender: text("From", { value: channel.sender, required: true }),
    host: text("SMTP server", { value: channel.host, required: true }),
    port: number("Port", { value: channel.port, min: 1, max: 65_535, step: 1, hint: "Empty: as usual for its security." }),
    security: select("Security", { starttls: "STARTTLS", tls: "TLS", none: "none" }, channel.security ?? "starttls"),
    username: text("User", { value: channel.username }),
    password: text("Password", { type: "password", hint: channel.has_password ? KEPT : "Empty: none." }),
  }),
  alertmanager: (channel) => ({ urls: list("URLs of all instances", { value: channel.urls, required: true }) }),
  ping: (channel) => ({ url: text("URL", { value: channel.url, required: true, hint: "Fetched after every evaluation." }) }),
  apprise: (channel) => ({ urls: list("Apprise URLs", { value: channel.urls, required: true }) }),
};

/**
 * @param {Api.AlertChannel | null} channel null: a new one
 * @param {() => void} onSaved
 */
export function channelForm(channel, onSaved) {
  const id = text("Name", { value: channel?.id, required: true, pattern: ID, maxlength: 100 });
  id.input.readOnly = channel !== null;
  const kind = select("Kind", CHANNEL_KINDS, channel?.kind ?? "webhook");
  kind.input.disabled = channel !== null;
  const common = {
    min_severity: select("Alerts from", { info: "info on", warning: "warning on", critical: "critical on" }, channel?.min_severity ?? "info"),
    digest_seconds: seconds("Gathered into one message for", { value: channel?.digest_seconds ?? 10 }),
    time_zone: text("Time zone", { value: channel?.time_zone ?? zoneOfPage() }),
    sends_resolved: check("Also when they end", channel?.sends_resolved ?? true),
    sends_late: check("Also those found in replayed data", channel?.sends_late ?? false),
    enabled: check("On", channel?.enabled ?? true),
  };
  const own = make("div", { class: "fields" });
  /** @type {Record<string, Field>} */
  let fields = {};
  const showKind = () => {
    fields = MAKERS[/** @type {ChannelKind} */ (kind.input.value)](channel ?? {});
    own.replaceChildren(...Object.values(fields).map((field) => field.element));
  };
  kind.input.addEventListener("change", showKind);
  showKind();
  const problem = make("p", { class: "problem", role: "alert" });
  const form = make(
    "form", { class: "alert-form" },
    make("div", { class: "fields" }, id.element, kind.element),
    own,
    make("div", { class: "fields" }, common.min_severity.element, common.digest_seconds.element, common.time_zone.element),
    common.sends_resolved.element, common.sends_late.element, common.enabled.element,
    make("div", { class: "actions" }, make("button", { type: "submit", class: "primary" }, "Save")),
    problem,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(problem, async () => {
      const body = /** @type {any} */ ({ kind: kind.input.value, ...readAll(common), ...readAll(fields) });
      await put("/api/v1/alert-channels/{channel_id}", { path: { channel_id: id.input.value.trim() }, body });
      onSaved();
    }, form.querySelector("[type=submit]"));
  });
  return form;
}
