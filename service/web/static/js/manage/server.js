// One server: its name and tags, its agent, its quota, its past, and its end.

import { get, post, put, remove, versionOf } from "../shared/api.js";
import { find, make, setText } from "../shared/dom.js";
import { check, list, number, octets, select, text } from "../shared/fields.js";
import { duration } from "../shared/format.js";
import { zoneOfPage } from "../shared/zone.js";
import { InterfaceChoice } from "./interfaces.js";
import { Part } from "./part.js";
import { AliasesPart, LinksPart, SuccessionPart } from "./past.js";
import { saving } from "./saving.js";
import { tagList } from "./servers.js";

const DIRECTIONS = { sum: "received and sent", in: "received", out: "sent", max: "the greater of the two" };

class LabelsPart extends Part {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const name = text("Display name", { maxlength: 100, hint: "Shown next to the id. Leave empty for none." });
    const tags = list("Tags", { hint: "Words or key=value pairs, separated by commas, such as web, site=home." });
    const own = make("p", { class: "muted" });
    super("Name and tags", { mayChange, submit: "Save", fields: [make("div", { class: "alert-form wide-field" }, name.element, tags.element), own] });
    this.id = id;
    this.name = name;
    this.tags = tags;
    this.own = own;
    /** @type {Api.Labels | undefined} */
    this.seen = undefined;
  }

  /** @override */
  put() {
    const body = { display_name: /** @type {string | undefined} */ (this.name.read()) ?? null, tags: /** @type {string[] | undefined} */ (this.tags.read()) ?? [] };
    return put("/api/v1/servers/{server_id}/labels", { path: { server_id: this.id }, body, seen: this.seen });
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const labels = await get("/api/v1/servers/{server_id}/labels", { path: { server_id: this.id }, signal });
    this.own.replaceChildren(...(labels.agent_tags.length ? ["The agent’s own: ", tagList(labels.agent_tags)] : []));
    if (!this.isNews(versionOf(labels))) return;
    this.seen = labels;
    this.name.input.value = labels.display_name ?? "";
    this.tags.input.value = labels.tags.join(", ");
  }
}

class InterfaceNamePart extends Part {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const chosen = select("Interface", {}, "");
    const name = text("Shown as", { maxlength: 100, hint: "Next to its name. Leave empty for none." });
    super("Names of interfaces", { mayChange, submit: "Save", fields: [make("div", { class: "fields" }, chosen.element, name.element)] });
    this.id = id;
    this.chosen = chosen.input;
    this.name = name;
    this.names = "";
    /** @type {Api.InterfaceLabels | undefined} */
    this.seen = undefined;
    for (const event of ["input", "change"]) {
      this.chosen.addEventListener(event, (one) => one.stopPropagation()); // another one is shown; nothing is changed
    }
    this.chosen.addEventListener("change", () => {
      this.isDirty = false;
      this.shown = "\n";
      setText(this.said, "");
      this.reload();
    });
  }

  /** @override */
  put() {
    const body = { display_name: /** @type {string | undefined} */ (this.name.read()) ?? null };
    return put("/api/v1/servers/{server_id}/interfaces/{name}/labels", { path: { server_id: this.id, name: this.chosen.value }, body, seen: this.seen });
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const { interfaces } = await get("/api/v1/servers/{server_id}/interfaces", { path: { server_id: this.id }, query: { limit: 1000 }, signal });
    const names = interfaces.filter((one) => !one.is_folded).map((one) => one.name);
    this.element.hidden = names.length === 0;
    if (this.names !== names.join("\n")) {
      const was = this.chosen.value;
      this.names = names.join("\n");
      this.chosen.replaceChildren(...names.map((name) => make("option", {}, name)));
      if (names.includes(was)) this.chosen.value = was;
    }
    if (!names.length) return;
    const name = this.chosen.value;
    const labels = await get("/api/v1/servers/{server_id}/interfaces/{name}/labels", { path: { server_id: this.id, name }, signal });
    if (name !== this.chosen.value || !this.isNews(`${name} ${versionOf(labels)}`)) return;
    this.seen = labels;
    this.name.input.value = labels.display_name ?? "";
  }
}

