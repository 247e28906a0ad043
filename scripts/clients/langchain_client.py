"""LangChain's ChatOpenAI: both of OpenAI's APIs, streams, images in."""

from common import API, QUESTION, case, uri
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from structured_output import Person, by_langchain

shown = HumanMessage(content=[{"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": QUESTION}])
where = {"base_url": API, "api_key": "none", "model": "world", "max_retries": 0, "timeout": 300}
chat, responses = ChatOpenAI(**where), ChatOpenAI(use_responses_api=True, **where)


def text(message):
    return message.text if isinstance(message.text, str) else message.text()


case("chat with an image", lambda: "cat" in text(chat.invoke([shown])))
case("stream", lambda: "cat" in "".join(text(chunk) for chunk in chat.stream([shown])))
case("turns", lambda: text(chat.invoke([SystemMessage("be brief"), AIMessage("hello"), shown])) is not None)
case("responses with an image", lambda: "cat" in text(responses.invoke([shown])))
case("responses in a stream", lambda: "cat" in "".join(text(chunk) for chunk in responses.stream([shown])))
case("examples/structured_output.py", lambda: by_langchain(API, "world") is None)
bound = responses.bind_tools([Person], tool_choice="required")
case("a function by responses", lambda: Person(**bound.invoke("who is it?").tool_calls[0]["args"]))
