// Keeps what is typed into Annotate's form in the browser's own storage, by tab and row: a reload, a lost connection and
// a second tab lose nothing. A text is forgotten once the server says that it is saved. Knows no words.
(() => {
  const PREFIX = "glmstudio-drafts-";
  const MOST = 50;
  const SETTLES_MS = 50;
  const RELOAD_MS = 1000;
  const ANSWERS_MS = 500;
  const others = new BroadcastChannel("glmstudio-tabs");
  const fresh = () => `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;
  let tab = sessionStorage.getItem("glmstudio-tab-id");
  let known = null;
  let pending = null;
  let timer = 0;

  const read = (name) => {
    try {
      return JSON.parse(localStorage.getItem(PREFIX + name)) ?? {};
    } catch {
      return {};
    }
  };
  function write(name, drafts) {
    const newest = Object.values(drafts).sort((a, b) => b.at - a.at).slice(0, MOST);
    if (newest.length) localStorage.setItem(PREFIX + name, JSON.stringify(Object.fromEntries(newest.map((d) => [d.key, d]))));
    else localStorage.removeItem(PREFIX + name);
  }

  // Which tabs are open. Each holds a lock of its name for as long as it lives; a tab that was duplicated finds its name
  // held. Where the browser has no locks (a page over plain HTTP from another machine), open tabs answer when one asks.
  const held = (name) => new Promise((found) => {
    navigator.locks.request(PREFIX + name, { ifAvailable: true }, (lock) => {
      found(!lock);
      return lock ? new Promise(() => {}) : undefined;
    });
  });
  async function isTaken(name) {
    // After a reload the former page lets go in a moment.
    for (let wait = 0; wait < RELOAD_MS; wait += 50) {
      if (!(await held(name))) return false;
      await new Promise((done) => setTimeout(done, 50));
    }
    return true;
  }
  others.onmessage = ({ data }) => {
    if (data.ask && tab && data.ask !== known?.self) others.postMessage({ here: tab, of: known?.self });
    if (data.here && data.of !== known?.self) known?.open.add(data.here);
  };
  async function settle() {
    known = { self: fresh(), open: new Set() };
    if (navigator.locks) {
      if (!tab || (await isTaken(tab))) {
        tab = fresh();
        await held(tab);
      }
      for (const lock of (await navigator.locks.query()).held) {
        if (lock.name.startsWith(PREFIX)) known.open.add(lock.name.slice(PREFIX.length));
      }
    } else {
      others.postMessage({ ask: known.self });
      await new Promise((done) => setTimeout(done, ANSWERS_MS));
      if (!tab || known.open.has(tab)) tab = fresh();
    }
    sessionStorage.setItem("glmstudio-tab-id", tab);
    const drafts = read(tab);
    for (const name of Object.keys(localStorage)) {
      const left = name.startsWith(PREFIX) && name.slice(PREFIX.length);
      if (!left || left === tab || known.open.has(left)) continue;
      Object.assign(drafts, read(left));
      localStorage.removeItem(name);
    }
    write(tab, drafts);
  }

  function flush() {
    clearTimeout(timer);
    if (!pending || !tab) return;
    const [fields, form] = [pending.slice(0, -1), JSON.parse(pending.at(-1))];
    pending = null;
    const drafts = read(tab);
    for (const key of form.forget) delete drafts[key];
    const text = (value) => value ?? "";
    const unsaved = form.stored
      ? fields.some((value, place) => text(value) !== form.stored[place])
      : Boolean(text(fields[1]).trim() || text(fields[2]).trim());
    if (unsaved) drafts[form.key] = { key: form.key, id: form.id, revision: form.revision, fields, at: Date.now() };
    else delete drafts[form.key];
    write(tab, drafts);
  }
  addEventListener("pagehide", flush);
  addEventListener("visibilitychange", flush);

  const list = () => JSON.stringify(Object.values(read(tab)).sort((a, b) => a.at - b.at));
  Object.assign(window.glm, {
    // The six fields and the form's state. What the server sends comes as one change after another: the last one holds.
    keepDraft(...values) {
      if (!values.at(-1)) return;
      pending = values;
      clearTimeout(timer);
      timer = setTimeout(flush, SETTLES_MS);
    },
    // Which row is in the form stands in the address, too.
    keepRow(state) {
      const form = state ? JSON.parse(state) : null;
      if (form) glm.setPlace(["row"], [form.id]);
    },
    drafts() {
      flush();
      return list();
    },
    async firstDrafts() {
      await settle();
      return list();
    },
  });
})();
