"""The whole stack on one machine: embedded servers, a supervisor, the demo."""
