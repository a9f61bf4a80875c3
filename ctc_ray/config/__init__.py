"""One frozen pydantic model per stage: every option of the command line is a field here."""
