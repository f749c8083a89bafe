// Groups of the fleet by a tag: how many servers each has, how they do, and what their main interfaces move now.

import { choice } from "../shared/choices.js";
import { now } from "../shared/clock.js";
import { byId, byIdAs, make, setText } from "../shared/dom.js";
import { count, NOTHING, rate } from "../shared/format.js";
import { standing } from "../shared/standing.js";
import { settings } from "./address.js";
import { mainInterface } from "./row.js";

/** @import { Row } from "./row.js" */

const NONE = "without"; // what servers without the tag stand under
/** Names as people count: rack=9 before rack=10. */
const collator = new Intl.Collator(undefined, { numeric: true });

/** @param {string} tag */
function keyOf(tag) {
  return tag.split("=", 1)[0] ?? tag;
}

export class Groups {
  /**
   * @param {(key: string) => void} onGroup asked to group by this key, "" for not at all
   * @param {(tag: string) => void} onChoose a group was chosen, to be filtered by
   */
  constructor(onGroup, onChoose) {
    this.onChoose = onChoose;
    this.select = byIdAs("group", HTMLSelectElement);
    this.select.addEventListener("change", () => onGroup(this.select.value));
    this.shown = ""; // the keys to choose from
  }

  /**
   * @param {Iterable<Row>} rows all of the fleet
   * @param {Row[]} matching those that match the filter
   */
  show(rows, matching) {
    this.offer(rows);
    const { group } = settings;
    byId("groups").hidden = !group || !matching.length;
    if (byId("groups").hidden) return;
    const found = new Map(/** @type {[string, ReturnType<typeof sums>][]} */ ([]));
    for (const row of matching) {
      const tag = row.server.tags.find((one) => keyOf(one) === group) ?? NONE;
      const sum = found.get(tag) ?? sums();
      found.set(tag, sum);
      add(sum, row);
    }
    const sorted = [...found].sort(([a], [b]) => Number(a === NONE) - Number(b === NONE) || collator.compare(a, b));
    setText(byId("groups-of"), group);
    const focused = document.activeElement?.closest("#groups") ? document.activeElement.textContent : null;
    byId("group-rows").replaceChildren(...sorted.map(([tag, sum]) => this.row(tag, sum)));
    for (const button of byId("group-rows").querySelectorAll("button")) if (focused && button.textContent === focused) button.focus();
  }

  /** @param {Iterable<Row>} rows */
  offer(rows) {
    const keys = new Set(settings.group ? [settings.group] : []);
    for (const row of rows) for (const tag of row.server.tags) keys.add(keyOf(tag));
    const wanted = [...keys].sort(collator.compare);
    byId("group-choice").hidden = !wanted.length;
    if (this.shown !== wanted.join()) {
      this.shown = wanted.join();
      this.select.replaceChildren(make("option", { value: "" }, "no groups"), ...wanted.map((key) => make("option", { value: key }, `by ${key}`)));
    }
    if (this.select.value !== settings.group) this.select.value = settings.group;
  }

  /**
   * @param {string} tag
   * @param {ReturnType<typeof sums>} sum
   */
  row(tag, sum) {
    const units = choice("units");
    const isKnown = sum.known > 0;
    return make(
      "tr", {},
      make("th", { scope: "row" }, tag === NONE
        ? make("span", { class: "muted" }, `without ${settings.group}`)
        : make("button", { type: "button", class: "quiet", onclick: () => this.onChoose(tag) }, tag)),
      make("td", { class: "number" }, count(sum.servers)),
      make("td", { class: "number" }, sum.troubled ? make("span", { class: "badge bad" }, count(sum.troubled)) : "0"),
      make("td", { class: "number rx-text" }, isKnown ? `↓ ${rate(sum.rx, units)}` : NOTHING),
      make("td", { class: "number tx-text" }, isKnown ? `↑ ${rate(sum.tx, units)}` : NOTHING),
    );
  }
}

function sums() {
  return { servers: 0, troubled: 0, rx: 0, tx: 0, known: 0 };
}

/**
 * @param {ReturnType<typeof sums>} sum
 * @param {Row} row
 */
function add(sum, row) {
  sum.servers += 1;
  const { name } = standing(row.server, now());
  if (name === "silent" || name === "late") sum.troubled += 1;
  const main = mainInterface(row.server);
  if (row.rateOf(main) === null) return;
  sum.known += 1;
  sum.rx += main?.rx_bps ?? 0;
  sum.tx += main?.tx_bps ?? 0;
}
