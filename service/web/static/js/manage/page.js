// The page to manage the fleet: servers, tokens and the audit log. A reader sees it, and is told why nothing can be changed.

import { get, remove } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { watchBell } from "../shared/bell.js";
import { byId, byIdAs, focusBySlash, make, setText } from "../shared/dom.js";
import { Freshness } from "../shared/freshness.js";
import { chooseZone, chosenZone, zoneOfBrowser } from "../shared/zone.js";
import { auditTable } from "./audit.js";
import { serverPanels } from "./server.js";
import { serverTable } from "./servers.js";
import { enrolmentForm, tokenForm, tokenTable } from "./tokens.js";

const SLOW_SECONDS = 30;
const SERVER_SECONDS = 5;
const PAGE = 100;
const TYPING_MS = 250;
const ONLY_ADMINS = "Only administrators can see this.";
const VIEWS = ["servers", "tokens", "audit", "page"];

const chosen = new URLSearchParams(location.search).get("server");
const fresh = new Freshness(byId("stale"));
const dialog = byIdAs("dialog", HTMLDialogElement);
const problem = byId("problem");
const filter = byIdAs("filter", HTMLInputElement);
const tags = byIdAs("tags", HTMLInputElement);
let mayChange = false;
let isKnown = false; // who is signed in
let shownServers = PAGE;
let shownEntries = PAGE;
/** @type {ReturnType<typeof serverPanels> | null} */
let panels = null;

// What is asked for

const session = fresh.task(async (signal) => {
  const found = await get("/api/v1/session", { signal });
  isKnown = true;
  mayChange = found.permissions.includes("admin");
  setText(byId("who"), `as ${found.name}`);
  byId("reader").hidden = mayChange;
  byId("sign-out").hidden = found.via === "proxy"; // the proxy would sign in again at once
  for (const name of ["new-token", "new-enrolment"]) byIdAs(name, HTMLButtonElement).disabled = !mayChange;
  showView();
});

const servers = fresh.task(async (signal) => {
  if (chosen !== null) {
    await showServer(chosen, signal);
    return;
  }
  const wanted = tags.value.split(",").map((one) => one.trim()).filter(Boolean);
  const found = await get("/api/v1/agents", { query: { search: filter.value.trim() || null, tag: wanted, limit: shownServers }, signal });
  byId("no-servers").hidden = found.agents.length > 0;
  byId("more-servers").hidden = found.next === null || shownServers >= 1000;
  showTable("server-list", found.agents.length ? serverTable(found.agents) : null);
}, chosen === null ? SLOW_SECONDS : SERVER_SECONDS);

const tokens = fresh.task(async (signal) => {
  if (!isKnown) return;
  if (!mayChange) {
    forAdmins("no-tokens");
    return;
  }
  const all = byIdAs("all-tokens", HTMLInputElement).checked;
  /** @type {Api.TokenInfo[]} */
  const found = [];
  let after = "";
  do {
    const page = await get("/api/v1/tokens", { query: { limit: 1000, after }, signal });
    found.push(...page.tokens.filter((one) => all || one.state === "active" || one.state === "spent"));
    after = page.next ?? "";
  } while (after);
  found.sort((a, b) => b.created_at.localeCompare(a.created_at));
  byId("no-tokens").hidden = found.length > 0;
  showTable("token-list", found.length ? tokenTable(found, { onRevoke: revoking }) : null);
}, SLOW_SECONDS);

const audit = fresh.task(async (signal) => {
  if (!isKnown) return;
  if (!mayChange) {
    forAdmins("no-entries");
    return;
  }
  const query = {
    server: value("audit-server"), actor: value("audit-actor"), action: byIdAs("audit-action", HTMLSelectElement).value || null, limit: shownEntries,
  };
  const found = await get("/api/v1/audit", { query, signal });
  byId("no-entries").hidden = found.entries.length > 0;
  byId("more-entries").hidden = found.next === null || shownEntries >= 1000;
  showTable("entries", found.entries.length ? auditTable(found.entries) : null);
}, SLOW_SECONDS);

