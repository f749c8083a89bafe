// The list of servers to manage.

import { make } from "../shared/dom.js";
import { duration } from "../shared/format.js";

/** @param {readonly string[]} tags */
export function tagList(tags) {
  return make("span", { class: "tags" }, ...tags.map((tag) => make("span", { class: "tag" }, tag)));
}

/**
 * The page of a server in this list.
 * @param {string} id
 */
export function addressOf(id) {
  return `/manage?server=${encodeURIComponent(id)}#servers`;
}

/** @param {Api.Agent[]} agents */
export function serverTable(agents) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Servers and their settings"),
    make("thead", {}, make("tr", {}, ...["Server", "Name", "Tags", "Every", "Set for its agent"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...agents.map((agent) => make(
      "tr", {},
      make("th", { scope: "row" }, make("a", { href: addressOf(agent.server_id) }, agent.server_id)),
      make("td", {}, agent.display_name ?? ""),
      make("td", {}, tagList(agent.tags)),
      make("td", {}, duration(agent.interval_seconds)),
      make("td", {}, configWords(agent.config)),
    ))),
  );
}

/** @param {Api.AgentConfig | null} config */
function configWords(config) {
  if (!config) return "";
  const parts = [];
  if (config.paused) parts.push("paused");
  if (config.interval_seconds != null) parts.push(`every ${duration(config.interval_seconds)}`);
  if (config.include_interfaces?.length) parts.push(`only ${config.include_interfaces.join(", ")}`);
  if (config.exclude_interfaces?.length) parts.push(`without ${config.exclude_interfaces.join(", ")}`);
  return parts.join("; ");
}
