// What an administrator says of identity: that one interface was another one before, that a server reports under other ids,
// and that it replaced another one.
// Nothing that is stored changes; a preview shows what the totals would become.

import { get, post, put, remove, versionOf } from "../shared/api.js";
import { make, setText } from "../shared/dom.js";
import { check, dateTime, text } from "../shared/fields.js";
import { bytes, moment } from "../shared/format.js";
import { pair } from "../shared/pair.js";
import { Part } from "./part.js";
import { saving } from "./saving.js";

/** @typedef {{ rx_bytes: number, tx_bytes: number }} Total */

/** @param {Total} one */
function both(one) {
  const [received, sent] = pair(bytes(one.rx_bytes), bytes(one.tx_bytes));
  return [received, " ", sent];
}

/**
 * Totals before and after, by name.
 * @param {[string, Total, Total][]} rows
 */
function comparison(rows) {
  const total = (/** @type {Total} */ one) => make("td", {}, ...both(one));
  return make(
    "table", {},
    make("thead", {}, make("tr", {}, ...["Totals", "before", "after"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(([name, before, after]) => make("tr", {}, make("th", { scope: "row" }, name), total(before), total(after)))),
  );
}

/** A part with a preview. */
class PastPart extends Part {
  /**
   * @param {string} title
   * @param {{ mayChange: boolean, submit: string, fields: HTMLElement[], more?: HTMLElement[] }} options
   */
  constructor(title, { fields, more = [], ...options }) {
    const preview = make("button", { type: "button" }, "Preview");
    const totals = make("div", { class: "wide-table", role: "status" });
    super(title, { ...options, fields: [...fields, totals], more: [preview, ...more] });
    this.totals = totals;
    preview.addEventListener("click", async () => {
      if (!this.form.reportValidity()) return;
      totals.replaceChildren();
      await saving(this.problem, async () => totals.replaceChildren(...await this.preview()), { button: preview, onReload: () => {} });
    });
  }

  /** @override */
  touch() {
    super.touch();
    this.totals.replaceChildren(); // of what the form said before
  }

  /** @returns {Promise<(Node | string)[]>} */
  preview() {
    throw new Error("not here");
  }
}

export class LinksPart extends PastPart {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const known = make("datalist", { id: "known-series" });
    const from = text("Samples of", { required: true, maxlength: 255, list: known.id });
    const into = text("are samples of", { required: true, maxlength: 255, list: known.id });
    const since = dateTime("From", { hint: "Leave both empty for all of its history." });
    const until = dateTime("Until");
    const sum = check("Add samples of the same time", false);
    const stored = make("div", { class: "wide-table" });
    const suggested = make("div", {});
    super("Earlier names of interfaces", {
      mayChange, submit: "Link",
      fields: [
        make("p", { class: "muted" }, "An interface that had another name can continue the history of that name. Nothing stored changes; removing the link undoes it."),
        stored, suggested, known, make("div", { class: "fields" }, from.element, into.element, since.element, until.element), sum.element,
      ],
    });
    this.id = id;
    this.inputs = { from, into, since, until, sum };
    this.known = known;
    this.stored = stored;
    this.suggested = suggested;
    this.listed = "";
  }

  body() {
    const { from, into, since, until, sum } = this.inputs;
    return {
      interface: from.input.value.trim(), into: into.input.value.trim(), since: since.read() ?? null, until: until.read() ?? null, sum: sum.input.checked,
    };
  }

  /** @override */
  async put() {
    await post("/api/v1/servers/{server_id}/links", { path: { server_id: this.id }, body: this.body() });
    this.form.reset();
    this.totals.replaceChildren();
  }

  /** @override */
  async preview() {
    const found = await post("/api/v1/servers/{server_id}/links/preview", { path: { server_id: this.id }, body: this.body() });
    const after = new Map(found.after.map((one) => [one.interface, one]));
    const { overlap } = found;
    return [
      comparison(found.before.map((one) => [one.interface, one, after.get(one.interface) ?? one])),
      overlap ? make("p", {}, `Both have samples from ${moment(overlap.since)} to ${moment(overlap.until)}, ${overlap.samples} of each: they are added.`) : "",
    ];
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const path = { server_id: this.id };
    const [{ links }, names, { interfaces }] = await Promise.all([
      get("/api/v1/servers/{server_id}/links", { path, signal }), get("/api/v1/servers/{server_id}/names", { path, signal }),
      get("/api/v1/servers/{server_id}/interfaces", { path, query: { gone: true, limit: 1000 }, signal }),
    ]);
    const version = JSON.stringify([links, names.suggestions, interfaces.map((one) => one.name)]);
    if (version === this.listed) return; // a button would be taken away from under the hand
    this.listed = version;
    this.known.replaceChildren(...interfaces.filter((one) => !one.is_folded).map((one) => make("option", { value: one.name })));
    this.stored.replaceChildren(...(links.length ? [this.table(links)] : []));
    this.suggested.replaceChildren(...names.suggestions.map((one) => {
      const fill = make("button", { type: "button" }, "Fill in");
      fill.addEventListener("click", () => {
        this.inputs.from.input.value = one.interface;
        this.inputs.into.input.value = one.into;
        this.touch();
        this.inputs.from.input.focus();
      });
      return make("p", {}, `${one.interface} disappeared on ${moment(one.gone_at)}, and ${one.into} appeared on ${moment(one.appeared_at)}: they may be one. `, fill);
    }));
  }

  /** @param {Api.InterfaceLink[]} links */
  table(links) {
    return make(
      "table", {},
      make("thead", {}, make("tr", {}, ...["Interface", "is read as", "from", "until", ""].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...links.map((one) => {
        const gone = make("button", { type: "button", "aria-label": `Remove the link of ${one.interface}` }, "Remove");
        gone.addEventListener("click", () => this.send(
          () => remove("/api/v1/servers/{server_id}/links/{link_id}", { path: { server_id: this.id, link_id: String(one.id) } }), "Removed.",
        ));
        return make(
          "tr", {}, make("th", { scope: "row" }, one.interface), make("td", {}, one.into, one.sum ? make("span", { class: "muted" }, " (added)") : null),
          make("td", {}, one.since ? moment(one.since) : "the first"), make("td", {}, one.until ? moment(one.until) : "the last"), make("td", {}, gone),
        );
      })),
    );
  }
}

export class AliasesPart extends Part {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const alias = text("Another id", { required: true, maxlength: 100, pattern: "[A-Za-z0-9._\\-]{1,100}" });
    const known = make("ul", { class: "interfaces-list", "aria-label": "Other ids" });
    super("Other ids", {
      mayChange, submit: "Add",
      fields: [
        make("p", { class: "muted" }, "A machine that reports under one of them continues this server, with tokens of either id."),
        known, alias.element,
      ],
    });
    this.id = id;
    this.alias = alias;
    this.known = known;
    this.listed = "";
  }

  /** @override */
  async put() {
    await put("/api/v1/servers/{server_id}/aliases/{alias}", { path: { server_id: this.id, alias: this.alias.input.value.trim() } });
    this.form.reset();
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const { aliases } = await get("/api/v1/servers/{server_id}/aliases", { path: { server_id: this.id }, signal });
    if (aliases.join("\n") === this.listed) return; // a button would be taken away from under the hand
    this.listed = aliases.join("\n");
    this.known.replaceChildren(...aliases.map((alias) => {
      const gone = make("button", { type: "button", class: "quiet", "aria-label": `Remove ${alias}` }, "Remove");
      gone.addEventListener("click", () => this.send(
        () => remove("/api/v1/servers/{server_id}/aliases/{alias}", { path: { server_id: this.id, alias } }), "Removed.",
      ));
      return make("li", {}, make("span", { class: "name" }, alias), " ", gone);
    }));
  }
}

export class SuccessionPart extends PastPart {
  /**
   * @param {string} id
   * @param {{ mayChange: boolean }} options
   */
  constructor(id, { mayChange }) {
    const predecessor = text("It replaced", { required: true, maxlength: 255, hint: "The id of the other server." });
    const since = dateTime("Since", { required: true, hint: "In this browser’s time zone. Before it, the other one’s samples count." });
    const none = make("button", { type: "button", hidden: true }, "Undo the replacement");
    const later = make("p", {});
    const suggested = make("div", {});
    super("Replaced server", {
      mayChange, submit: "Save", more: [none],
      fields: [
        make("p", { class: "muted" }, "A server that replaced another one continues its month, quota and charts. Nothing stored changes; this can be undone."),
        later, suggested, make("div", { class: "fields" }, predecessor.element, since.element),
      ],
    });
    this.id = id;
    this.predecessor = predecessor;
    this.since = since;
    this.none = none;
    this.later = later;
    this.suggested = suggested;
    /** @type {Api.Succession | undefined} */
    this.seen = undefined;
    none.addEventListener("click", () => this.send(
      () => remove("/api/v1/servers/{server_id}/succession", { path: { server_id: this.id }, seen: this.seen }), "Removed.",
    ));
  }

  /** @param {AbortSignal} [signal] */
  async suggest(signal) {
    const { suggestions } = await get("/api/v1/servers/{server_id}/succession/suggestions", { path: { server_id: this.id }, signal });
    this.suggested.replaceChildren(...suggestions.map((one) => {
      const fill = make("button", { type: "button" }, "Fill in");
      fill.addEventListener("click", () => {
        this.predecessor.input.value = one.predecessor;
        this.since.show(one.since);
        this.touch();
        this.predecessor.input.focus();
      });
      const both = one.evidence.map((name) => ({ server_guid: "GUID", permanent_address: "hardware" })[name]).join(" and ");
      return make("p", {}, `${one.predecessor}, silent since ${moment(one.gone_at)}, has the same ${both}. `, fill);
    }));
  }

  body() {
    return { predecessor: this.predecessor.input.value.trim(), since: this.since.read() ?? "" };
  }

  /** @override */
  put() {
    return put("/api/v1/servers/{server_id}/succession", { path: { server_id: this.id }, body: this.body(), seen: this.seen });
  }

  /** @override */
  async preview() {
    const { before, after } = await post("/api/v1/servers/{server_id}/succession/preview", { path: { server_id: this.id }, body: this.body() });
    const lost = { rx_bytes: 0, tx_bytes: 0 };
    for (const [totals, sign] of /** @type {const} */ ([[before, 1], [after, -1]])) {
      for (const one of totals) {
        lost.rx_bytes += sign * one.rx_bytes;
        lost.tx_bytes += sign * one.tx_bytes;
      }
    }
    const isLost = lost.rx_bytes > 0 || lost.tx_bytes > 0;
    return [
      comparison(before.map((one, place) => [one.server_id, one, after[place] ?? one])),
      isLost ? make("p", {}, `Traffic of ${this.id} before that time no longer counts: `, ...both(lost)) : "",
    ];
  }

  /** @override @param {AbortSignal} [signal] */
  async reload(signal) {
    const found = await get("/api/v1/servers/{server_id}/succession", { path: { server_id: this.id }, signal });
    setText(this.later, found.successor ? `${found.successor} replaced it on ${moment(found.until)}.` : "");
    this.later.hidden = !found.successor;
    if (!this.isNews(versionOf(found))) return;
    this.seen = found;
    this.none.hidden = !found.predecessor;
    this.predecessor.input.value = found.predecessor ?? "";
    this.since.show(found.since);
    this.totals.replaceChildren();
    await this.suggest(signal);
  }
}
