"""The REST API. Import it only to serve: FastAPI takes half a second to load."""