class AgentPart extends Part {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const every = number("Heartbeat every", { min: 1, max: 3600, after: "seconds" });
    const paused = check("Paused: it reports that it is alive, and measures nothing", false);
    const interfaces = new InterfaceChoice();
    const report = make("button", { type: "button" }, "Report now");
    const state = make("p", { class: "muted" });
    super("Agent", { mayChange, submit: "Save", fields: [state, every.element, paused.element, make("h3", {}, "Interfaces to report"), interfaces.element], more: [report] });
    this.id = id;
    this.every = every;
    this.paused = paused;
    this.interfaces = interfaces;
    this.state = state;
    /** @type {Api.AgentConfig | undefined} */
    this.seen = undefined;
    report.addEventListener("click", () => this.report(report));
  }

  /** @param {HTMLButtonElement} button */
  async report(button) {
    await saving(this.problem, async () => {
      const { within_seconds: within } = await post("/api/v1/servers/{server_id}/report", { path: { server_id: this.id } });
      setText(this.said, `Requested. The agent receives the request with its next heartbeat, within ${duration(within)}, and then reports immediately.`);
    }, { button, onReload: () => {} });
  }

  /** @override */
  put() {
    const interval = /** @type {number | undefined} */ (this.every.read());
    const body = {
      ...(interval === undefined ? {} : { interval_seconds: interval }), ...this.interfaces.read(), ...(this.paused.read() ? { paused: true } : {}),
    };
    return put("/api/v1/servers/{server_id}/config", { path: { server_id: this.id }, body, seen: this.seen });
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const path = { server_id: this.id };
    const [config, agent] = await Promise.all([
      get("/api/v1/servers/{server_id}/config", { path, signal }), get("/api/v1/servers/{server_id}/agent", { path, signal }),
    ]);
    setText(this.state, `It reports every ${duration(agent.interval_seconds ?? 30)}${agent.paused ? ", and is paused" : ""}. A change reaches it with its next heartbeat; an agent whose own settings forbid it (LINKBEAT_REMOTE_CONFIG) ignores it.`);
    if (!this.isNews(versionOf(config))) return;
    const server = await get("/api/v1/servers/{server_id}", { path, signal });
    this.seen = config;
    this.every.input.value = config.interval_seconds == null ? "" : String(config.interval_seconds);
    this.every.input.placeholder = "its own";
    this.paused.input.checked = config.paused ?? false;
    this.interfaces.show(config, server.network_interfaces.map((one) => one.name));
  }
}

class QuotaPart extends Part {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const fields = make("div", { class: "fields" });
    const gone = make("button", { type: "button", hidden: true }, "Remove the quota");
    super("Quota", { mayChange, submit: "Set", fields: [fields], more: [gone] });
    this.id = id;
    this.fields = fields;
    this.gone = gone;
    /** @type {Api.QuotaState | null} */
    this.seen = null;
    this.inputs = quotaFields(null);
    gone.addEventListener("click", () => this.send(
      () => remove("/api/v1/servers/{server_id}/quota", { path: { server_id: this.id }, seen: this.seen }), "Removed.",
    ));
  }

  /** @override */
  put() {
    const { bytes, direction, day, zone, near, interface: name } = this.inputs;
    const body = /** @type {any} */ ({
      bytes: Math.round(Number(bytes.read())), direction: direction.read(), billing_day: day.read(), time_zone: zone.read() ?? "UTC",
      near_percent: near.read(), interface: name.read() ?? null,
    });
    return put("/api/v1/servers/{server_id}/quota", { path: { server_id: this.id }, body, seen: this.seen });
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    // 404 where there is none, which the browser's console would count as an error: the usage says it.
    const { quota } = await get("/api/v1/usage/{server_id}", { path: { server_id: this.id }, query: { by: "month" }, signal });
    const found = quota && await get("/api/v1/servers/{server_id}/quota", { path: { server_id: this.id }, signal });
    if (!this.isNews(found ? versionOf(found) : "")) return;
    this.seen = found;
    this.gone.hidden = !found;
    this.inputs = quotaFields(found);
    this.fields.replaceChildren(...Object.values(this.inputs).map((one) => one.element));
  }
}

