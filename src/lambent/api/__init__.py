"""The API: from a socket to a service. ``app.py`` is the request path, ``http_server.py`` the server under it."""
