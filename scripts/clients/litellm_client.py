"""litellm as a library: completion, stream, image generation and edits, responses."""

import litellm
from common import API, PROMPT, QUESTION, case, is_png, uri

where = {"api_base": API, "api_key": "none", "model": "openai/world"}
messages = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": QUESTION}]}
]


def streamed():
    chunks = list(litellm.completion(messages=messages, stream=True, **where))
    return "cat" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


case("chat with an image", lambda: "cat" in litellm.completion(messages=messages, **where).choices[0].message.content)
case("stream", streamed)
case("draw", lambda: is_png(litellm.image_generation(prompt=PROMPT, **where).data[0].b64_json))
case("responses", lambda: litellm.responses(input="what can you draw?", **where).output[0].content[0].text is not None)