/** @param {Api.QuotaState | null} quota */
function quotaFields(quota) {
  return {
    bytes: octets("Per month", { value: quota?.bytes ?? null, required: true }),
    direction: select("Of traffic", DIRECTIONS, quota?.direction ?? "sum"),
    day: number("From day", { value: quota?.billing_day ?? 1, min: 1, max: 31, step: 1, required: true }),
    zone: text("Time zone", { value: quota?.time_zone ?? zoneOfPage(), required: true, maxlength: 100 }),
    near: number("Nearly used up from", { value: quota?.near_percent ?? 80, min: 1, max: 100, required: true, after: "%" }),
    interface: text("Interface", { value: quota?.interface ?? "", maxlength: 255, hint: "Leave empty for the whole server." }),
  };
}

/**
 * The end of a server.
 * @param {string} id
 * @param {{ mayChange: boolean, onRemoving: (isUnderWay: boolean) => void, onRemoved: () => void }} options
 */
function removal(id, { mayChange, onRemoving, onRemoved }) {
  const name = text(`Type ${id} to confirm`, { required: true, maxlength: 100 });
  const button = make("button", { type: "submit", class: "danger", disabled: true }, "Remove it with its history");
  const problem = make("p", { class: "problem", role: "alert" });
  const form = make(
    "form", { class: "alert-form", "aria-label": "Remove" },
    make("p", {}, "Its history, quota, tags and alerts are erased, and its tokens revoked. This cannot be undone. If an agent keeps reporting with a fleet token, the server is registered again."),
    make("fieldset", { class: "plain", disabled: !mayChange }, name.element, make("div", { class: "actions" }, button)), problem,
  );
  name.input.addEventListener("input", () => {
    button.disabled = name.input.value !== id;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (name.input.value !== id) return;
    onRemoving(true);
    const isGone = await saving(problem, () => remove("/api/v1/servers/{server_id}", { path: { server_id: id } }), { button, onReload: () => {} });
    if (isGone) onRemoved();
    else onRemoving(false);
  });
  return make("div", { class: "panel danger" }, make("h2", {}, "Remove"), form);
}

/**
 * What can be managed of one server.
 * @param {string} id
 * @param {{ mayChange: boolean, onRemoved: () => void }} options
 */
export function serverPanels(id, { mayChange, onRemoved }) {
  const parts = [new LabelsPart(id, { mayChange }), new AgentPart(id, { mayChange }), new QuotaPart(id, { mayChange }), new InterfaceNamePart(id, { mayChange }), new LinksPart(id, { mayChange }), new AliasesPart(id, { mayChange }), new SuccessionPart(id, { mayChange })];
  const [labels, agent, quota, names, links, aliases, succession] = parts;
  let isLeaving = false; // while it is removed, there is nothing to ask for
  const element = make(
    "div", { class: "view" },
    make(
      "div", { class: "panel crumbs" },
      make("a", { href: "/manage#servers" }, "All servers"), make("h2", {}, id), make("a", { href: `/servers/${encodeURIComponent(id)}` }, "Its traffic"),
    ),
    make(
      "div", { class: "pair" }, make("div", { class: "view" }, agent?.element ?? "", names?.element ?? "", links?.element ?? ""),
      make("div", { class: "view" }, labels?.element ?? "", quota?.element ?? "", aliases?.element ?? "", succession?.element ?? "", removal(id, { mayChange, onRemoved, onRemoving: (isUnderWay) => { isLeaving = isUnderWay; } })),
    ),
  );
  return {
    element: find(make("div", {}, element), ".view", HTMLElement),
    /** @param {AbortSignal} signal */
    refresh: async (signal) => {
      for (const part of parts) {
        if (isLeaving) return;
        await part.reload(signal);
        part.open();
      }
    },
  };
}
