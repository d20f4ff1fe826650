"""The verbs: plain functions that take a Session first. The rules of a noun live in its file."""
