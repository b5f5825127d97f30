"""A package that extends edgecnn through entry points."""
