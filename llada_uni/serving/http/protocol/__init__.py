"""The bodies of requests and answers: OpenAI's forms, with our extra fields beside them."""
