// What is asked for stands in the address: it can be kept, sent on, and gone back to.

const PERIODS = ["1h", "24h", "7d"];
const SORTS = ["status", "server", "interface", "now", "peak", "errors"];
// What one looks for by it is much: that stands first.
const DESCENDING_FIRST = new Set(["now", "peak", "errors"]);

/** period, filter, sort and descending, as the address has them. */
export const settings = read();

/** Takes them from the address again, after a step back or forward. */
export function reread() {
  Object.assign(settings, read());
}

/** Puts them into the address; `isStep`: it can be gone back from. */
export function keep({ isStep = false } = {}) {
  const query = new URLSearchParams();
  if (settings.period !== PERIODS[0]) query.set("period", settings.period);
  if (settings.filter) query.set("q", settings.filter);
  if (settings.sort !== "server") query.set("sort", settings.sort);
  if (settings.descending !== DESCENDING_FIRST.has(settings.sort)) {
    query.set("order", settings.descending ? "desc" : "asc");
  }
  history[isStep ? "pushState" : "replaceState"](null, "", query.size ? `?${query}` : location.pathname);
}

/** By another column, or by the same one the other way round. */
export function sortBy(sort) {
  settings.descending = sort === settings.sort ? !settings.descending : DESCENDING_FIRST.has(sort);
  settings.sort = sort;
}

function read() {
  const query = new URLSearchParams(location.search);
  const sort = SORTS.includes(query.get("sort")) ? query.get("sort") : "server";
  return {
    period: PERIODS.includes(query.get("period")) ? query.get("period") : PERIODS[0],
    filter: query.get("q") ?? "",
    sort,
    descending: query.has("order") ? query.get("order") === "desc" : DESCENDING_FIRST.has(sort),
  };
}
