// The page of alerts: what fires now and fired, the rules, who is told, and when nobody is.

import { get, post, put, remove } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { watchBell } from "../shared/bell.js";
import { choice, onChoice } from "../shared/choices.js";
import { now } from "../shared/clock.js";
import { byId, byIdAs, make, setText } from "../shared/dom.js";
import { loadEpisodes } from "../shared/episodes.js";
import { Freshness } from "../shared/freshness.js";
import { channelForm } from "./channel-form.js";
import { channelTable } from "./channels.js";
import { messageTable } from "./messages.js";
import { muteForm, muteTable } from "./mutes.js";
import { alertTable } from "./now.js";
import { ruleForm } from "./rule-form.js";
import { asSent, ruleTable } from "./rules.js";
import { timeline } from "./timeline.js";

/** @import { Rule } from "../shared/alert-words.js" */

const POLL_SECONDS = 5;
const SLOW_SECONDS = 30;
const PAGE = 1000;
const VIEWS = ["now", "rules", "channels", "mutes"];

/** @type {Api.Alert[]} */
let alerts = [];
/** @type {Rule[]} */
let rules = [];
/** @type {Api.AlertChannel[]} */
let channels = [];

const fresh = new Freshness(byId("stale"));
const dialog = byIdAs("dialog", HTMLDialogElement);
const problem = byId("problem");

// What is asked for

const current = fresh.task(async (signal) => {
  alerts = await all((after) => get("/api/v1/alerts", { query: { limit: PAGE, after }, signal }), (page) => page.alerts);
  showAlerts();
}, POLL_SECONDS);

const ruleList = fresh.task(async (signal) => {
  rules = await all((after) => get("/api/v1/alert-rules", { query: { limit: PAGE, after: after ?? "" }, signal }), (page) => page.rules);
  showRules();
  showAlerts();
}, SLOW_SECONDS);

const history = fresh.task(async (signal) => {
  const until = now();
  const since = until - Number(document.querySelector('input[name="period"]:checked')?.getAttribute("value") ?? 1) * 86_400_000;
  const episodes = await loadEpisodes({ since, until }, signal);
  byId("no-history").hidden = episodes.length > 0;
  byId("history").replaceChildren(...(episodes.length ? [timeline(episodes, { since, until }, { caption: "Alerts of the period", withRule: true })] : []));
}, SLOW_SECONDS);

const channelList = fresh.task(async (signal) => {
  channels = await all((after) => get("/api/v1/alert-channels", { query: { limit: PAGE, after: after ?? "" }, signal }), (page) => page.channels);
  byId("no-channels").hidden = channels.length > 0;
  showTable("channel-list", channels.length ? channelTable(channels, {
    onEdit: (channel) => open(`Change ${channel.id}`, channelForm(channel, () => saved(channelList))),
    onRemove: (channel) => removing(channel.id, channelList, () => remove("/api/v1/alert-channels/{channel_id}", { path: { channel_id: channel.id } })),
  }) : null);
}, SLOW_SECONDS);

const messages = fresh.task(async (signal) => {
  const found = await get("/api/v1/alert-messages", { query: { limit: 50 }, signal });
  byId("no-messages").hidden = found.messages.length > 0;
  showTable("messages", found.messages.length ? messageTable(found.messages, now()) : null);
}, POLL_SECONDS);

const mutes = fresh.task(async (signal) => {
  const found = await all((after) => get("/api/v1/alert-mutes", { query: { limit: PAGE, after: after ?? "" }, signal }), (page) => page.mutes);
  showTable("mute-list", found.length ? muteTable(found, {
    onRemove: (mute) => removing(mute.id, mutes, () => remove("/api/v1/alert-mutes/{mute_id}", { path: { mute_id: mute.id } })),
  }) : null);
}, SLOW_SECONDS);

/**
 * All pages of a list.
 * @template {{ next: string | null }} Page
 * @template Item
 * @param {(after: string | null) => Promise<Page>} ask
 * @param {(page: Page) => Item[]} items
 */
async function all(ask, items) {
  const found = [];
  /** @type {string | null} */
  let after = null;
  do {
    const page = /** @type {Page} */ (await ask(after));
    found.push(...items(page));
    after = page.next;
  } while (after);
  return found;
}

// What is shown

