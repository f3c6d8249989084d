// The page's place in its address, after the #: the open tab, Annotate's filters and row. A reload and a link lead there,
// Back leads to the tab before instead of out of the program. Knows no words.
(() => {
  const place = () => new URLSearchParams(location.hash.slice(1));
  const written = (params) => {
    for (const [name, value] of [...params]) if (!value) params.delete(name);
    return `#${params}`;
  };

  Object.assign(window.glm, {
    // Several values at once, in the order of their names.
    setPlace(names, values) {
      const params = place();
      names.forEach((name, at) => params.set(name, values[at] ?? ""));
      if (written(params) !== location.hash) history.replaceState(null, "", written(params));
    },
    // What the address does not name stays as it is.
    placed: (names) => names.map((name) => place().get(name) ?? { __type__: "update" }),
    placedRow: () => place().get("row") ?? "",
  });

  function openTab(left) {
    const name = place().get("tab") ?? "annotate";
    const tab = document.getElementById(`tab-${name}-button`);
    if (tab) {
      if (tab.getAttribute("aria-selected") !== "true") tab.click();
    } else if (left) setTimeout(() => openTab(left - 1), 50);
  }
  addEventListener("DOMContentLoaded", () => openTab(200));
  addEventListener("popstate", () => openTab(0));
  // A tab is opened by a click or by the server: what is selected counts.
  function noteTab() {
    const name = document.querySelector("[role=tab][aria-selected=true][id^=tab-]")?.id.slice(4, -7);
    const params = place();
    if (!name || name === (params.get("tab") ?? "annotate")) return;
    params.set("tab", name);
    history.pushState(null, "", written(params));
  }
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(noteTab).observe(document.body, { subtree: true, attributeFilter: ["aria-selected"] });
  });
})();
