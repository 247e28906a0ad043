// OpenAI's SDK for Node: chat, streams, images and responses.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.BASE_URL}/v1`, apiKey: "none", maxRetries: 0, timeout: 300_000 });
const prompt = "a cat at the top left and a dog at the bottom right on green";
const question = "what is at the top left?";

async function check(name, work) {
  try {
    console.log((await work()) ? `ok ${name}` : `no ${name}: not what was expected`);
  } catch (error) {
    console.log(`no ${name}: ${String(error).split("\n")[0]}`);
  }
}

const drawn = (await client.images.generate({ prompt, seed: 1 })).data[0].b64_json;
const url = `data:image/png;base64,${drawn}`;
const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: question }] }];
const input = [{ role: "user", content: [{ type: "input_image", image_url: url }, { type: "input_text", text: question }] }];

await check("draw", async () => drawn.startsWith("iVBOR"));
await check("chat with an image", async () =>
  (await client.chat.completions.create({ model: "world", messages })).choices[0].message.content.includes("cat"));
await check("stream", async () =>
  (await client.chat.completions.stream({ model: "world", messages }).finalContent()).includes("cat"));
await check("responses", async () => (await client.responses.create({ model: "world", input })).output_text.includes("cat"));
await check("responses in a stream", async () =>
  (await client.responses.stream({ model: "world", input }).finalResponse()).output_text.includes("cat"));
