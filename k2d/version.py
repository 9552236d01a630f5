"""The version of the package: pyproject.toml, the API and every manifest read it from here."""

__version__ = "0.2.0"
