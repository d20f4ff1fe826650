"""The HTTP process, made by `app.factory`, and command lines, which start without it: importing it takes a second."""
