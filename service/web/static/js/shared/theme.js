// Before the first paint, and therefore no module: a page in the wrong colours would flash.
(() => {
  try {
    const theme = localStorage.getItem("linkbeat.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is forbidden here: the system's colours it is.
  }
})();
