"""What the numbers in the documents come from; each file is a command."""
