// The settings of a mode, in folds, one for each heading: what is left empty is the model's own default, which the field shows in gray.
//
// Which settings there are, their words and bounds come from the server (protocol/settings.py): a table for each task, of
// {name, title, help, panel, kind, minimum, maximum, step, choices, default}. A name with a dot is a field inside an object.

import { button, el, freshId } from "../dom.js";
import { Mistake } from "../failures.js";

/**
 * Fills `root` with the settings of `tasks`; `use(task)` shows those of one of them. tables: task -> its settings.
 * values(): what a person changed, ready to be part of a request.
 */
export function createSettings(root, tasks, tables) {
  const badge = el("span", { class: "badge", hidden: true });
  const list = el("div", { class: "settings-panels" });
  const reset = button("Back to the defaults", { class: "quiet small", onclick: () => set({}) });
  root.append(el("details", { class: "settings" }, el("summary", {}, "Settings", badge), list, reset));
  const fields = new Map();
  const panels = new Map();
  for (const setting of tasks.flatMap((task) => tables[task])) {
    if (fields.has(setting.name)) continue;
    const field = createField(setting, count);
    fields.set(setting.name, field);
    panelOf(setting.panel).append(field.root);
  }
  let task = tasks[0];

  function panelOf(name) {
    if (!panels.has(name)) {
      const inside = el("div", { class: "settings-list" });
      panels.set(name, inside);
      list.append(el("details", { class: "settings-group", open: panels.size === 1 }, el("summary", {}, name), inside));
    }
    return panels.get(name);
  }

  function shown() {
    return tables[task].map(({ name }) => [name, fields.get(name)]);
  }

  function count() {
    let changed = 0;
    for (const [, field] of shown()) {
      field.root.classList.toggle("changed", field.changed);
      changed += field.changed;
    }
    badge.hidden = changed === 0;
    badge.textContent = `${changed} changed`;
  }

  function use(other) {
    task = other;
    for (const field of fields.values()) field.root.hidden = true;
    for (const setting of tables[task]) {
      const field = fields.get(setting.name);
      field.root.hidden = false;
      field.suggest(setting.default);
    }
    for (const inside of panels.values()) {
      inside.parentElement.hidden = [...inside.children].every((child) => child.hidden);
    }
    count();
  }

  function set(values) {
    for (const [name, field] of fields) field.set(valueAt(values, name));
    count();
  }

  use(task);
  return {
    use,
    set,
    /** What the fields hold, unchecked, for `set` to bring back. */
    draft() {
      const values = {};
      for (const [name, field] of shown()) if (field.changed) putAt(values, name, field.text);
      return values;
    },
    values() {
      const changed = shown().filter(([, field]) => field.changed);
      for (const [, field] of changed) field.check();
      const values = {};
      for (const [name, field] of changed) putAt(values, name, field.value);
      return values;
    },
  };
}

/** The value under a name, which may lead into an object: "a.b" is values.a.b. */
function valueAt(values, name) {
  return name.split(".").reduce((inside, step) => inside?.[step], values);
}

function putAt(values, name, value) {
  const steps = name.split(".");
  const last = steps.pop();
  const inside = steps.reduce((outer, step) => (outer[step] ??= {}), values);
  inside[last] = value;
}

function createField(setting, onchange) {
  const id = freshId("setting");
  const note = freshId("note");
  const input = inputOf(setting, { id, name: setting.name, "aria-describedby": note });
  input.addEventListener("input", onchange);
  const root = el("div", { class: "setting" }, el("label", { for: id }, setting.title), input,
    el("p", { class: "hint", id: note }, setting.help));
  const number = input instanceof HTMLInputElement;

  return {
    root,
    get changed() {
      return input.value !== "" || input.validity.badInput;
    },
    get value() {
      if (number) return Number(input.value);
      return setting.kind === "boolean" ? input.value === "true" : input.value;
    },
    get text() {
      return input.value;
    },
    set(value) {
      input.value = value == null ? "" : String(value);
    },
    suggest(value) {
      const nothing = setting.name.includes(".") ? "off" : "default"; // an object that is not given is off
      if (number) input.placeholder = value == null ? nothing : String(value);
      else input.options[0].textContent = value == null ? nothing : `${value} (default)`;
    },
    check() {
      input.setAttribute("aria-invalid", String(!input.validity.valid));
      if (input.validity.valid) return;
      for (let fold = root.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
      input.focus();
      throw new Mistake(`${setting.title} must be ${setting.kind === "integer" ? "a whole number" : "a number"}${rangeOf(setting)}.`);
    },
  };
}

function inputOf({ kind, minimum, maximum, step, choices }, about) {
  if (kind === "integer" || kind === "number") {
    return el("input", { ...about, type: "number", min: minimum, max: maximum, step, inputmode: "decimal" });
  }
  const options = kind === "boolean" ? ["true", "false"] : choices;
  return el("select", about, el("option", { value: "" }), ...options.map((option) => el("option", { value: option }, option)));
}

function rangeOf({ minimum, maximum }) {
  if (minimum == null && maximum == null) return "";
  if (maximum == null) return ` of at least ${minimum}`;
  return minimum == null ? ` of at most ${maximum}` : ` from ${minimum} to ${maximum}`;
}
