"""Structured output from a server, by the clients that people have: openai, instructor and LangChain.

    pip install openai instructor langchain-openai
    llada-uni serve --port 8000
    python examples/structured_output.py http://127.0.0.1:8000/v1

Each asks for a Person and gets one, checked by pydantic. What is in it is the model's word; that it is a Person is not.
"""

from __future__ import annotations

import sys

from pydantic import BaseModel, Field


class Person(BaseModel):
    """Somebody in a picture."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    color: str | None = None


QUESTION = [{"role": "user", "content": "who is at the top left?"}]


def by_openai(url: str, model: str) -> None:
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")
    parsed = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Person)
    print("openai parse:", parsed.choices[0].message.parsed)
    tool = {"type": "function", "function": {"name": "note", "parameters": Person.model_json_schema()}}
    called = client.chat.completions.create(model=model, messages=QUESTION, tools=[tool], tool_choice="required")
    arguments = called.choices[0].message.tool_calls[0].function.arguments
    print("openai tools:", Person.model_validate_json(arguments))


def by_instructor(url: str, model: str) -> None:
    import instructor
    import openai

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none"), mode=mode)
        made = client.chat.completions.create(model=model, messages=QUESTION, response_model=Person, max_retries=0)
        print(f"instructor {mode.name}:", made)


def by_langchain(url: str, model: str) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=url, api_key="none", model=model, max_retries=0)
    for method in ("json_schema", "function_calling"):
        print(f"langchain {method}:", chat.with_structured_output(Person, method=method).invoke(QUESTION))


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    import openai

    served = openai.OpenAI(base_url=address, api_key="none").models.list().data[0].id
    by_openai(address, served)
    by_instructor(address, served)
    by_langchain(address, served)
