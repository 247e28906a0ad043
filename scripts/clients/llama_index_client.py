"""llama-index's OpenAILike: completion, chat with an image, stream."""

import base64

from common import API, QUESTION, case, drawn
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(model="world", api_base=API, api_key="none", is_chat_model=True, max_retries=0, timeout=300)
blocks = [ImageBlock(image=base64.b64decode(drawn()), image_mimetype="image/png"), TextBlock(text=QUESTION)]
said = [ChatMessage(role=MessageRole.USER, blocks=blocks)]
case("complete", lambda: llm.complete("what can you draw?").text is not None)
case("chat with an image", lambda: "cat" in llm.chat(said).message.content)
case("stream", lambda: "cat" in list(llm.stream_chat(said))[-1].message.content)
