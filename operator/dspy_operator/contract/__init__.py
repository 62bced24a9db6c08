"""What operator, runner and loader say to each other. Pure: pydantic, the standard library and `api`."""
