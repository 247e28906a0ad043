// Shortcuts of the whole page. What each does is told to the person by page/help.js, from the same table.

/** key as shown, what it does. The brush has keys of its own (pictures/brush.js), listed here for the help. */
export const SHORTCUTS = [
  ["Ctrl Enter", "run (⌘ Enter on a Mac)"],
  ["Esc", "cancel what runs in this mode"],
  ["1 … 5", "Draw, Ask, Edit, Chat, Story (Alt with the figure while typing)"],
  ["/", "to the words"],
  ["G", "another seed, and hold it"],
  ["?", "this help"],
  ["← ↑ → ↓, Space", "on the mask: move the brush, paint"],
  ["[ ], X, Z, I", "on the mask: brush size, erase, undo, invert"],
];

/** tabs: page/tabs.js; modes: by name; help: page/help.js. */
export function listenToKeys(tabs, modes, help) {
  const plain = {
    "/": () => modes[tabs.current()].prompt.focus(),
    g: () => modes[tabs.current()].seed.roll(),
    "?": () => help.open(),
  };

  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const mode = modes[tabs.current()];
    const typing = event.target.matches("input, textarea, select");
    const figure = /^(?:Digit|Numpad)([1-5])$/.exec(event.code)?.[1];
    let action = null;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) action = mode.run;
    else if (event.key === "Escape" && mode.isRunning()) action = mode.cancel;
    else if (event.ctrlKey || event.metaKey) return;
    else if (figure && (event.altKey || !typing)) action = () => tabs.show(tabs.modes[figure - 1]);
    else if (!typing && !event.altKey) action = plain[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
