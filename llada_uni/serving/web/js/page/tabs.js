// The five modes as tabs; the address names the one that is shown (#edit), so that a reload comes back to it.

const TABS = [...document.querySelectorAll(".modes [role=tab]")];

/** show(mode) opens one; current() says which it is; modes: their names in order. */
export function createTabs() {
  const modes = TABS.map((tab) => tab.dataset.mode);

  function show(mode) {
    for (const tab of TABS) {
      const chosen = tab.dataset.mode === mode;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    window.history.replaceState(null, "", `#${mode}`);
  }

  function current() {
    return TABS.find((tab) => tab.getAttribute("aria-selected") === "true").dataset.mode;
  }

  for (const tab of TABS) {
    tab.addEventListener("click", () => show(tab.dataset.mode));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = TABS.at((TABS.indexOf(tab) + step) % TABS.length);
      show(next.dataset.mode);
      next.focus();
    });
  }
  function showNamed() {
    const named = location.hash.slice(1);
    show(modes.includes(named) ? named : modes[0]);
  }

  window.addEventListener("hashchange", showNamed);
  showNamed();
  return { show, current, modes };
}
