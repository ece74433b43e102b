"""The routes, by what they are about. Each asks for the caller and calls one service function."""
