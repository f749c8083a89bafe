// The bell in the header of every page: how many alerts fire.

import { get } from "./api.js";
import { byId, make } from "./dom.js";

/** @import { Freshness } from "./freshness.js" */

const EVERY_SECONDS = 15;
const MOST = 100;

/**
 * Keeps the bell of a page up to date.
 * @param {Freshness} fresh
 */
export function watchBell(fresh) {
  const bell = byId("bell");
  fresh.task(async (signal) => {
    const { alerts, next } = await get("/api/v1/alerts", { query: { state: "firing", limit: MOST }, signal });
    const words = `${alerts.length}${next ? "+" : ""} ${alerts.length === 1 ? "alert fires" : "alerts fire"}`;
    const isCritical = alerts.some((one) => one.severity === "critical");
    bell.hidden = !alerts.length;
    bell.className = `bell ${isCritical ? "bad" : "warn"}`;
    bell.title = words;
    bell.replaceChildren(
      make("span", { "aria-hidden": "true" }, `▲ ${alerts.length}${next ? "+" : ""}`), make("span", { class: "unseen" }, words),
    );
  }, EVERY_SECONDS).soon();
}
