"""What of a template is not text."""

import re

PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# All of a template that is not text: placeholders, comments, and a delimiter that stands alone.
TAG = re.compile(PLACEHOLDER.pattern + r"|\{#.*?#\}|\{[{%#]|[}%#]\}", re.DOTALL)
