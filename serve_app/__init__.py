"""The HTTP API: FastAPI on Ray Serve."""
