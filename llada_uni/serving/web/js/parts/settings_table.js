// Every setting of the studio: its name in a request, its words, and which mode has it. Read by parts/settings.js.

/** kind: "whole", "real", "choice" or "share of prefix"; step: of the number field; modes: those that have it. */
export const SETTINGS = [
  { name: "steps", label: "Steps", kind: "whole", min: 1, max: 256, modes: ["draw", "ask", "edit", "chat", "story"],
    help: "Most unmasking steps a block may take. Fewer are quicker and fill in more places at once." },
  { name: "threshold", label: "Threshold", kind: "real", min: 0, max: 1, step: 0.01, modes: ["draw", "ask", "edit", "chat", "story"],
    help: "A draft the model is surer of than this is final at once. Lower is quicker and bolder." },
  { name: "cfg_scale", label: "Guidance", kind: "real", min: 0, max: 20, step: 0.1, modes: ["draw", "brush"],
    help: "How much the words weigh against a picture of anything. 1 is no guidance." },
  { name: "text_scale", label: "Text guidance", kind: "real", min: 0, max: 20, step: 0.1, modes: ["edit", "story"],
    help: "How much the instruction, or the sentence of the frame, weighs. 1 is no guidance." },
  { name: "image_scale", label: "Picture guidance", kind: "real", min: 0, max: 20, step: 0.1, modes: ["edit", "story"],
    help: "How much the given picture, or the story so far, weighs. 0 is no guidance." },
  { name: "rescale", label: "Rescale", kind: "real", min: 0, max: 1, step: 0.05, modes: ["edit", "story"],
    help: "Tames strong guidance: 0 leaves it as it is, 1 gives it the spread of the unguided model." },
  { name: "max_frames", label: "Pictures at most", kind: "whole", min: 1, max: 16, modes: ["story"],
    help: "The story ends after so many pictures, if it has not ended before." },
  { name: "max_tokens", label: "Words at most", kind: "whole", min: 1, max: 4096, modes: ["ask", "chat", "story"],
    help: "The longest answer, in tokens; a token is a word or a part of one." },
  { name: "decoder", label: "Decoder", kind: "choice", options: ["turbo", "base"], modes: ["draw", "edit", "brush", "story"],
    help: "How codes become pixels: turbo in a few distilled steps, base in many guided ones." },
  { name: "decoder_steps", label: "Decoder steps", kind: "whole", min: 1, max: 100, modes: ["draw", "edit", "brush", "story"],
    help: "Evaluations of the decoder. More are slower and a little finer." },
  { name: "temperature", label: "Temperature", kind: "real", min: 0, max: 2, step: 0.1, modes: ["draw", "ask", "edit", "brush", "chat", "story"],
    help: "0 takes the likeliest draft everywhere, whatever the seed; higher values give more variety, and more mistakes." },
  { name: "top_p", label: "Top p", kind: "real", min: 0.01, max: 1, step: 0.01, modes: ["draw", "ask", "edit", "brush", "chat", "story"],
    help: "With a temperature: draws among the likeliest tokens that together have this probability. 1 is off." },
  { name: "rule", label: "Acceptance", kind: "choice", options: ["threshold", "left", "adaptive", "entropy", "factor"],
    modes: ["draw", "ask", "edit", "brush", "chat", "story"],
    help: "Which drafts a step keeps: all above the threshold (else the surest, or the leftmost), or by SPRINT's, the entropy or the factor rule." },
  { name: "sprint", label: "Sprint", kind: "share of prefix", min: 0, max: 1, step: 0.05,
    modes: ["draw", "ask", "edit", "brush", "chat", "story"],
    help: "Share of the prompt that later steps still look at. Less is quicker on long prompts; empty is off." },
];

/** The settings of a mode. */
export function settingsOf(mode) {
  return SETTINGS.filter((setting) => setting.modes.includes(mode));
}