function showAlerts() {
  const firing = alerts.filter((one) => one.state === "firing");
  byId("calm").hidden = alerts.length > 0;
  setText(byId("summary"), alerts.length ? `${firing.length} firing, ${alerts.length - firing.length} pending` : "");
  showTable("alerts", alerts.length ? alertTable(alerts, {
    rules: new Map(rules.map((rule) => [rule.id, rule])), units: choice("units"), now: now(), onAcknowledge: acknowledge,
  }) : null);
}

function showRules() {
  const firing = new Map(rules.map((rule) => [rule.id, alerts.filter((one) => one.rule === rule.id && one.state === "firing").length]));
  showTable("rule-list", ruleTable(rules, firing, {
    units: choice("units"),
    // As it is now: the list may be older than what somebody else has changed.
    onSwitch: ({ id }, isOn) => changing(ruleList, async () => {
      const rule = await get("/api/v1/alert-rules/{rule_id}", { path: { rule_id: id } });
      await put("/api/v1/alert-rules/{rule_id}", { path: { rule_id: id }, body: { ...asSent(rule), enabled: isOn }, seen: rule });
    }),
    onEdit: ({ id }) => attempt(problem, async () => {
      const rule = await get("/api/v1/alert-rules/{rule_id}", { path: { rule_id: id } });
      open(`Change ${id}`, ruleForm(rule, { channels: channels.map((one) => one.id), onSaved: () => saved(ruleList) }));
    }),
    onRemove: (rule) => removing(rule.id, ruleList, () => remove("/api/v1/alert-rules/{rule_id}", { path: { rule_id: rule.id } })),
  }));
}

/**
 * Replaces a table, unless the reader is at one of its buttons: it would be taken away from under the hand.
 * @param {string} id
 * @param {HTMLTableElement | null} table
 */
function showTable(id, table) {
  const place = byId(id);
  const focused = place.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") : null;
  place.replaceChildren(...(table ? [table] : []));
  if (focused) for (const one of place.querySelectorAll("[aria-label]")) if (one instanceof HTMLElement && one.getAttribute("aria-label") === focused) one.focus();
}

function showView() {
  const view = VIEWS.find((one) => `#${one}` === location.hash) ?? "now";
  for (const one of VIEWS) byId(one).hidden = one !== view;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const tasks = { now: [current, history], rules: [ruleList, channelList], channels: [channelList, messages], mutes: [mutes] };
  for (const task of tasks[/** @type {keyof typeof tasks} */ (view)]) task.soon();
}

// What the reader does

/**
 * @param {string} title
 * @param {HTMLElement} form
 */
function open(title, form) {
  setText(byId("dialog-title"), title);
  byId("dialog-body").replaceChildren(form);
  dialog.showModal();
}

/** @param {{ restart: () => void }} task */
function saved(task) {
  dialog.close();
  task.restart();
}

/**
 * Changes something, shows the list again, and says what went wrong.
 * @param {{ restart: () => void }} task
 * @param {() => Promise<unknown>} request
 */
async function changing(task, request) {
  await attempt(problem, request);
  task.restart();
}

/**
 * Asks whether to remove something.
 * @param {string} name
 * @param {{ restart: () => void }} task
 * @param {() => Promise<unknown>} request
 */
function removing(name, task, request) {
  const yes = make("button", { type: "button", class: "primary" }, "Remove");
  const no = make("button", { type: "button" }, "Keep");
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", () => {
    dialog.close();
    changing(task, request);
  });
  open(`Remove ${name}?`, make("div", { class: "actions" }, yes, no));
  no.focus();
}

/** @param {Api.Alert} alert */
function acknowledge(alert) {
  changing(current, () => post("/api/v1/alerts/{episode}/acknowledge", { path: { episode: alert.episode ?? "" } }));
}

byId("new-rule").addEventListener("click", () => {
  open("New rule", ruleForm(null, { channels: channels.map((one) => one.id), onSaved: () => saved(ruleList) }));
});
byId("new-channel").addEventListener("click", () => open("New channel", channelForm(null, () => saved(channelList))));
byId("new-mute").addEventListener("click", () => open("New mute", muteForm(() => saved(mutes))));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
for (const input of document.querySelectorAll('input[name="period"]')) input.addEventListener("change", () => history.restart());
addEventListener("hashchange", showView);
onChoice(() => {
  showAlerts();
  showRules();
});

watchBell(fresh);
ruleList.soon();
current.soon();
showView();