/**
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function showServer(id, signal) {
  if (!isKnown) return;
  byId("server-list-panel").hidden = true;
  if (!panels) {
    panels = serverPanels(id, { mayChange, onRemoved: () => location.assign("/manage#servers") });
    byId("server").replaceChildren(panels.element);
    byId("server").hidden = false;
    document.title = `Manage ${id} · Linkbeat`;
  }
  await panels.refresh(signal);
}

/** @param {string} id */
function value(id) {
  return byIdAs(id, HTMLInputElement).value.trim() || null;
}

// What is shown

/** @param {string} id */
function forAdmins(id) {
  setText(byId(id), ONLY_ADMINS);
  byId(id).hidden = false;
}

/**
 * Replaces a table, unless the reader is at one of its buttons: it would be taken away from under the hand.
 * @param {string} id
 * @param {HTMLTableElement | null} table
 */
function showTable(id, table) {
  const place = byId(id);
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const label = focused?.getAttribute("aria-label") ?? focused?.getAttribute("href");
  place.replaceChildren(...(table ? [table] : []));
  if (!label) return;
  for (const one of place.querySelectorAll("a, button")) {
    if (one instanceof HTMLElement && (one.getAttribute("aria-label") ?? one.getAttribute("href")) === label) one.focus();
  }
}

function showView() {
  const view = VIEWS.find((one) => `#${one}` === location.hash) ?? "servers";
  for (const one of VIEWS) byId(one).hidden = one !== view;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const task = { servers, tokens, audit }[view];
  if (isKnown) task?.soon();
}

// What the reader does

/**
 * @param {string} title
 * @param {HTMLElement} content
 */
function open(title, content) {
  setText(byId("dialog-title"), title);
  byId("dialog-body").replaceChildren(content);
  dialog.showModal();
}

/** @param {Api.TokenInfo} token */
function revoking(token) {
  const yes = make("button", { type: "button", class: "primary" }, "Revoke");
  const no = make("button", { type: "button" }, "Keep");
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", async () => {
    dialog.close();
    await attempt(problem, () => remove("/api/v1/tokens/{token_id}", { path: { token_id: token.id } }));
    tokens.restart();
  });
  open(`Revoke ${token.id}?`, make(
    "div", { class: "alert-form" },
    make("p", {}, `${token.name ? `“${token.name}”: w` : "W"}hoever uses it is refused within seconds, for good.`), make("div", { class: "actions" }, yes, no),
  ));
  no.focus();
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;

/**
 * Asks again when nothing has been typed for a moment.
 * @param {string[]} ids
 * @param {{ restart: () => void }} task
 */
function onTyping(ids, task) {
  for (const id of ids) {
    byId(id).addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => task.restart(), TYPING_MS);
    });
  }
}

function offerZones() {
  const zone = byIdAs("zone", HTMLSelectElement);
  zone.append(
    make("option", { value: "" }, `As this browser: ${zoneOfBrowser()}`),
    ...["UTC", ...Intl.supportedValuesOf("timeZone").filter((one) => one !== "UTC")].map((name) => make("option", { value: name }, name)),
  );
  zone.value = chosenZone();
  zone.addEventListener("change", () => {
    setText(byId("zone-saved"), chooseZone(zone.value) ? "Kept in this browser." : "This browser cannot store settings for this page.");
  });
}

onTyping(["filter", "tags"], servers);
onTyping(["audit-server", "audit-actor"], audit);
focusBySlash(filter);
byId("audit-action").addEventListener("change", () => audit.restart());
byId("all-tokens").addEventListener("change", () => tokens.restart());
byId("more-servers").addEventListener("click", () => {
  shownServers = Math.min(1000, shownServers + 300);
  servers.restart();
});
byId("more-entries").addEventListener("click", () => {
  shownEntries = Math.min(1000, shownEntries + 300);
  audit.restart();
});
byId("zone-form").addEventListener("submit", (event) => event.preventDefault());
byId("new-token").addEventListener("click", () => open("New token", tokenForm(() => tokens.restart())));
byId("new-enrolment").addEventListener("click", () => open("New enrolment", enrolmentForm(() => tokens.restart())));
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
addEventListener("hashchange", showView);

offerZones();
watchBell(fresh);
showView();
session.soon();
