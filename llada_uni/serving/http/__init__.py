"""The HTTP side of the server; no tensor is touched here."""
