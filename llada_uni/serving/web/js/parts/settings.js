// The settings of a mode, in a fold: what is left empty is the model's own default, which the field shows in grey.

import { button, el, freshId } from "../dom.js";
import { Mistake } from "../failures.js";
import { settingsOf } from "./settings_table.js";

/**
 * Fills `root` with the settings of the modes in `modes`; `use(mode)` shows those of one of them. defaults: mode -> name ->
 * the model's own value, for the grey figures. values(): what a person changed, ready to be part of a request.
 */
export function createSettings(root, modes, defaults) {
  const badge = el("span", { class: "badge", hidden: true });
  const list = el("div", { class: "settings-list" });
  const reset = button("Back to the defaults", { class: "quiet small", onclick: () => set({}) });
  root.append(el("details", { class: "settings" }, el("summary", {}, "Settings", badge), list, reset));
  const table = new Map(modes.flatMap(settingsOf).map((setting) => [setting.name, setting]));
  const fields = new Map();
  for (const setting of table.values()) {
    const field = createField(setting, count);
    fields.set(setting.name, field);
    list.append(field.root);
  }
  let mode = modes[0];

  function shown() {
    return settingsOf(mode).map(({ name }) => [name, fields.get(name)]);
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
    mode = other;
    for (const field of fields.values()) field.root.hidden = true;
    for (const [name, field] of shown()) {
      field.root.hidden = false;
      field.suggest(defaults[mode]?.[name]);
    }
    count();
  }

  function set(values) {
    for (const [name, field] of fields) field.set(values[name]);
    count();
  }

  use(mode);
  return {
    use,
    set,
    values() {
      const changed = shown().filter(([, field]) => field.changed);
      for (const [, field] of changed) field.check();
      return Object.fromEntries(changed.map(([name, field]) => [name, field.value]));
    },
  };
}

function createField(setting, onchange) {
  const id = freshId("setting");
  const note = freshId("note");
  const about = { id, name: setting.name, "aria-describedby": note };
  const number = setting.kind !== "choice";
  const input = number
    ? el("input", { ...about, type: "number", min: setting.min, max: setting.max, step: setting.step ?? 1, inputmode: "decimal" })
    : el("select", about, el("option", { value: "" }), ...setting.options.map((option) => el("option", { value: option }, option)));
  input.addEventListener("input", onchange);
  const root = el("div", { class: "setting" }, el("label", { for: id }, setting.label), input,
    el("p", { class: "hint", id: note }, setting.help));
  const pruning = setting.kind === "share of prefix";

  return {
    root,
    get changed() {
      return input.value !== "" || input.validity.badInput;
    },
    get value() {
      if (!number) return input.value;
      return pruning ? { r: Number(input.value) } : Number(input.value);
    },
    set(value) {
      input.value = (pruning ? value?.r : value) ?? "";
    },
    suggest(value) {
      const words = value == null ? (pruning ? "off" : "default") : String(value);
      if (number) input.placeholder = words;
      else input.options[0].textContent = `${words} (default)`;
    },
    check() {
      input.setAttribute("aria-invalid", String(!input.validity.valid));
      if (input.validity.valid) return;
      input.closest("details").open = true;
      input.focus();
      const what = setting.kind === "whole" ? "a whole number" : "a number";
      throw new Mistake(`${setting.label} must be ${what} from ${setting.min} to ${setting.max}.`);
    },
  };
}
