// Shows what Ask and Story said on their own nodes, in a field that cannot be typed into.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const NODES = ["LLaDA2UniUnderstand", "LLaDA2UniStory"];
const NAME = "said";

function show(node, text) {
  let widget = node.widgets?.find((one) => one.name === NAME);
  if (!widget) {
    widget = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false; // no part of the workflow
    widget.serializeValue = () => undefined;
    const field = widget.element ?? widget.inputEl;
    if (field) field.readOnly = true;
  }
  widget.value = text || "(no text)";
  const [width, height] = node.computeSize();
  node.setSize?.([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  app.graph?.setDirtyCanvas(true, false);
}

app.registerExtension({
  name: "llada2_uni.show_text",
  beforeRegisterNodeDef(type, data) {
    if (!NODES.includes(data.name)) return;
    const executed = type.prototype.onExecuted;
    type.prototype.onExecuted = function (message) {
      executed?.apply(this, arguments);
      show(this, (message?.text ?? []).join("\n"));
    };
  },
});
