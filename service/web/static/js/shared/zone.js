// The time zone in which days and months begin for this reader: chosen on the page to manage, or the browser's own.

const KEY = "linkbeat.zone";

/** The browser's own zone. */
export function zoneOfBrowser() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** The zone that was chosen, "" for none. */
export function chosenZone() {
  try {
    const zone = localStorage.getItem(KEY) ?? "";
    if (zone) Intl.DateTimeFormat([], { timeZone: zone }); // throws for a zone that this browser does not know
    return zone;
  } catch {
    return "";
  }
}

/** The zone that holds. */
export function zoneOfPage() {
  return chosenZone() || zoneOfBrowser();
}

/**
 * Keeps the choice in this browser; "" for the browser's own. Returns whether it could be kept.
 * @param {string} zone
 */
export function chooseZone(zone) {
  try {
    if (zone) localStorage.setItem(KEY, zone);
    else localStorage.removeItem(KEY);
    return true;
  } catch {
    return false; // storage is forbidden here
  }
}
