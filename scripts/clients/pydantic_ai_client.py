"""pydantic-ai: agents over both of OpenAI's APIs, with images in and streams."""

import asyncio
import base64

from common import API, QUESTION, case, drawn
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.models import openai as models
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=API, api_key="none")
picture = BinaryContent(base64.b64decode(drawn()), media_type="image/png")
Chat = getattr(models, "OpenAIChatModel", None) or models.OpenAIModel
chat = Agent(Chat("world", provider=provider))
responses = Agent(models.OpenAIResponsesModel("world", provider=provider))


def streamed(agent):
    async def run():
        async with agent.run_stream([picture, QUESTION]) as answer:
            return await answer.get_output()

    return asyncio.run(run())


case("chat with an image", lambda: "cat" in chat.run_sync([picture, QUESTION]).output)
case("stream", lambda: "cat" in streamed(chat))
case("responses with an image", lambda: "cat" in responses.run_sync([picture, QUESTION]).output)
case("responses in a stream", lambda: "cat" in streamed(responses))
