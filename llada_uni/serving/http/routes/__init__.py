"""The routes of the server, a file for each group. `serving.http.create_app` puts them together."""
