"""Reports: the record of figures and checks, and how it is shown."""
