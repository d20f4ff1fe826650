"""Searches for better prompts compared in simulated worlds: ours, and gepa and dspy as they are installed.

`worlds` says what a prompt is worth, `writer` rewrites prompts as a model would, `server` is both behind one
OpenAI-compatible address that counts every call. How to read what comes out: docs/performance.md.
"""
