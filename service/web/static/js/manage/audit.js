// The audit log: who changed what, and from what to what.

import { make } from "../shared/dom.js";
import { moment } from "../shared/format.js";
import { addressOf } from "./servers.js";

const KINDS = { token: "with a token", key: "with the fleet key", session: "in a browser", proxy: "by a proxy’s sign-in", command: "by a command", file: "by a file", database: "in the database" };

/** @param {Api.AuditEntry[]} entries */
export function auditTable(entries) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Changes, the newest first"),
    make("thead", {}, make("tr", {}, ...["When", "Who", "What", "From and to"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...entries.map((entry) => make(
      "tr", {},
      make("th", { scope: "row" }, moment(entry.at)),
      make("td", {}, entry.actor, make("span", { class: "muted reason" }, [KINDS[entry.actor_kind], entry.address].filter(Boolean).join(", "))),
      make("td", {}, make("code", {}, entry.action), " ", subject(entry)),
      make("td", {}, changes(entry)),
    ))),
  );
}

/** @param {Api.AuditEntry} entry */
function subject({ server_id: server, subject: id, action }) {
  const place = server && action !== "server.remove" ? make("a", { href: addressOf(server) }, server) : server;
  return make("span", {}, place, server && id !== server ? " " : null, id === server ? null : make("code", {}, id));
}

/** @param {Api.AuditEntry} entry */
function changes({ before, after }) {
  const lines = [];
  for (const [name, value] of Object.entries(before ?? {})) lines.push(make("del", {}, `${name} ${JSON.stringify(value)}`));
  for (const [name, value] of Object.entries(after ?? {})) lines.push(make("ins", {}, `${name} ${JSON.stringify(value)}`));
  return make("div", { class: "changes" }, ...lines);
}
