"""The HTTP process, made by `app.factory`, and command lines, which leave it alone: it takes two seconds to import."""
