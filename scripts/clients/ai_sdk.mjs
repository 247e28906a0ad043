// Vercel's AI SDK: OpenAI's provider (responses, chat, images) and the one for compatible servers.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";

const baseURL = `${process.env.BASE_URL}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "none" });
const compatible = createOpenAICompatible({ name: "llada", baseURL, apiKey: "none" });
const prompt = "a cat at the top left and a dog at the bottom right on green";

async function check(name, work) {
  try {
    console.log((await work()) ? `ok ${name}` : `no ${name}: not what was expected`);
  } catch (error) {
    console.log(`no ${name}: ${String(error).split("\n")[0]}`);
  }
}

const first = await fetch(`${baseURL}/images/generations`, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ prompt, seed: 1 }),
});
const image = Buffer.from((await first.json()).data[0].b64_json, "base64");
const messages = [{ role: "user", content: [
  { type: "image", image, mediaType: "image/png" }, { type: "text", text: "what is at the top left?" },
] }];
const generateImage = ai.generateImage ?? ai.experimental_generateImage;

async function streamed(model) {
  let text = "";
  for await (const piece of ai.streamText({ model, messages, maxRetries: 0 }).textStream) text += piece;
  return text.includes("cat");
}

await check("responses", async () => (await ai.generateText({ model: openai("world"), messages, maxRetries: 0 })).text.includes("cat"));
await check("responses in a stream", () => streamed(openai("world")));
await check("chat", async () => (await ai.generateText({ model: openai.chat("world"), messages, maxRetries: 0 })).text.includes("cat"));
await check("compatible", async () => (await ai.generateText({ model: compatible("world"), messages, maxRetries: 0 })).text.includes("cat"));
await check("compatible in a stream", () => streamed(compatible("world")));
await check("draw", async () =>
  (await generateImage({ model: compatible.imageModel("world"), prompt, maxRetries: 0 })).image.mediaType.startsWith("image/"));
