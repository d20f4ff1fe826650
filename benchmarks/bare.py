"""A Flask view that does nothing: what a server and Flask alone leave for the work of a request."""

import flask

application = flask.Flask(__name__)


@application.get("/health")
@application.get("/v1/prompts/<name>/versions/<version>")
def read(name: str = "", version: str = "") -> flask.Response:
    return flask.jsonify({"name": name, "version": version})
