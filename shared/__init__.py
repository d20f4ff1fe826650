"""What the API process and the worker process both know. Imports neither of them."""
