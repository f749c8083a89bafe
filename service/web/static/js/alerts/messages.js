// Messages to channels, and whether they have arrived.

import { make } from "../shared/dom.js";
import { duration, moment } from "../shared/format.js";

const STATES = /** @type {const} */ ({
  waiting: ["info", "waits"], retrying: ["warn", "not delivered yet"], delivered: ["ok", "delivered"], dead: ["bad", "given up"],
});
/** @type {Record<string, string>} */
const KINDS = { alerts: "alerts", fleet: "most servers are silent", dead_letter: "another channel fails", test: "a test" };

/**
 * @param {Api.AlertMessage[]} messages
 * @param {number} now
 */
export function messageTable(messages, now) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Messages, the newest first"),
    make("thead", {}, make("tr", {}, ...["Written", "Channel", "About", "State"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...messages.map((one) => {
      const [kind, word] = STATES[one.state];
      return make(
        "tr", {},
        make("td", {}, moment(one.created_at, now)),
        make("th", { scope: "row" }, one.channel),
        make("td", {}, one.kind === "alerts" && one.alerts ? `${one.alerts} alert${one.alerts === 1 ? "" : "s"}` : KINDS[one.kind] ?? one.kind),
        make("td", {}, make("span", { class: `badge ${kind}` }, word), make("span", { class: "muted reason" }, trouble(one, now))),
      );
    })),
  );
}

/**
 * @param {Api.AlertMessage} one
 * @param {number} now
 */
function trouble(one, now) {
  if (one.state === "delivered" || !one.error) return "";
  const next = (Date.parse(one.next_attempt_at) - now) / 1000;
  const again = one.state !== "dead" && next > 0 ? `, again in ${duration(next)}` : "";
  return `${one.error}${again} (attempt ${one.attempts})`;
}
