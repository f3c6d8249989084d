// Looks at what goes on: asks the program what has changed in the open tab, every second while something is under way,
// seldom else, not at all while nobody sees the page. Fills the slots itself and wakes Gradio where it must. No words.
(() => {
  const places = {};
  const wakers = {};
  const woken = {};
  const takers = {};
  const askers = {};
  let timer = 0;
  let asking = false;
  let asked = "";
  let ended = null;
  let stop = () => {};

  const openTab = () => document.querySelector("[role=tab][aria-selected=true][id^=tab-]")?.id.slice(4, -7) ?? "";

  // Nothing where the program is away, or wants a login: the next look finds it again.
  async function answered(query) {
    try {
      const response = await fetch(`glm/look?${query}`);
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }

  async function look(how = "") {
    clearTimeout(timer);
    if (document.hidden) return;
    if (asking) {
      asked = how === "fresh" || !asked ? how || "kept" : asked;
      return;
    }
    asking = true;
    let every = 3;
    try {
      const has = Object.entries(places).filter(([, { element, mark }]) => mark && element.isConnected);
      const query = new URLSearchParams({ tab: openTab(), has: has.map(([id, { mark }]) => `${id}:${mark}`).join(" ") });
      if (how === "fresh") query.set("fresh", "");
      if (ended) query.set("ended", ended);
      for (const ask of Object.values(askers)) for (const [name, value] of Object.entries(ask())) if (value) query.set(name, value);
      const answer = await answered(query);
      if (answer) {
        ended ??= answer.ended;
        every = answer.every;
        show(answer);
      }
    } finally {
      asking = false;
      const again = asked;
      asked = "";
      clearTimeout(timer);
      if (again) look(again);
      else timer = setTimeout(look, 1000 * every);
    }
  }

  // Whoever is on a button of it stays there.
  function redraw(element, html) {
    const known = (item) => JSON.stringify([item.className, { ...item.dataset }, item.closest("[data-run]")?.dataset.run]);
    const active = element.contains(document.activeElement) ? known(document.activeElement) : "";
    element.innerHTML = html;
    if (!active) return;
    const again = [...element.querySelectorAll("button, input, [tabindex]")].find((item) => known(item) === active);
    again?.focus({ preventScroll: true });
  }

  function show({ slots, wakes, feeds }) {
    for (const [id, [mark, html]] of Object.entries(slots)) {
      if (!places[id]?.element.isConnected) continue;
      places[id].mark = mark;
      redraw(places[id].element, html);
    }
    for (const [name, mark] of Object.entries(wakes)) {
      if (woken[name] === mark || !wakers[name]) continue;
      woken[name] = mark;
      wakers[name]();
    }
    for (const [name, value] of Object.entries(feeds)) takers[name]?.(value);
  }

  Object.assign(window.glm, {
    // Now, with what was done until now.
    look: () => look("fresh"),
    place(id, element) {
      places[id] = { element, mark: "" };
      setTimeout(look);
    },
    onWake(name, wake) {
      wakers[name] = wake;
      setTimeout(look);
    },
    // What a wake was answered with.
    woke(name, mark) {
      woken[name] = mark;
    },
    onStop: (end) => (stop = end),
    // What the page says about itself under `name` with each look.
    onAsk(name, ask) {
      askers[name] = ask;
    },
    onFeed(name, ask, take) {
      takers[name] = take;
      askers[name] = ask;
      setTimeout(look);
    },
  });

  document.addEventListener("click", (event) => {
    const job = event.target.closest?.("[data-stop-job]")?.dataset.stopJob;
    if (job) stop(job);
  });
  document.addEventListener("visibilitychange", () => look());
  let before = "";
  addEventListener("DOMContentLoaded", () => {
    new MutationObserver(() => {
      if (openTab() === before) return;
      before = openTab();
      look();
    }).observe(document.body, { subtree: true, attributeFilter: ["aria-selected"] });
  });
})();
