"""Text held to a grammar: a regular expression, a JSON schema of bounded depth, or a list of choices (docs/grammar.md)."""
