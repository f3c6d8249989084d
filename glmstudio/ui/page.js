// What the page does in the browser itself: keys, the list's selection, language and colours.
// Listens at the document, because Gradio builds and rebuilds what is below. Knows no words.
(() => {
  const visible = (element) => element && element.offsetParent !== null;
  const field = (id) => document.querySelector(`#${id} textarea, #${id} input`);
  const cookie = (name, value) => {
    document.cookie = `glmstudio_${name}=${value}; path=/; max-age=31536000; samesite=lax`;
  };

  // The list that was walked through by keyboard last.
  let walked = "";

  window.glm = {
    // A stored row is there for its target, a new one begins with its input.
    focusForm() {
      // While a colleague's version is asked about, the keyboard stays where it is.
      if (document.getElementById("annotate-conflict")) return;
      const stored = document.querySelector("#annotate-heading [data-row]");
      field(stored ? "annotate-target" : "annotate-input")?.focus();
    },
    keepRowFocus(id) {
      if (walked !== id || document.activeElement !== document.body) return;
      document.querySelector(`#${id} .glm-rows`)?.focus({ preventScroll: true });
      document.querySelector(`#${id} [aria-selected]`)?.scrollIntoView({ block: "nearest" });
    },
    showSelected() {
      document.querySelector("#annotate-table [aria-selected]")?.scrollIntoView({ block: "nearest" });
    },
    selectRow(row) {
      row.parentElement.querySelectorAll("[aria-selected]").forEach((other) => other.removeAttribute("aria-selected"));
      row.setAttribute("aria-selected", "true");
    },
    download(id) {
      // The button learns its file in the next frame.
      requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(id)?.click()));
    },
  };

  function stepRow(table, by) {
    const rows = [...table.querySelectorAll("tr[data-id], tr[data-place]")].filter(visible);
    if (!rows.length) return;
    walked = table.closest("[id]")?.id;
    const at = rows.findIndex((row) => row.getAttribute("aria-selected"));
    const next = at < 0 ? rows[0] : rows[at + by];
    next?.click();
    next?.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    // Gradio's dropdown opens its list at every key but Escape, a moment later: at Tab for good, over the form.
    if (event.key === "Tab" && event.target.getAttribute?.("role") === "combobox") event.stopPropagation();
    const panel = event.target.closest?.("[role=tabpanel]");
    const press = (mark) => {
      const button = [...(panel?.querySelectorAll(mark) ?? [])].find((item) => visible(item) && !item.disabled);
      if (!button) return;
      event.preventDefault();
      event.stopPropagation();
      if (!event.repeat) button.click();
    };
    // Control and an arrow walk through Annotate's list from anywhere in the tab, an arrow alone through the list it is in.
    const list = panel?.querySelector("#annotate-table");
    const table = event.target.closest?.(".glm-rows[tabindex]") ?? (event.ctrlKey && list);
    const search = event.target.closest?.("#annotate-search");
    if (search && (event.key === "Escape" || event.key === "Enter")) {
      // The search field has nothing to do with the form.
      if (event.key === "Escape" && event.target.value) {
        event.target.value = "";
        event.target.dispatchEvent(new Event("input", { bubbles: true }));
      }
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press(".glm-on-enter");
    else if (event.key === "Escape" && !event.target.closest?.("[role=combobox], [role=listbox]")) press(".glm-on-escape");
    else if (table && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      stepRow(table, event.key === "ArrowDown" ? 1 : -1);
    }
  }, true);

  document.addEventListener("click", (event) => {
    // A double click saves one row.
    if (event.detail > 1 && event.target.closest(".glm-on-enter")) {
      event.stopPropagation();
      event.preventDefault();
      return;
    }
    const header = event.target.closest("#header");
    if (!header) return;
    const language = event.target.closest("[data-language]")?.dataset.language;
    if (language) {
      cookie("language", language);
      location.reload();
    }
    const open = event.target.closest("[data-open-tab]")?.dataset.openTab;
    if (open) document.getElementById(`tab-${open}-button`)?.click();
    if (event.target.closest("[data-colours]")) {
      const dark = document.body.classList.toggle("dark");
      cookie("theme", dark ? "dark" : "light");
    }
  }, true);

  // Gradio marks the body as dark; the tokens stand at the root, which is there before the body is built.
  addEventListener("DOMContentLoaded", () => {
    const follow = () => document.documentElement.classList.toggle("dark", document.body.classList.contains("dark"));
    new MutationObserver(follow).observe(document.body, { attributeFilter: ["class"] });
  });
})();
